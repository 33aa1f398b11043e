/// Why a peer's certificate was refused; the raw value is the word in logs, metrics and tools.
///
/// The cases follow the order of the checks: what the leaf says of itself (X509-SVID §2-4), then
/// which bundle answers for it, then the path (RFC 5280 §6), then whom we expected.
package enum PeerRefusal: String, Error, CaseIterable, Sendable {
  case noCertificate = "no_certificate"
  case malformedCertificate = "malformed_certificate"
  case noURISAN = "no_uri_san"
  case multipleURISANs = "multiple_uri_sans"
  case invalidSPIFFEID = "invalid_spiffe_id"
  case spiffeIDWithoutPath = "spiffe_id_without_path"
  case leafIsCA = "leaf_is_ca"
  case keyUsageMissing = "key_usage_missing"
  case keyUsageNotCritical = "key_usage_not_critical"
  case digitalSignatureMissing = "digital_signature_missing"
  case leafCanSign = "leaf_can_sign"
  case extendedKeyUsageIncomplete = "extended_key_usage_incomplete"
  case unknownTrustDomain = "unknown_trust_domain"
  case untrustedChain = "untrusted_chain"
  /// A revocation list of its issuer names it, or a certificate above it.
  case certificateRevoked = "certificate_revoked"
  case certificateExpired = "certificate_expired"
  case certificateNotYetValid = "certificate_not_yet_valid"
  /// The peer sent more certificates than `PeerVerification.maximumPeerCertificates`.
  case chainTooLong = "chain_too_long"
  /// Any other failure of RFC 5280 path validation; the detail says which.
  case pathInvalid = "path_invalid"
  case unexpectedIdentity = "unexpected_identity"
  /// An outside server's certificate is for other names, or addresses, than the one expected.
  case serverNameMismatch = "server_name_mismatch"
}
