internal import COpenSSL
internal import Glibc
package import Identity

// What the Workload API hands out is DER, and a key that never was in a file.

/// A key and its X.509-SVID, made in memory.
package struct IssuedSVID {
  /// DER.
  package let certificate: [UInt8]
  /// Unix seconds.
  package let notAfterSeconds: Int64
  private let key: SecretText

  fileprivate init(_ certificate: Certificate, _ key: PrivateKey) throws(TLSSetupError) {
    self.certificate = try certificate.der
    notAfterSeconds = certificate.notAfterSeconds
    self.key = try SecretText(pkcs8: key)
  }

  /// Shows the key, PKCS#8 in DER, for as long as `body` runs.
  package func withPrivateKey<Result>(
    _ body: (UnsafeRawBufferPointer) -> Result
  ) -> Result {
    do throws(TLSSetupError) {
      return try unsafe key.withBytes { bytes throws(TLSSetupError) in unsafe body(bytes) }
    } catch {
      preconditionFailure("body throws nothing")
    }
  }
}

extension CertificateAuthority {
  /// Makes a key and an X.509-SVID for `id` and writes nothing.
  ///
  /// - Parameter lifetimeSeconds: from now; never beyond the CA's own end.
  package func issue(
    _ id: SPIFFEID, lifetimeSeconds: Int64
  ) throws(IdentityError) -> IssuedSVID {
    let (leaf, key) = try makeLeaf(id, lifetimeSeconds: lifetimeSeconds, for: directory)
    do throws(TLSSetupError) {
      return try IssuedSVID(leaf, key)
    } catch {
      throw IdentityError(file: directory, reason: "cannot issue: \(error)")
    }
  }

  /// The trust domain's bundle: the CA's certificate, DER.
  package func bundleDER() throws(IdentityError) -> [UInt8] {
    do throws(TLSSetupError) {
      return try certificate.der
    } catch {
      throw IdentityError(file: directory, reason: "\(error)")
    }
  }
}

extension TrustBundle {
  /// The certificates one after the other, DER.
  package func der() throws(TLSSetupError) -> [UInt8] {
    var bytes: [UInt8] = []
    for certificate in certificates { bytes += try certificate.der }
    return bytes
  }
}

extension Certificate {
  fileprivate var der: [UInt8] {
    get throws(TLSSetupError) {
      let size = unsafe i2d_X509(pointer, nil)
      try require(size > 0, "i2d_X509")
      var bytes = [UInt8](repeating: 0, count: Int(size))
      let written = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
        // It moves its own copy of the pointer, over as many bytes as it asked for.
        var cursor = buffer.baseAddress
        return unsafe i2d_X509(pointer, &cursor)
      }
      try require(written == size, "i2d_X509")
      return bytes
    }
  }
}

/// Certificate revocation lists as they lie in a file.
package enum RevocationListFile {
  /// Reads PEM, or one list in DER, and gives each list in DER. Signatures are not looked at.
  package static func load(_ path: String) throws(IdentityError) -> [[UInt8]] {
    let file = try SecretFile(path, secret: false)
    let bytes = unsafe Array(
      UnsafeRawBufferPointer(start: file.bytes.baseAddress, count: file.count))
    // DER begins with a SEQUENCE, which is no letter.
    if bytes.first == 0x30 {
      guard isList(bytes) else { throw IdentityError(file: path, reason: "is no CRL in DER") }
      return [bytes]
    }
    guard let bio = unsafe BIO_new_mem_buf(file.bytes.baseAddress, Int32(file.count)) else {
      throw IdentityError(file: path, reason: "out of memory")
    }
    // The BIO reads from the file's memory.
    defer {
      unsafe BIO_free(bio)
      withExtendedLifetime(file) {}
    }
    var lists: [[UInt8]] = []
    ERR_clear_error()
    while let list = try unsafe nextList(bio, path, lists.count + 1) { lists.append(list) }
    guard !lists.isEmpty else { throw IdentityError(file: path, reason: "holds no CRL") }
    return lists
  }

  private static func nextList(
    _ bio: OpaquePointer, _ path: String, _ number: Int
  ) throws(IdentityError) -> [UInt8]? {
    var name: UnsafeMutablePointer<CChar>?
    var header: UnsafeMutablePointer<CChar>?
    var data: UnsafeMutablePointer<UInt8>?
    var count = 0
    guard unsafe PEM_read_bio(bio, &name, &header, &data, &count) == 1 else {
      let code = ERR_peek_last_error()
      ERR_clear_error()
      if OpenSSLError.isReason(code, ERR_LIB_PEM, PEM_R_NO_START_LINE) { return nil }
      throw IdentityError(
        file: path, reason: "PEM block \(number) is damaged: \(OpenSSLError.reason(code))")
    }
    defer {
      unsafe CRYPTO_free(name, nil, 0)
      unsafe CRYPTO_free(header, nil, 0)
      unsafe CRYPTO_clear_free(data, count, nil, 0)
    }
    let kind = unsafe name.map { unsafe String(cString: $0) } ?? ""
    let bytes = unsafe Array(UnsafeBufferPointer(start: data, count: count))
    guard kind == "X509 CRL", isList(bytes) else {
      throw IdentityError(file: path, reason: "PEM block \(number) is no CRL")
    }
    return bytes
  }

  private static func isList(_ bytes: [UInt8]) -> Bool {
    defer { ERR_clear_error() }
    return unsafe bytes.withUnsafeBufferPointer { buffer in
      var cursor = buffer.baseAddress
      guard let list = unsafe d2i_X509_CRL(nil, &cursor, buffer.count) else { return false }
      unsafe X509_CRL_free(list)
      return unsafe cursor == buffer.baseAddress.map { unsafe $0 + buffer.count }
    }
  }
}
