internal import COpenSSL
internal import Identity

/// A peer certificate that was refused.
struct Rejection: Error {
  let refusal: PeerRefusal
  let detail: String
  /// An `X509_V_ERR_*`: OpenSSL derives the alert from it.
  let verifyError: Int32

  init(_ refusal: PeerRefusal, _ detail: String = "", error: Int32 = X509_V_ERR_CERT_REJECTED) {
    self.refusal = refusal
    self.detail = detail
    self.verifyError = error
  }
}

/// What X509-SVID demands of a leaf beyond RFC 5280; X509_STRICT accepts much that this refuses.
enum LeafProfile {
  /// The leaf's SPIFFE ID, if everything the leaf says of itself is as X509-SVID §2-4 has it.
  static func check(_ leaf: OpaquePointer) throws(Rejection) -> SPIFFEID {
    let flags = unsafe X509_get_extension_flags(leaf)
    guard flags & UInt32(EXFLAG_INVALID) == 0 else {
      throw Rejection(.malformedCertificate, "an extension does not parse or occurs twice")
    }
    let id = try unsafe spiffeID(leaf)
    guard !id.path.isEmpty else { throw Rejection(.spiffeIDWithoutPath, id.description) }
    guard flags & UInt32(EXFLAG_CA) == 0 else { throw Rejection(.leafIsCA, id.description) }
    try unsafe checkKeyUsage(leaf)
    try unsafe checkExtendedKeyUsage(leaf)
    return id
  }

  /// The one URI among the subject alternative names; names of other kinds do not matter.
  static func spiffeID(_ certificate: OpaquePointer) throws(Rejection) -> SPIFFEID {
    var critical: Int32 = 0
    let decoded = unsafe X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, nil)
    guard let decoded = unsafe decoded else {
      if critical == -1 { throw Rejection(.noURISAN, "no subject alternative name") }
      throw Rejection(.malformedCertificate, "subject alternative name")
    }
    let names = OpaquePointer(decoded)
    defer { unsafe GENERAL_NAMES_free(names) }
    var text: String?
    for index in unsafe 0..<culvert_names_count(names) {
      guard let uri = unsafe culvert_names_uri(names, index) else { continue }
      if text != nil { throw Rejection(.multipleURISANs) }
      text = try unsafe string(uri)
    }
    guard let text else { throw Rejection(.noURISAN) }
    do {
      return try SPIFFEID(text)
    } catch {
      throw Rejection(.invalidSPIFFEID, error.rawValue)
    }
  }

  private static func string(_ uri: UnsafePointer<ASN1_STRING>) throws(Rejection) -> String {
    let count = unsafe Int(ASN1_STRING_length(uri))
    guard count <= SPIFFEID.maximumBytes else {
      throw Rejection(.invalidSPIFFEID, SPIFFEIDError.tooLong.rawValue)
    }
    // By length, not as a C string: a NUL inside must be seen, and refused, as a character.
    let bytes = unsafe UnsafeBufferPointer(start: ASN1_STRING_get0_data(uri), count: count)
    guard let text = unsafe String(validating: bytes, as: UTF8.self) else {
      throw Rejection(.invalidSPIFFEID, "not UTF-8")
    }
    return text
  }

  private static func checkKeyUsage(_ leaf: OpaquePointer) throws(Rejection) {
    let location = unsafe X509_get_ext_by_NID(leaf, NID_key_usage, -1)
    guard location >= 0, let keyUsage = unsafe X509_get_ext(leaf, location) else {
      throw Rejection(.keyUsageMissing)
    }
    guard unsafe X509_EXTENSION_get_critical(keyUsage) == 1 else {
      throw Rejection(.keyUsageNotCritical)
    }
    let usage = unsafe X509_get_key_usage(leaf)
    guard usage & UInt32(KU_DIGITAL_SIGNATURE) != 0 else {
      throw Rejection(.digitalSignatureMissing)
    }
    guard usage & UInt32(KU_KEY_CERT_SIGN | KU_CRL_SIGN) == 0 else {
      throw Rejection(.leafCanSign)
    }
  }

  private static func checkExtendedKeyUsage(_ leaf: OpaquePointer) throws(Rejection) {
    let usage = unsafe X509_get_extended_key_usage(leaf)
    guard usage != UInt32.max else { return }
    let both = UInt32(XKU_SSL_SERVER | XKU_SSL_CLIENT)
    guard usage & both == both else {
      throw Rejection(.extendedKeyUsageIncomplete, error: X509_V_ERR_INVALID_PURPOSE)
    }
  }
}
