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
  @Test func `20: the bundle of a workload endpoint is fetched`() throws {
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
  @Test(arguments: [
    "spiffe://partner.example/bundle-endpoint2", "spiffe://partner.example/bundle",
    "spiffe://partner.example/Bundle-endpoint", "spiffe://partner.example",
  ])
  func `22: another ID is refused`(id: String) throws {
    #expect(try request().refusal == nil)
    #expect(
      try request(id: id).refusal
        == BundleFetchError(.certificateRefused, "unexpected_identity: \(Identities.partnerID)"))
  }

  // 22. The newest stored bundle decides, not an older one (§5.2.2.4).
  @Test func `22: the bundle of the request decides`() throws {
    let renewed = try Authority(trustDomain: "partner.example")
    let endpoint = try Endpoint(
      LeafRequest(Identities.partnerID), from: renewed, serving: renewed)
    let url = try endpoint.url("/bundle")
    let newest = try BundleRequest.workload(url, Identities.partnerID, trustBundle(renewed))
    #expect(newest.refusal == nil)
    let older = try BundleRequest.workload(
      url, Identities.partnerID, trustBundle(Identities.partner)
    ).refusal
    #expect(older?.reason == .certificateRefused)
    #expect(older?.detail.hasPrefix("untrusted_chain") == true)
  }

  // 21. Trust domain, URL and profile are configured, never inferred (§5.1, §7.2).
  @Test func `21: without the bundle of the endpoint's domain nothing is dialled`() throws {
    let endpoint = try Endpoint(LeafRequest(Identities.partnerID), from: Identities.partner)
    let url = try endpoint.url("/bundle")
    let good = try BundleRequest.workload(
      url, Identities.partnerID, trustBundle(Identities.partner))
    #expect(good.refusal == nil)
    let stranger = try trustBundle(Identities.stranger.get())
    for bundle in [nil, stranger] {
      let error = try BundleRequest.workload(url, Identities.partnerID, bundle).refusal
      #expect(error?.reason == .certificateRefused)
      #expect(error?.detail == "unknown_trust_domain: no bundle for \(Identities.partnerID)")
    }
    #expect(try endpoint.requests().count == 1)
  }

  // 21. A certificate that the other profile would accept does not change the profile.
  @Test func `21: the profiles do not mix`() throws {
    // Both: an X509-SVID with a DNS name, from an authority that the system trusts, too.
    let both = LeafRequest("spiffe://web.example/endpoint").with { $0.dnsNames = ["localhost"] }
    let endpoint = try Endpoint(both, from: Identities.webPKI)
    let url = try endpoint.url("/bundle")
    #expect(BundleRequest.web(url).refusal == nil)
    let own = try BundleRequest.workload(
      url, "spiffe://web.example/endpoint", trustBundle(Identities.webPKI))
    #expect(own.refusal == nil)
    // Web PKI does not help where a workload is expected…
    let partner = try BundleRequest.workload(
      url, Identities.partnerID, trustBundle(Identities.partner))
    #expect(partner.refusal?.reason == .certificateRefused)
    // …and a bundle does not help where the Web PKI is.
    let web = BundleRequest(
      url: try Self.server.get().url("/bundle"), profile: .httpsWeb,
      endpointBundle: try trustBundle(Identities.partner), mark: 0, timeoutMilliseconds: 20_000)
    #expect(web.refusal?.reason == .certificateRefused)
  }

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
  @Test func `22: the server a redirect leads to has the same ID`() throws {
    let same = try Endpoint(LeafRequest(Identities.partnerID), from: Identities.partner)
    let other = try Endpoint(LeafRequest(Identities.partnerID + "-2"), from: Identities.partner)
    #expect(try request("/redirect?to=\(same.url("/bundle"))").refusal == nil)
    let error = try request("/redirect?to=\(other.url("/bundle"))").refusal
    #expect(error?.reason == .certificateRefused)
    #expect(try other.requests().isEmpty)
  }
}
