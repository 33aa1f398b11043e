import COpenSSL

@testable import TLS

extension TestCertificate {
  /// A revocation list of this CA that names the certificates.
  ///
  /// - Parameters:
  ///   - lastUpdate: seconds from now.
  ///   - nextUpdate: seconds from now.
  func revocationList(_ revoked: [Certificate], lastUpdate: Int = -7200, nextUpdate: Int = 3600)
    -> RevocationList
  {
    let list = unsafe X509_CRL_new()!
    unsafe X509_CRL_set_version(list, 1)
    unsafe X509_CRL_set_issuer_name(list, X509_get_subject_name(certificate.pointer))
    let time = unsafe ASN1_TIME_new()
    defer { unsafe ASN1_TIME_free(time) }
    unsafe X509_gmtime_adj(time, lastUpdate)
    unsafe X509_CRL_set1_lastUpdate(list, time)
    let revokedAt = unsafe ASN1_TIME_new()
    defer { unsafe ASN1_TIME_free(revokedAt) }
    unsafe X509_gmtime_adj(revokedAt, -7000)
    unsafe X509_gmtime_adj(time, nextUpdate)
    unsafe X509_CRL_set1_nextUpdate(list, time)
    for certificate in revoked {
      let entry = unsafe X509_REVOKED_new()
      unsafe X509_REVOKED_set_serialNumber(
        entry, X509_get_serialNumber(certificate.pointer))
      unsafe X509_REVOKED_set_revocationDate(entry, revokedAt)
      unsafe X509_CRL_add0_revoked(list, entry)
    }
    unsafe X509_CRL_sort(list)
    precondition(unsafe X509_CRL_sign(list, key.pointer, EVP_sha256()) > 0)
    return unsafe RevocationList(owning: list)
  }
}

extension TrustBundle {
  func with(_ lists: [RevocationList]) -> TrustBundle {
    var bundle = self
    bundle.revocationLists = lists
    return bundle
  }
}
