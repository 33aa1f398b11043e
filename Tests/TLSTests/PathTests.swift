import COpenSSL
import Identity
import Testing

@testable import TLS

@Suite struct PathTests {
  let court = Court()

  private func intermediate(_ change: (inout Recipe) -> Void = { _ in }) -> TestCertificate {
    let recipe = Recipe.authority("demo.mesh").with {
      $0.commonName = "intermediate"
      change(&$0)
    }
    return TestCertificate(recipe, issuer: court.root)
  }

  private func refuses(
    _ peer: TestCertificate, _ refusal: PeerRefusal, alert: String, by verifier: Verifier,
    location: SourceLocation = #_sourceLocation
  ) throws {
    let judgement = try court.judge(peer, by: verifier)
    #expect(judgement.accepted == nil, sourceLocation: location)
    #expect(judgement.refusal == refusal, sourceLocation: location)
    #expect(judgement.alertSent == alert, sourceLocation: location)
    #expect(judgement.alertReceived == alert, sourceLocation: location)
  }

  @Test(arguments: Verifier.allCases)
  func `12: an expired certificate is refused, and one not yet valid`(verifier: Verifier) throws {
    try court.refuses(
      Recipe().with { ($0.begins, $0.ends) = (-7200, -10) }, .certificateExpired,
      alert: "certificate_expired", by: verifier)
    try court.refuses(
      Recipe().with { $0.begins = 600 }, .certificateNotYetValid, by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `12: a chain through intermediates is accepted, without one of them refused`(
    verifier: Verifier
  ) throws {
    let upper = intermediate()
    let lower = TestCertificate(
      .authority("demo.mesh").with { $0.commonName = "lower" }, issuer: upper)
    let leaf = TestCertificate(Recipe(), issuer: lower)
    #expect(leaf.chain.count == 3)
    #expect(try court.judge(leaf, by: verifier).accepted == .web)

    let gap = IdentityMaterial(
      id: .web, chain: [leaf.certificate, lower.certificate], key: leaf.key,
      bundles: court.bundles)
    let judgement = try court.judge(gap, by: verifier)
    #expect(judgement.refusal == .untrustedChain)
    #expect(judgement.alertReceived == "unknown_ca")
  }

  @Test(arguments: Verifier.allCases)
  func `12: an intermediate's path length is kept`(verifier: Verifier) throws {
    let upper = intermediate { $0.basicConstraints = "critical,CA:TRUE,pathlen:0" }
    let leaf = TestCertificate(Recipe(), issuer: upper)
    #expect(try court.judge(leaf, by: verifier).accepted == .web)
    let lower = TestCertificate(
      .authority("demo.mesh").with { $0.commonName = "lower" }, issuer: upper)
    try refuses(
      TestCertificate(Recipe(), issuer: lower), .pathInvalid, alert: "unknown_ca", by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `12: name constraints of an intermediate bind the IDs below it`(verifier: Verifier) throws {
    let own = intermediate { $0.nameConstraints = "critical,permitted;URI:demo.mesh" }
    #expect(
      try court.judge(TestCertificate(Recipe(), issuer: own), by: verifier).accepted == .web)
    let other = intermediate { $0.nameConstraints = "critical,permitted;URI:other.mesh" }
    try refuses(
      TestCertificate(Recipe(), issuer: other), .pathInvalid, alert: "certificate_unknown",
      by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `12: an intermediate must be a CA that may sign certificates, and be in date`(
    verifier: Verifier
  ) throws {
    #expect(
      try court.judge(TestCertificate(Recipe(), issuer: intermediate()), by: verifier).accepted
        == .web)
    let leafAsIssuer = intermediate {
      $0.basicConstraints = "critical,CA:FALSE"
      $0.keyUsage = "critical,digitalSignature"
    }
    let crlOnly = intermediate { $0.keyUsage = "critical,cRLSign" }
    let expired = intermediate { ($0.begins, $0.ends) = (-7200, -10) }
    for issuer in [leafAsIssuer, crlOnly, expired] {
      let judgement = try court.judge(TestCertificate(Recipe(), issuer: issuer), by: verifier)
      #expect(judgement.accepted == nil)
      #expect([.pathInvalid, .untrustedChain].contains(judgement.refusal))
      #expect(judgement.alertReceived == judgement.alertSent)
      #expect(judgement.alertSent != nil)
    }
  }

  @Test(arguments: Verifier.allCases)
  func `12: a CA of the right name with another key is not trusted`(verifier: Verifier) throws {
    let impostor = TestCertificate(.authority("demo.mesh"))
    try refuses(
      TestCertificate(Recipe(), issuer: impostor), .untrustedChain, alert: "unknown_ca",
      by: verifier)
    try refuses(TestCertificate(Recipe()), .untrustedChain, alert: "unknown_ca", by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `12: certificates without key identifiers are accepted`(verifier: Verifier) throws {
    let root = TestCertificate(
      .authority("plain.mesh").with { $0.keyIdentifiers = false })
    let court = Court([TrustBundle("plain.mesh", [root])])
    let leaf = TestCertificate(
      .leaf("URI:spiffe://plain.mesh/web").with { $0.keyIdentifiers = false }, issuer: root)
    #expect(try court.judge(leaf, by: verifier).accepted != nil)
  }

  @Test(arguments: Verifier.allCases)
  func `12: a bundle's CA that is not self-signed is an anchor`(verifier: Verifier) throws {
    let upper = TestCertificate(.authority("upper.mesh"))
    let anchor = TestCertificate(.authority("sub.mesh"), issuer: upper)
    let court = Court([TrustBundle("sub.mesh", [anchor])])
    let leaf = TestCertificate(.leaf("URI:spiffe://sub.mesh/web"), issuer: anchor)
    #expect(try court.judge(leaf, by: verifier).accepted != nil)
    let beside = TestCertificate(.leaf("URI:spiffe://sub.mesh/web"), issuer: upper)
    #expect(try court.judge(beside, by: verifier).refusal == .untrustedChain)
  }

  @Test(arguments: Verifier.allCases)
  func `a peer that sends more certificates than the limit is refused`(verifier: Verifier) throws {
    let leaf = TestCertificate(Recipe(), issuer: court.root)
    let filler = (0..<PeerVerification.maximumPeerCertificates).map {
      TestCertificate(.leaf("URI:spiffe://demo.mesh/\($0)"), issuer: court.root).certificate
    }
    func peer(_ count: Int) -> IdentityMaterial {
      IdentityMaterial(
        id: .web, chain: [leaf.certificate] + filler.prefix(count), key: leaf.key,
        bundles: court.bundles)
    }
    #expect(try court.judge(peer(filler.count - 1), by: verifier).accepted == .web)
    #expect(try court.judge(peer(filler.count), by: verifier).refusal == .chainTooLong)
  }

  @Test(arguments: Verifier.allCases)
  func `12: both CAs of one name are anchors while a trust domain changes its key`(
    verifier: Verifier
  ) throws {
    let next = TestCertificate(.authority("demo.mesh"))
    let bundles = [TrustBundle("demo.mesh", [next, court.root])]
    for root in [court.root, next] {
      let peer = TestCertificate(Recipe(), issuer: root).presented(trusting: bundles)
      #expect(try Pair(client: peer, server: peer).connect().bothEstablished)
    }
    // Without the new one in the bundle its leaf is refused.
    let early = TestCertificate(Recipe(), issuer: next)
    #expect(try court.judge(early, by: verifier).refusal == .untrustedChain)
  }

  @Test(arguments: Verifier.allCases)
  func `12: a CA's new key is trusted through the old one's word for it`(verifier: Verifier) throws
  {
    let rollover = TestCertificate(.authority("demo.mesh"), issuer: court.root)
    let leaf = TestCertificate(Recipe(), issuer: rollover)
    #expect(leaf.chain.count == 2)
    #expect(try court.judge(leaf, by: verifier).accepted == .web)
  }

  @Test(arguments: Verifier.allCases)
  func `12: a chain as long as the limit allows is accepted`(verifier: Verifier) throws {
    var issuer = court.root
    for number in 0..<PeerVerification.maximumIntermediates {
      issuer = TestCertificate(
        .authority("demo.mesh").with { $0.commonName = "CA \(number)" }, issuer: issuer)
    }
    let leaf = TestCertificate(Recipe(), issuer: issuer)
    #expect(leaf.chain.count == PeerVerification.maximumPeerCertificates)
    #expect(try court.judge(leaf, by: verifier).accepted == .web)
  }

  @Test(arguments: Verifier.allCases)
  func `12: a leaf with an extension that occurs twice is refused`(verifier: Verifier) throws {
    try court.refuses(
      Recipe().with { $0.secondNames = "URI:\(SPIFFEID.db)" }, .malformedCertificate, by: verifier)
    try court.refuses(
      Recipe().with { $0.secondNames = "DNS:web.shop" }, .malformedCertificate, by: verifier)
  }

  /// OpenSSL refuses to present such a certificate, so this is asked directly.
  @Test func `12: a key below 112 bits of security is refused, in a leaf and in a CA`() throws {
    let weak = TestCertificate(.authority("weak.mesh").with { $0.key = .weakRSA })
    let bundles = court.bundles + [TrustBundle("weak.mesh", [weak])]
    let verification = try PeerVerification(bundles)
    func judge(_ leaf: TestCertificate) throws -> SPIFFEID {
      try unsafe verification.verify(
        leaf.certificate.pointer, untrusted: nil, expect: []
      ).id
    }
    #expect(try judge(TestCertificate(Recipe(), issuer: court.root)) == .web)
    for leaf in [
      TestCertificate(Recipe().with { $0.key = .weakRSA }, issuer: court.root),
      TestCertificate(.leaf("URI:spiffe://weak.mesh/web"), issuer: weak),
    ] {
      let error = #expect(throws: Rejection.self) { try judge(leaf) }
      #expect(error?.refusal == .pathInvalid)
    }
  }

  @Test(arguments: Verifier.allCases)
  func `13: a trust domain without a bundle is not trusted`(verifier: Verifier) throws {
    try court.refuses(
      .leaf("URI:spiffe://stranger.mesh/web"), .unknownTrustDomain, alert: "unknown_ca",
      by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `13: one trust domain's CA cannot vouch for an ID of another`(verifier: Verifier) throws {
    let partner = TestCertificate(.authority("partner.mesh"))
    let court = Court([TrustBundle("partner.mesh", [partner])])
    let honest = TestCertificate(.leaf("URI:spiffe://partner.mesh/web"), issuer: partner)
    #expect(try court.judge(honest, by: verifier).accepted != nil)
    let impostor = TestCertificate(Recipe(), issuer: partner)
    let judgement = try court.judge(impostor, by: verifier)
    #expect(judgement.accepted == nil)
    #expect(judgement.refusal == .untrustedChain)
    #expect(judgement.alertReceived == "unknown_ca")
    let other = TestCertificate(.leaf("URI:spiffe://partner.mesh/web"), issuer: court.root)
    #expect(try court.judge(other, by: verifier).refusal == .untrustedChain)
    // Nor by sending the other domain's CA along.
    let escorted = IdentityMaterial(
      id: .web, chain: [impostor.certificate, partner.certificate], key: impostor.key,
      bundles: court.bundles)
    #expect(try court.judge(escorted, by: verifier).refusal == .untrustedChain)
  }

  @Test(arguments: Verifier.allCases)
  func `an ID that was not expected is refused`(verifier: Verifier) throws {
    let leaf = TestCertificate(Recipe(), issuer: court.root)
    #expect(try court.judge(leaf, by: verifier, expect: [.db, .web]).accepted == .web)
    let judgement = try court.judge(leaf, by: verifier, expect: [.db])
    #expect(judgement.accepted == nil)
    #expect(judgement.refusal == .unexpectedIdentity)
    #expect(judgement.alertReceived == "bad_certificate")
  }

  @Test func `a client without a certificate is refused`() throws {
    let mesh = DemoMesh()
    let pair = try Pair(client: mesh.web, server: mesh.db)
    unsafe SSL_certs_clear(pair.client.session.ssl)
    pair.connect()
    #expect(pair.server.state.failure?.refusal == .noCertificate)
    #expect(pair.server.state.failure?.word == "no_certificate")
    #expect(pair.client.state.failure?.alertReceived == "certificate_required")
    #expect(pair.client.state.failure?.word == "alert_received_certificate_required")
  }
}
