import Identity
import TestSupport
import Testing

@testable import WorkloadAPI

/// What one message comes to. Every refusal stands beside a valid twin.
@Suite struct `A message` {
  private func svids(_ message: [UInt8]) -> (X509SVIDResponse?, String?) {
    let call = Call().receive(Frame.opening(message))
    return (call.svids.first, call.discarded.first)
  }

  private func bundles(_ message: [UInt8]) -> (X509BundlesResponse?, String?) {
    let call = Call(.x509Bundles).receive(Frame.opening(message))
    return (call.bundles.first, call.discarded.first)
  }

  @Test func `holds SVIDs, CRLs and federated bundles`() throws {
    let (response, _) = svids(
      Wire.svids(
        [
          Wire.svid(hint: "internal"),
          Wire.svid(
            id: "spiffe://partner.example/x", certificates: [7], key: [8], bundle: [9, 10]),
        ], crls: [[1], [2, 3]], federated: [("spiffe://b", [1]), ("spiffe://a", [2])]))
    let svids = try #require(response?.svids)
    #expect(
      svids.map(\.id.description) == [
        "spiffe://demo.mesh/ns/shop/sa/web", "spiffe://partner.example/x",
      ])
    #expect(svids.map(\.certificates) == [[1, 2], [7]])
    #expect(svids.map(\.privateKey.array) == [[3, 4, 5], [8]])
    #expect(svids.map(\.bundle) == [[6], [9, 10]])
    #expect(svids.map(\.hint) == ["internal", ""])
    #expect(response?.crls == [[1], [2, 3]])
    #expect(response?.federatedBundles.map(\.trustDomain.name) == ["a", "b"])
    #expect(response?.federatedBundles.map(\.certificates) == [[2], [1]])
  }

  @Test(arguments: [
    ([UInt8](), "no svids"),
    (Wire.svids([], crls: [[1]]), "no svids"),
    (Wire.svids([[]]), "SVID 1 has no spiffe_id"),
    (Wire.svids([Wire.svid(id: nil)]), "SVID 1 has no spiffe_id"),
    (Wire.svids([Wire.svid(certificates: nil)]), "SVID 1 has no x509_svid"),
    (Wire.svids([Wire.svid(key: nil)]), "SVID 1 has no x509_svid_key"),
    (Wire.svids([Wire.svid(bundle: nil)]), "SVID 1 has no bundle"),
    (Wire.svids([Wire.svid(id: "")]), "SVID 1 has no spiffe_id"),
    (Wire.svids([Wire.svid(certificates: [])]), "SVID 1 has no x509_svid"),
    (Wire.svids([Wire.svid(key: [])]), "SVID 1 has no x509_svid_key"),
    (Wire.svids([Wire.svid(bundle: [])]), "SVID 1 has no bundle"),
    (Wire.svids([Wire.svid(), Wire.svid(key: [])]), "SVID 2 has no x509_svid_key"),
  ])
  func `without a mandatory field is discarded`(message: [UInt8], reason: String) {
    #expect(svids(Wire.svids([Wire.svid(), Wire.svid()])).1 == nil)
    let (response, discarded) = svids(message)
    #expect(response == nil && discarded == reason)
  }

  @Test(arguments: [
    ("https://demo.mesh/web", "scheme_not_spiffe"), ("spiffe://Demo.mesh/web", "trust_domain"),
    ("spiffe://demo.mesh/a/../b", "dot_path_segment"), ("spiffe://demo.mesh/", "trailing_slash"),
    ("spiffe://demo.mesh/web\u{0}b", "invalid_path_character"), ("spiffe://demo.mesh", "no path"),
    ("spiffe://demo.mesh/wéb", "invalid_path_character"),
    ("spiffe://demo.mesh/" + String(repeating: "a", count: 2048), "too_long"),
  ])
  func `with an ID that is no workload's is discarded`(id: String, word: String) throws {
    #expect(svids(Wire.svids([Wire.svid(id: "spiffe://demo.mesh/web")])).1 == nil)
    let (response, discarded) = svids(Wire.svids([Wire.svid(id: id)]))
    #expect(response == nil)
    #expect(try #require(discarded).contains(word), "\(discarded ?? "")")
  }

  @Test(arguments: [
    ("partner.example", "scheme_not_spiffe"), ("spiffe://partner.example/x", "not a trust domain"),
    ("", "scheme_not_spiffe"), ("spiffe://", "empty_trust_domain"),
    ("spiffe://partner.example\u{0}", "invalid_trust_domain"),
    ("SPIFFE://partner.example", "scheme_not_spiffe"),
  ])
  func `with a bundle for something else than a trust domain is discarded`(
    key: String, word: String
  ) throws {
    let good: [(String, [UInt8])] = [("spiffe://partner.example", [1])]
    #expect(svids(Wire.svids([Wire.svid()], federated: good)).1 == nil)
    #expect(bundles(Wire.bundles(good)).1 == nil)
    let bad = good + [(key, [2])]
    for discarded in [
      svids(Wire.svids([Wire.svid()], federated: bad)).1, bundles(Wire.bundles(bad)).1,
    ] {
      #expect(try #require(discarded).contains(word), "\(discarded ?? "")")
    }
  }

  /// Trust Domain and Bundle §5.1.1.
  @Test func `with two bundles for one trust domain is discarded`() {
    let two: [(String, [UInt8])] = [("spiffe://a", [1]), ("spiffe://b", [1])]
    #expect(bundles(Wire.bundles(two)).0?.bundles.count == 2)
    let same = two + [("spiffe://a", [1])]
    #expect(bundles(Wire.bundles(same)).1 == "two bundles for a")
    #expect(svids(Wire.svids([Wire.svid()], federated: same)).1 == "two bundles for a")
  }

  @Test func `leaves a trust domain out whose bundle is empty`() {
    let (response, _) = bundles(Wire.bundles([("spiffe://a", [1]), ("spiffe://b", [])]))
    #expect(response?.bundles.map(\.trustDomain.name) == ["a"])
  }

  @Test func `must have bundles where it is about them`() {
    #expect(bundles(Wire.bundles([("spiffe://a", [1])])).0 != nil)
    #expect(bundles([]).1 == "no bundles")
    #expect(bundles(Wire.bundles([], crls: [[1]])).1 == "no bundles")
  }

  @Test func `has so many SVIDs, bundles and CRLs at most`() {
    func message(_ svidCount: Int, _ bundleCount: Int, _ crlCount: Int) -> [UInt8] {
      Wire.svids(
        (0..<svidCount).map { Wire.svid(id: "spiffe://demo.mesh/\($0)") },
        crls: (0..<crlCount).map { [UInt8($0 & 255)] },
        federated: (0..<bundleCount).map { ("spiffe://domain-\($0)", [1]) })
    }
    let full = svids(message(256, 1024, 1024)).0
    #expect(full?.svids.count == 256 && full?.federatedBundles.count == 1024)
    #expect(full?.crls.count == 1024)
    #expect(svids(message(257, 0, 0)).1 == "more than 256 SVIDs")
    #expect(svids(message(1, 1025, 0)).1 == "more than 1024 bundles")
    #expect(svids(message(1, 0, 1025)).1 == "more than 1024 CRLs")
  }

  /// A field of two bytes becomes a structure of many.
  @Test func `takes no more memory than it may`() {
    let entries = [UInt8](repeating: 0, count: 4 * 1024 * 1024)
    // Field 1, of no bytes, two million times.
    let flood = entries.indices.map { UInt8($0 & 1 == 0 ? 0x0a : 0) }
    #expect(svids(flood).1 == "not a message of the Workload API")
    #expect(svids(Array(flood.prefix(2000))).1 == "more than 256 SVIDs")
  }

  @Test func `has a hint that is text and not too long`() {
    let longest = String(repeating: "h", count: WorkloadLimits.hintMaximumBytes)
    #expect(svids(Wire.svids([Wire.svid(hint: longest)])).0?.svids[0].hint == longest)
    let reason = "the hint of SVID 1 is not text of at most 1024 bytes"
    #expect(svids(Wire.svids([Wire.svid(hint: longest + "h")])).1 == reason)
    #expect(svids(Wire.svids([Wire.svid() + Wire.field(5, [0xff])])).1 == reason)
  }

  @Test func `may have fields that are not known`() {
    let unknown = Wire.field(99, [1, 2]) + [0x78, 5]
    let message = Wire.svids([Wire.svid() + unknown]) + unknown
    #expect(svids(message).0?.svids.count == 1)
  }

  @Test func `is not what cannot be read`() {
    let message = Wire.svids([Wire.svid()])
    for bad in [
      Array(message.dropLast()), message + [0x0a], message + [0x0a, 5, 1], [0xff], [0x08, 1],
      message + [UInt8](repeating: 0xff, count: 20),
    ] {
      let (response, discarded) = svids(bad)
      #expect(response == nil && discarded != nil, "\(bad)")
    }
  }
}
