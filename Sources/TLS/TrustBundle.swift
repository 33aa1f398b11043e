internal import COpenSSL
package import Identity

/// The trust anchors of one trust domain.
package struct TrustBundle: Sendable {
  /// Far more than any real bundle holds.
  package static let maximumCertificates = 1024

  package let trustDomain: TrustDomain
  let certificates: [Certificate]
  /// Lists of certificates that are valid no more, of any issuer in this trust domain.
  package internal(set) var revocationLists: [RevocationList] = []

  /// Trust anchors in the bundle; at least 1.
  package var count: Int { certificates.count }

  /// Reads and checks a PEM file. Each certificate must be a CA; one that carries a SPIFFE ID must
  /// carry that of the trust domain itself, without a path (X509-SVID §3.2).
  package init(_ trustDomain: TrustDomain, pem path: String) throws(IdentityError) {
    let certificates = try PEMFile.certificates(path, limit: Self.maximumCertificates)
    try self.init(trustDomain, checking: certificates, from: path)
  }

  /// Checks certificates that came in DER.
  ///
  /// - Parameters:
  ///   - certificates: one or more certificates in each element, one behind the other.
  ///   - source: what errors call the place they came from.
  package init(
    _ trustDomain: TrustDomain, der certificates: [[UInt8]], from source: String
  ) throws(IdentityError) {
    var parsed: [Certificate] = []
    for element in certificates {
      guard let list = Certificate.list(der: element) else {
        throw IdentityError(
          file: source, reason: "holds bytes that are no certificate, for \(trustDomain)")
      }
      parsed += list
    }
    guard !parsed.isEmpty else {
      throw IdentityError(file: source, reason: "holds no certificate for \(trustDomain)")
    }
    guard parsed.count <= Self.maximumCertificates else {
      throw IdentityError(
        file: source, reason: "holds more than \(Self.maximumCertificates) certificates")
    }
    try self.init(trustDomain, checking: parsed, from: source)
  }

  private init(
    _ trustDomain: TrustDomain, checking certificates: [Certificate], from source: String
  ) throws(IdentityError) {
    for (index, certificate) in certificates.enumerated() {
      if let fault = Self.fault(certificate, trustDomain) {
        throw IdentityError(
          file: source, reason: "certificate \(index + 1) \(fault)")
      }
    }
    self.init(trustDomain: trustDomain, certificates: certificates)
  }

  /// From certificates already checked.
  init(trustDomain: TrustDomain, certificates: [Certificate]) {
    self.trustDomain = trustDomain
    self.certificates = certificates
  }

  private static func fault(_ certificate: Certificate, _ trustDomain: TrustDomain) -> String? {
    if certificate.isMalformed { return "has a malformed extension" }
    guard certificate.isCA else { return "is not a CA certificate" }
    do throws(Rejection) {
      let id = try unsafe LeafProfile.spiffeID(certificate.pointer)
      guard id.trustDomain == trustDomain else { return "belongs to \(id), not to \(trustDomain)" }
      guard id.path.isEmpty else { return "is no signing certificate: \(id) has a path" }
      return nil
    } catch {
      // A CA need not name its trust domain (X509-SVID §3.2 says SHOULD).
      return error.refusal == .noURISAN ? nil : "has \(error.refusal.rawValue): \(error.detail)"
    }
  }

  /// Adds a revocation list, if it can be one of this trust domain's.
  ///
  /// - Returns: false if it bears the name of one of the anchors and none of their signatures.
  package mutating func add(_ list: RevocationList) -> Bool {
    let namesakes = certificates.filter(list.isNamed(after:))
    // The list of an intermediate, which comes with the peer, is checked when a path has it.
    guard namesakes.isEmpty || namesakes.contains(where: list.isSigned(by:)) else { return false }
    revocationLists.append(list)
    return true
  }

  /// Whether both come to the same trust: the same anchors and revocation lists.
  package func isSame(as other: TrustBundle) -> Bool {
    trustDomain == other.trustDomain && certificates.map(\.der) == other.certificates.map(\.der)
      && revocationLists.map(\.der) == other.revocationLists.map(\.der)
  }

  /// The anchors, in DER.
  package var certificatesDER: [[UInt8]] { certificates.map(\.der) }
}
