internal import CLinux
internal import COpenSSL
internal import Glibc
internal import Net

/// Who vouches for outside servers: read once, immutable, shared by all materials and workers.
///
/// OpenSSL locks a store while it searches it, so that threads can share one
/// (CRYPTO_THREAD_write_lock in crypto/x509/x509_lu.c).
@safe package final class OriginationAuthorities: @unchecked Sendable {
  /// Far more than any system has.
  package static let maximumCertificates = 2048
  /// Entries of one directory that are looked at.
  package static let maximumDirectoryFiles = 16 * 1024

  let store: OpaquePointer
  /// Whether each certificate is trusted for itself, also one that is no root.
  let areAnchors: Bool

  private init(areAnchors: Bool) throws(IdentityError) {
    guard let store = unsafe X509_STORE_new() else {
      throw IdentityError(file: "X509_STORE_new", reason: OpenSSLError.takeReason())
    }
    unsafe self.store = unsafe store
    self.areAnchors = areAnchors
  }

  deinit { unsafe X509_STORE_free(store) }

  /// The certificates of a PEM file. Each is an anchor: a root, an intermediate, or a server's own
  /// certificate.
  package static func file(_ path: String) throws(IdentityError) -> OriginationAuthorities {
    let certificates = try PEMFile.certificates(path, limit: maximumCertificates)
    let authorities = try OriginationAuthorities(areAnchors: true)
    for (index, certificate) in certificates.enumerated() {
      guard !certificate.isMalformed else {
        throw IdentityError(
          file: path, reason: "certificate \(index + 1) has a malformed extension")
      }
      guard unsafe X509_STORE_add_cert(authorities.store, certificate.pointer) == 1 else {
        throw IdentityError(file: path, reason: OpenSSLError.takeReason())
      }
    }
    return authorities
  }

  /// The system's: OpenSSL's default file and directories, which SSL_CERT_FILE and SSL_CERT_DIR
  /// change. OpenSSL itself would read the directories in the middle of handshakes, on a worker.
  package static var system: OriginationAuthorities {
    get throws(IdentityError) {
      try load(
        file: unsafe setting(X509_get_default_cert_file_env(), X509_get_default_cert_file()),
        directories: unsafe setting(X509_get_default_cert_dir_env(), X509_get_default_cert_dir()))
    }
  }

  /// - Parameter directories: with colons between them.
  static func load(
    file: String, directories: String
  ) throws(IdentityError) -> OriginationAuthorities {
    let authorities = try OriginationAuthorities(areAnchors: false)
    authorities.add(file)
    for directory in directories.split(separator: ":") {
      for name in try names(in: String(directory)) { authorities.add("\(directory)/\(name)") }
    }
    guard authorities.count > 0 else {
      throw IdentityError(
        file: file, reason: "gives no certificate authority, nor does \(directories)")
    }
    guard authorities.count <= maximumCertificates else {
      throw IdentityError(
        file: file, reason: "and \(directories) hold more than \(maximumCertificates) certificates")
    }
    return authorities
  }

  /// Certificates, and revocation lists that came with them and are not looked at.
  var count: Int { unsafe Int(culvert_X509_STORE_count(store)) }

  // MARK: The system's

  /// What the environment says, which a program with more privileges than its user must not heed.
  private static func setting(
    _ name: UnsafePointer<CChar>?, _ usual: UnsafePointer<CChar>?
  ) -> String {
    if getauxval(UInt(AT_SECURE)) == 0, let name = unsafe name, let value = unsafe getenv(name) {
      return unsafe String(cString: value)
    }
    return unsafe usual.map { unsafe String(cString: $0) } ?? ""
  }

  /// A file that is not there, or damaged, is passed over, as OpenSSL does.
  private func add(_ path: String) {
    unsafe X509_STORE_load_file(store, path)
    ERR_clear_error()
  }

  /// The names that OpenSSL looks for: eight digits of a hash, and a number
  /// (openssl-rehash(1)).
  private static func names(in path: String) throws(IdentityError) -> [String] {
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        unsafe String(cString: UnsafeRawPointer(pointer).assumingMemoryBound(to: CChar.self))
      }
      guard isHashed(name) else { continue }
      guard names.count < maximumDirectoryFiles else {
        throw IdentityError(file: path, reason: "holds more than \(maximumDirectoryFiles) files")
      }
      names.append(name)
    }
    return names.sorted()
  }

  private static func isHashed(_ name: String) -> Bool {
    let parts = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    guard parts.count == 2, parts[0].count == 8, !parts[1].isEmpty else { return false }
    return parts[0].allSatisfy { TrafficSecrets.digit($0) != nil }
      && parts[1].allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
  }
}
