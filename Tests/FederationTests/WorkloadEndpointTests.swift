import Federation
import Foundation
import Identity
import Net
import TLS
import TestSupport
import Testing

/// `https_spiffe` (SPIFFE Federation §5.2.2), with Python's server and certificates made by openssl.
@Suite(.timeLimit(.minutes(2))) struct WorkloadEndpointTests {
  private static let server = Result {
    try Endpoint(LeafRequest(Identities.partnerID), from: Identities.partner)
  }

  private func request(
    _ path: String = "/bundle", id: String = Identities.partnerID,
    bundle: TrustBundle? = try? trustBundle(Identities.partner)
  ) throws -> BundleRequest {
    try .workload(Self.server.get().url(path), id, bundle)
  }

  // 20. https_spiffe (§5.2.2).
  @Test func theBundleOfAWorkloadEndpointIsFetched() throws {
    #expect(try request().fetch() == partnerBundle())
  }

  @Test func theNameInTheURLProvesNothing() throws {
    // Its certificate has no DNS name at all, and it is reached by address.
    let url = try Self.server.get().url("/bundle", host: "127.0.0.1")
    let request = try BundleRequest.workload(
      url, Identities.partnerID, trustBundle(Identities.partner))
    #expect(request.refusal == nil)
  }

  // 22. The exact ID that was configured (§5.2.2.4).
  private static let faults: [(word: String, change: @Sendable (inout LeafRequest) -> Void)] = [
    ("leaf_is_ca", { $0.isCA = true }),
    ("multiple_uri_sans", { $0.uris.append("spiffe://a/b") }),
    ("no_uri_san", { ($0.uris, $0.dnsNames) = ([], ["localhost"]) }),
    ("digital_signature_missing", { $0.keyUsage = "critical,keyAgreement" }),
    ("extended_key_usage_incomplete", { $0.extendedKeyUsage = "serverAuth" }),
    ("certificate_expired", { ($0.notBeforeHours, $0.notAfterHours) = (-48, -24) }),
  ]

  @Test(arguments: faults.indices)
  func theCertificateMustBeAnX509SVID(index: Int) throws {
    let (word, change) = Self.faults[index]
    #expect(try request().refusal == nil)
    let endpoint = try Endpoint(
      LeafRequest(Identities.partnerID).with(change), from: Identities.partner)
    let error = try BundleRequest.workload(
      endpoint.url("/bundle"), Identities.partnerID, trustBundle(Identities.partner)
    ).refusal
    #expect(error?.reason == .certificateRefused)
    #expect(error?.detail.hasPrefix(word) == true, "\(String(describing: error))")
  }

  // 22. The target of a redirect has the same ID (§5.2.2.4).
  @Test func theServerARedirectLeadsToHasTheSameID() throws {
    let same = try Endpoint(LeafRequest(Identities.partnerID), from: Identities.partner)
    let other = try Endpoint(LeafRequest(Identities.partnerID + "-2"), from: Identities.partner)
    #expect(try request("/redirect?to=\(same.url("/bundle"))").refusal == nil)
    let error = try request("/redirect?to=\(other.url("/bundle"))").refusal
    #expect(error?.reason == .certificateRefused)
    #expect(try other.requests().isEmpty)
  }
}
