internal import COpenSSL
internal import Glibc

/// A certificate revocation list (RFC 5280 §5): immutable, its reference count atomic.
@safe package final class RevocationList: @unchecked Sendable {
  let pointer: OpaquePointer

  /// Takes over the caller's reference.
  init(owning pointer: OpaquePointer) { unsafe self.pointer = unsafe pointer }

  /// - Parameter der: exactly one list.
  package init?(der: [UInt8]) {
    let pointer: OpaquePointer? = unsafe der.withUnsafeBufferPointer { bytes in
      var cursor = bytes.baseAddress
      guard let list = unsafe d2i_X509_CRL(nil, &cursor, bytes.count) else { return nil }
      let end = unsafe bytes.baseAddress.map { unsafe $0 + bytes.count }
      guard unsafe cursor == end else {
        unsafe X509_CRL_free(list)
        return nil
      }
      return unsafe list
    }
    ERR_clear_error()
    guard let pointer = unsafe pointer else { return nil }
    unsafe self.pointer = unsafe pointer
  }

  /// The lists of a file: PEM, or one in DER; at least one.
  package static func load(_ path: String) throws(IdentityError) -> [RevocationList] {
    try PEMFile.revocationLists(path)
  }

  deinit { unsafe X509_CRL_free(pointer) }

  /// Unix seconds; nil if the list does not say when the next one comes.
  package var nextUpdateSeconds: Int64? {
    guard let time = unsafe X509_CRL_get0_nextUpdate(pointer) else { return nil }
    return unsafe Certificate.seconds(time)
  }

  package var issuer: String {
    guard let text = unsafe X509_NAME_oneline(X509_CRL_get_issuer(pointer), nil, 0) else {
      return ""
    }
    defer { unsafe CRYPTO_free(text, nil, 0) }
    return unsafe String(cString: text)
  }

  /// Whether the list bears a certificate's name as its issuer.
  func isNamed(after certificate: Certificate) -> Bool {
    unsafe X509_NAME_cmp(
      X509_CRL_get_issuer(pointer), X509_get_subject_name(certificate.pointer)) == 0
  }

  /// Whether a certificate's key signed the list.
  func isSigned(by certificate: Certificate) -> Bool {
    let isSigned =
      unsafe X509_CRL_verify(pointer, X509_get0_pubkey(certificate.pointer)) == 1
    ERR_clear_error()
    return isSigned
  }

  package var der: [UInt8] { unsafe DER.bytes { unsafe i2d_X509_CRL(pointer, $0) } }
}

/// What OpenSSL's `i2d` functions write.
enum DER {
  @unsafe static func bytes(
    _ encode: (UnsafeMutablePointer<UnsafeMutablePointer<UInt8>?>?) -> Int32
  ) -> [UInt8] {
    let count = encode(nil)
    guard count > 0 else { return [] }
    return unsafe [UInt8](unsafeUninitializedCapacity: Int(count)) { buffer, filled in
      var cursor = buffer.baseAddress
      filled = max(0, unsafe Int(encode(&cursor)))
    }
  }
}
