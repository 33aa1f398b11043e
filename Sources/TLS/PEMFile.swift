internal import COpenSSL
internal import Glibc
internal import Net

/// A small file read whole into memory that is cleansed when let go.
@safe final class SecretFile {
  static let maximumBytes = 1024 * 1024

  let bytes: UnsafeMutableRawBufferPointer
  private(set) var count = 0

  /// - Parameter secret: refuse a file that anyone but its owner can read or write.
  init(_ path: String, secret: Bool) throws(IdentityError) {
    // Not blocking: a FIFO must be refused, not waited for.
    let number = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
    guard number >= 0 else {
      throw IdentityError(file: path, reason: "cannot be read: \(Errno.current)")
    }
    let descriptor = Descriptor(owning: number)
    let size = try Self.checkedSize(descriptor, path, secret: secret)
    unsafe bytes = .allocate(byteCount: max(size, 1), alignment: 1)
    while count < size {
      let result = unsafe read(
        descriptor.number, bytes.baseAddress.map { unsafe $0 + count }, size - count)
      if result < 0, errno == EINTR { continue }
      if result < 0 {
        throw IdentityError(file: path, reason: "cannot be read: \(Errno.current)")
      }
      if result == 0 { break }
      count += result
    }
  }

  deinit {
    unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
    unsafe bytes.deallocate()
  }

  private static func checkedSize(_ descriptor: borrowing Descriptor, _ path: String, secret: Bool)
    throws(IdentityError) -> Int
  {
    var status = stat()
    guard unsafe fstat(descriptor.number, &status) == 0 else {
      throw IdentityError(file: path, reason: "cannot be read: \(Errno.current)")
    }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw IdentityError(file: path, reason: "is not a regular file")
    }
    if secret, status.st_mode & 0o077 != 0 {
      throw IdentityError(
        file: path,
        reason: "is open to others than its owner (mode \(octal(status.st_mode & 0o777))): "
          + "run chmod 600 on it")
    }
    guard status.st_size > 0 else { throw IdentityError(file: path, reason: "is empty") }
    guard status.st_size <= maximumBytes else {
      throw IdentityError(file: path, reason: "is larger than \(maximumBytes) bytes")
    }
    return Int(status.st_size)
  }

  private static func octal(_ mode: mode_t) -> String {
    let digits = String(mode, radix: 8)
    return String(repeating: "0", count: max(0, 4 - digits.count)) + digits
  }
}

/// Reading PEM (RFC 7468). Text outside of the blocks is allowed, as `openssl` itself writes it.
enum PEMFile {
  /// All certificates of a file, at least one and at most `limit`.
  static func certificates(_ path: String, limit: Int) throws(IdentityError) -> [Certificate] {
    let file = try SecretFile(path, secret: false)
    guard let bio = unsafe BIO_new_mem_buf(file.bytes.baseAddress, Int32(file.count)) else {
      throw IdentityError(file: path, reason: "out of memory")
    }
    // The BIO reads from the file's memory.
    defer {
      unsafe BIO_free(bio)
      withExtendedLifetime(file) {}
    }
    var certificates: [Certificate] = []
    ERR_clear_error()
    while let certificate = try unsafe nextCertificate(bio, path, certificates.count + 1) {
      guard certificates.count < limit else {
        throw IdentityError(file: path, reason: "holds more than \(limit) certificates")
      }
      certificates.append(certificate)
    }
    guard !certificates.isEmpty else {
      throw IdentityError(file: path, reason: "holds no PEM certificate")
    }
    return certificates
  }

  private static func nextCertificate(_ bio: OpaquePointer, _ path: String, _ number: Int)
    throws(IdentityError) -> Certificate?
  {
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
      // May be a private key put here by mistake.
      unsafe CRYPTO_clear_free(data, count, nil, 0)
    }
    let kind = unsafe name.map { unsafe String(cString: $0) } ?? ""
    guard kind == "CERTIFICATE" else {
      throw IdentityError(
        file: path, reason: "PEM block \(number) is a \(kind); only certificates belong here")
    }
    var cursor = unsafe UnsafePointer(data)
    let end = unsafe cursor.map { unsafe $0 + count }
    guard let pointer = unsafe d2i_X509(nil, &cursor, count) else {
      let reason = OpenSSLError.takeReason()
      throw IdentityError(
        file: path, reason: "PEM block \(number) is no certificate: \(reason)")
    }
    let certificate = unsafe Certificate(owning: pointer)
    guard unsafe cursor == end else {
      throw IdentityError(
        file: path, reason: "PEM block \(number) holds more than a certificate")
    }
    return certificate
  }

  /// The first private key of a file that only its owner can read.
  static func privateKey(_ path: String) throws(IdentityError) -> PrivateKey {
    let file = try SecretFile(path, secret: true)
    guard let bio = unsafe BIO_new_mem_buf(file.bytes.baseAddress, Int32(file.count)) else {
      throw IdentityError(file: path, reason: "out of memory")
    }
    // The BIO reads from the file's memory.
    defer {
      unsafe BIO_free(bio)
      withExtendedLifetime(file) {}
    }
    ERR_clear_error()
    var encrypted = false
    let key = unsafe withUnsafeMutablePointer(to: &encrypted) { asked in
      // Without a callback OpenSSL would ask on the terminal.
      unsafe PEM_read_bio_PrivateKey(
        bio, nil,
        { _, _, _, asked in
          unsafe asked?.assumingMemoryBound(to: Bool.self).pointee = true
          return -1
        }, asked)
    }
    let reason = OpenSSLError.takeReason()
    guard let key = unsafe key else {
      throw IdentityError(
        file: path,
        reason: encrypted
          ? "is encrypted: decrypt it (openssl pkey) and chmod 600 the result"
          : "holds no usable PEM private key: \(reason)")
    }
    return unsafe PrivateKey(owning: key)
  }
}

/// A private key: immutable, its reference count atomic, so workers share it.
@safe final class PrivateKey: @unchecked Sendable {
  let pointer: OpaquePointer

  /// Takes over the caller's reference.
  init(owning pointer: OpaquePointer) { unsafe self.pointer = unsafe pointer }

  /// - Parameter pkcs8: DER, unencrypted, exactly one key; the caller cleanses it.
  init?(pkcs8: UnsafeRawBufferPointer) {
    var cursor = unsafe UnsafePointer(
      pkcs8.baseAddress?.assumingMemoryBound(to: UInt8.self))
    let info = unsafe d2i_PKCS8_PRIV_KEY_INFO(nil, &cursor, pkcs8.count)
    defer {
      unsafe PKCS8_PRIV_KEY_INFO_free(info)
      ERR_clear_error()
    }
    let end = unsafe pkcs8.baseAddress.map { unsafe $0 + pkcs8.count }
    guard let info = unsafe info, unsafe cursor.map({ unsafe UnsafeRawPointer($0) }) == end,
      let key = unsafe EVP_PKCS82PKEY(info)
    else { return nil }
    unsafe pointer = unsafe key
  }

  deinit { unsafe EVP_PKEY_free(pointer) }
}
