internal import COpenSSL
internal import Glibc
internal import Identity

extension TrustBundle {
  /// The bundle as a SPIFFE bundle document (SPIFFE Trust Domain and Bundle §4, X509-SVID §6.1),
  /// UTF-8: one JWK for each authority, its key's parameters beside its certificate.
  ///
  /// - Throws: an authority has a key that RFC 7518 §6 has no form for. To leave it out would tell
  ///   others not to trust it.
  package func jwks(
    sequence: UInt64?, refreshHintSeconds: Int?
  ) throws(TLSSetupError) -> [UInt8] {
    var keys: [String] = []
    for (index, certificate) in certificates.enumerated() {
      let parameters = try unsafe Self.keyParameters(certificate.pointer, index)
      let x5c = Base64.encode(try Self.der(certificate))
      keys.append(#"{"use":"x509-svid",\#(parameters),"x5c":["\#(x5c)"]}"#)
    }
    var document = #"{"keys":[\#(keys.joined(separator: ","))]"#
    if let sequence { document += #","spiffe_sequence":\#(sequence)"# }
    if let refreshHintSeconds { document += #","spiffe_refresh_hint":\#(refreshHintSeconds)"# }
    return Array((document + "}").utf8)
  }

  private static func der(_ certificate: Certificate) throws(TLSSetupError) -> [UInt8] {
    var start: UnsafeMutablePointer<UInt8>?
    let count = unsafe i2d_X509(certificate.pointer, &start)
    try require(count > 0, "i2d_X509")
    defer { unsafe CRYPTO_free(start, nil, 0) }
    return unsafe Array(UnsafeBufferPointer(start: start, count: Int(count)))
  }

  /// The members of a JWK that say what the public key is (RFC 7518 §6.2.1, §6.3.1).
  private static func keyParameters(
    _ certificate: OpaquePointer, _ index: Int
  ) throws(TLSSetupError) -> String {
    let key = unsafe X509_get0_pubkey(certificate)
    if unsafe EVP_PKEY_is_a(key, "RSA") == 1 {
      let n = try unsafe number(key, OSSL_PKEY_PARAM_RSA_N)
      let e = try unsafe number(key, OSSL_PKEY_PARAM_RSA_E)
      return #""kty":"RSA","n":"\#(n)","e":"\#(e)""#
    }
    guard unsafe EVP_PKEY_is_a(key, "EC") == 1, let curve = unsafe curve(key) else {
      throw TLSSetupError("authority \(index + 1) has a key of a kind that bundles do not hold")
    }
    let x = try unsafe number(key, OSSL_PKEY_PARAM_EC_PUB_X, byteCount: curve.byteCount)
    let y = try unsafe number(key, OSSL_PKEY_PARAM_EC_PUB_Y, byteCount: curve.byteCount)
    return #""kty":"EC","crv":"\#(curve.name)","x":"\#(x)","y":"\#(y)""#
  }

  /// RFC 7518 §6.2.1.1: the name, and the bytes of a coordinate.
  private static func curve(_ key: OpaquePointer?) -> (name: String, byteCount: Int)? {
    var name = [UInt8](repeating: 0, count: 64)
    var count = 0
    let isNamed = unsafe name.withUnsafeMutableBytes {
      unsafe EVP_PKEY_get_group_name(
        key, $0.baseAddress?.assumingMemoryBound(to: CChar.self), $0.count, &count) == 1
    }
    guard isNamed else {
      ERR_clear_error()
      return nil
    }
    return switch String(decoding: name[..<count], as: UTF8.self) {
    case "prime256v1", "P-256": ("P-256", 32)
    case "secp384r1", "P-384": ("P-384", 48)
    case "secp521r1", "P-521": ("P-521", 66)
    default: nil
    }
  }

  /// A number of the key, as base64url: padded in front to `byteCount`, or as short as it is.
  private static func number(
    _ key: OpaquePointer?, _ name: String, byteCount: Int? = nil
  ) throws(TLSSetupError) -> String {
    var number: OpaquePointer?
    try unsafe require(EVP_PKEY_get_bn_param(key, name, &number) == 1, name)
    defer { unsafe BN_free(number) }
    let count = unsafe byteCount ?? (Int(BN_num_bits(number)) + 7) / 8
    var bytes = [UInt8](repeating: 0, count: count)
    try unsafe require(BN_bn2binpad(number, &bytes, Int32(count)) == count, name)
    return Base64.encodeURL(bytes)
  }
}
