internal import COpenSSL
internal import Glibc
internal import Identity

/// Makes P-256 keys and the two kinds of certificate the embedded CA knows (X509-SVID §3, §4).
enum CertificateBuilder {
  /// Bits of a random serial number: the most that fit in 20 octets and stay positive
  /// (RFC 5280 §4.1.2.2).
  private static let serialBits: Int32 = 159

  static func makeKey() throws(TLSSetupError) -> PrivateKey {
    guard let key = unsafe culvert_EVP_EC_gen("P-256") else {
      throw TLSSetupError("EVP_EC_gen: \(OpenSSLError.takeReason())")
    }
    return unsafe PrivateKey(owning: key)
  }

  static func authority(
    _ trustDomain: TrustDomain, key: PrivateKey, lifetimeSeconds: Int64, backdateSeconds: Int64
  ) throws(TLSSetupError) -> Certificate {
    let certificate = try blank(key)
    let now = Int64(time(nil))
    try setValidity(certificate, from: now - backdateSeconds, to: now + lifetimeSeconds)
    let name = unsafe X509_get_subject_name(certificate.pointer)
    for (field, value) in [("O", "Culvert"), ("CN", trustDomain.name)] {
      // A common name has at most 64 characters (RFC 5280 appendix A.1).
      let text = String(value.prefix(64))
      let added = unsafe X509_NAME_add_entry_by_txt(
        name, field, MBSTRING_UTF8, text, -1, -1, 0)
      try require(added == 1, "X509_NAME_add_entry_by_txt")
    }
    try require(
      unsafe X509_set_issuer_name(certificate.pointer, name) == 1, "X509_set_issuer_name")
    try extend(
      certificate, issuer: certificate,
      [
        // It signs leaves only, and says so to whoever verifies: no CA can stand below it.
        (NID_basic_constraints, "critical,CA:TRUE,pathlen:0"),
        (NID_key_usage, "critical,keyCertSign,cRLSign"),
        (NID_subject_key_identifier, "hash"),
        (NID_authority_key_identifier, "keyid:always"),
        (NID_subject_alt_name, "URI:\(SPIFFEID.scheme)\(trustDomain)"),
      ])
    return try signed(certificate, by: key)
  }

  static func leaf(
    _ id: SPIFFEID, key: PrivateKey, issuer: Certificate, issuerKey: PrivateKey,
    lifetimeSeconds: Int64, backdateSeconds: Int64
  ) throws(TLSSetupError) -> Certificate {
    let certificate = try blank(key)
    let now = Int64(time(nil))
    try setValidity(
      certificate, from: max(now - backdateSeconds, issuer.notBeforeSeconds),
      to: min(now + lifetimeSeconds, issuer.notAfterSeconds))
    let name = unsafe X509_get_subject_name(issuer.pointer)
    try require(
      unsafe X509_set_issuer_name(certificate.pointer, name) == 1, "X509_set_issuer_name")
    // The subject stays empty, so the alternative name is critical (RFC 5280 §4.2.1.6).
    try extend(
      certificate, issuer: issuer,
      [
        (NID_basic_constraints, "critical,CA:FALSE"),
        (NID_key_usage, "critical,digitalSignature"),
        (NID_ext_key_usage, "serverAuth,clientAuth"),
        (NID_subject_key_identifier, "hash"),
        (NID_authority_key_identifier, "keyid:always"),
        (NID_subject_alt_name, "critical,URI:\(id)"),
      ])
    return try signed(certificate, by: issuerKey)
  }

  private static func blank(_ key: PrivateKey) throws(TLSSetupError) -> Certificate {
    guard let pointer = unsafe X509_new() else { throw TLSSetupError("out of memory") }
    let certificate = unsafe Certificate(unparsed: pointer)
    try require(
      unsafe X509_set_version(pointer, Int(X509_VERSION_3)) == 1, "X509_set_version")
    try require(unsafe X509_set_pubkey(pointer, key.pointer) == 1, "X509_set_pubkey")
    guard let serial = unsafe BN_new() else { throw TLSSetupError("out of memory") }
    defer { unsafe BN_free(serial) }
    let isMade =
      unsafe BN_rand(serial, serialBits, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) == 1
      && BN_to_ASN1_INTEGER(serial, X509_get_serialNumber(pointer)) != nil
    try require(isMade, "serial number")
    return certificate
  }

  private static func setValidity(
    _ certificate: Certificate, from: Int64, to: Int64
  ) throws(TLSSetupError) {
    let isSet =
      unsafe ASN1_TIME_set(X509_getm_notBefore(certificate.pointer), time_t(from)) != nil
      && ASN1_TIME_set(X509_getm_notAfter(certificate.pointer), time_t(to)) != nil
    try require(isSet, "ASN1_TIME_set")
  }

  private static func extend(
    _ certificate: Certificate, issuer: Certificate, _ extensions: [(Int32, String)]
  ) throws(TLSSetupError) {
    for (identifier, value) in extensions {
      var context = unsafe X509V3_CTX()
      unsafe culvert_X509V3_set_ctx_nodb(&context)
      unsafe X509V3_set_ctx(&context, issuer.pointer, certificate.pointer, nil, nil, 0)
      let made = unsafe X509V3_EXT_conf_nid(nil, &context, identifier, value)
      guard let made = unsafe made else {
        throw TLSSetupError("extension \(value): \(OpenSSLError.takeReason())")
      }
      defer { unsafe X509_EXTENSION_free(made) }
      try require(unsafe X509_add_ext(certificate.pointer, made, -1) == 1, "X509_add_ext")
    }
  }

  private static func signed(
    _ certificate: Certificate, by key: PrivateKey
  ) throws(TLSSetupError) -> Certificate {
    let size = unsafe X509_sign(certificate.pointer, key.pointer, EVP_sha256())
    try require(size > 0, "X509_sign")
    return certificate
  }
}
