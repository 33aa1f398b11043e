internal import COpenSSL
internal import Glibc
internal import Identity

/// One parsed X.509 certificate: immutable, its reference count atomic, so workers share it.
@safe final class Certificate: @unchecked Sendable {
  let pointer: OpaquePointer

  /// Takes over the caller's reference.
  init(owning pointer: OpaquePointer) {
    unsafe self.pointer = unsafe pointer
    // Decodes and caches the extensions once, here, rather than in the first worker to look.
    unsafe X509_check_purpose(pointer, -1, -1)
  }

  /// Takes over a certificate that is still being made.
  init(unparsed pointer: OpaquePointer) { unsafe self.pointer = unsafe pointer }

  deinit { unsafe X509_free(pointer) }

  var isCA: Bool { unsafe X509_get_extension_flags(pointer) & UInt32(EXFLAG_CA) != 0 }
  /// A root. A CA's new key vouched for by its old one is self-issued too (RFC 5280 §3.2), but
  /// belongs into the chain.
  var isSelfSigned: Bool { unsafe X509_get_extension_flags(pointer) & UInt32(EXFLAG_SS) != 0 }
  var isMalformed: Bool {
    unsafe X509_get_extension_flags(pointer) & UInt32(EXFLAG_INVALID) != 0
  }

  /// Unix seconds.
  var notBeforeSeconds: Int64 { unsafe Certificate.seconds(X509_get0_notBefore(pointer)) }
  var notAfterSeconds: Int64 { unsafe Certificate.seconds(X509_get0_notAfter(pointer)) }

  var der: [UInt8] { unsafe DER.bytes { unsafe i2d_X509(pointer, $0) } }

  /// Certificates one behind the other (DER), as the Workload API sends them; nil if that is not
  /// what the bytes are, or none.
  static func list(der: [UInt8]) -> [Certificate]? {
    var certificates: [Certificate] = []
    let isWhole = unsafe der.withUnsafeBufferPointer { bytes in
      var cursor = bytes.baseAddress
      let end = unsafe cursor.map { unsafe $0 + bytes.count }
      while let start = unsafe cursor, let end = unsafe end, unsafe start < end {
        guard let pointer = unsafe d2i_X509(nil, &cursor, end - start) else { return false }
        unsafe certificates.append(Certificate(owning: pointer))
      }
      return true
    }
    ERR_clear_error()
    return isWhole && !certificates.isEmpty ? certificates : nil
  }

  /// An ASN.1 time as Unix seconds; 0, long past, if it is not one.
  static func seconds(_ time: UnsafePointer<ASN1_TIME>?) -> Int64 {
    var parts = unsafe tm()
    guard let time = unsafe time, unsafe ASN1_TIME_to_tm(time, &parts) == 1 else { return 0 }
    return unsafe Int64(timegm(&parts))
  }
}
