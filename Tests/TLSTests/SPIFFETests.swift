import Identity
import Testing

@testable import TLS

/// The end that verifies; the other end presents the certificate under test.
enum Verifier: CaseIterable { case client, server }

/// What the verifying end and the presenting end made of a handshake.
struct Judgement {
  let accepted: SPIFFEID?
  let refusal: PeerRefusal?
  let alertSent: String?
  /// The alert as the presenting end saw it.
  let alertReceived: String?
}

/// A trust domain `demo.mesh`, and workloads that present what a test gives them.
struct Court {
  let root = TestCertificate(.authority("demo.mesh"))
  let honest: IdentityMaterial
  let bundles: [TrustBundle]

  init(_ others: [TrustBundle] = []) {
    bundles = [TrustBundle("demo.mesh", [root])] + others
    honest = TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: root)
      .presented(trusting: bundles)
  }

  func judge(_ peer: TestCertificate, by verifier: Verifier, expect: [SPIFFEID] = []) throws
    -> Judgement
  {
    try judge(peer.presented(trusting: bundles), by: verifier, expect: expect)
  }

  func judge(_ peer: IdentityMaterial, by verifier: Verifier, expect: [SPIFFEID] = []) throws
    -> Judgement
  {
    let pair =
      switch verifier {
      case .client: try Pair(client: honest, server: peer, clientExpects: expect)
      case .server: try Pair(client: peer, server: honest, serverExpects: expect)
      }
    pair.connect()
    let judge = verifier == .client ? pair.client : pair.server
    let judged = verifier == .client ? pair.server : pair.client
    return Judgement(
      accepted: judge.state.isEstablished ? judge.session.peer : nil,
      refusal: judge.state.failure?.refusal, alertSent: judge.state.failure?.alertSent,
      alertReceived: judged.state.failure?.alertReceived)
  }

  /// The valid twin is accepted; with the one change it is refused, and the peer is told so.
  func refuses(
    _ recipe: Recipe, _ refusal: PeerRefusal, alert: String = "bad_certificate",
    by verifier: Verifier, location: SourceLocation = #_sourceLocation
  ) throws {
    try accepts(Recipe(), by: verifier, location: location)
    let judgement = try judge(TestCertificate(recipe, issuer: root), by: verifier)
    #expect(judgement.accepted == nil, sourceLocation: location)
    #expect(judgement.refusal == refusal, sourceLocation: location)
    #expect(judgement.alertSent == alert, sourceLocation: location)
    #expect(judgement.alertReceived == alert, sourceLocation: location)
  }

  func accepts(
    _ recipe: Recipe, by verifier: Verifier, location: SourceLocation = #_sourceLocation
  ) throws {
    let judgement = try judge(TestCertificate(recipe, issuer: root), by: verifier)
    #expect(judgement.accepted != nil, sourceLocation: location)
    #expect(judgement.refusal == nil, sourceLocation: location)
  }
}

@Suite struct SPIFFELeafTests {
  let court = Court()

  @Test(
    arguments: Verifier.allCases,
    [
      "https://demo.mesh/web", "SPIFFE://demo.mesh/web", "spiffe:/demo.mesh/web",
      "spiffe://demo.mesh/web?x=1", "spiffe://demo.mesh/web#x",
    ])
  func `1: only the scheme spiffe, no query, no fragment`(verifier: Verifier, id: String) throws {
    try court.refuses(.leaf("URI:\(id)"), .invalidSPIFFEID, by: verifier)
  }

  @Test(
    arguments: Verifier.allCases,
    [
      "spiffe:///web", "spiffe://Demo.mesh/web", "spiffe://me@demo.mesh/web",
      "spiffe://demo.mesh:443/web", "spiffe://demo%2emesh/web",
      "spiffe://\(String(repeating: "a", count: 256))/web",
    ])
  func `2: a trust domain is 1 to 255 bytes of lower-case letters, digits, dot, dash, underscore`(
    verifier: Verifier, id: String
  ) throws {
    try court.refuses(.leaf("URI:\(id)"), .invalidSPIFFEID, by: verifier)
  }

  @Test(
    arguments: Verifier.allCases,
    [
      "/w%65b", "//web", "/./web", "/ns/../web", "/web/", "/", "/we b", "/web~", "/wéb",
    ])
  func `3: a path is rejected, never normalised`(verifier: Verifier, path: String) throws {
    try court.refuses(.leaf("URI:spiffe://demo.mesh\(path)"), .invalidSPIFFEID, by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `3: a NUL inside an ID is refused`(verifier: Verifier) throws {
    let uri = Array("spiffe://demo.mesh/ns\0/web".utf8)
    let der = [0x30, UInt8(uri.count + 2), 0x86, UInt8(uri.count)] + uri
    let hex = der.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    try court.refuses(.leaf("DER:\(hex)"), .invalidSPIFFEID, by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `4: an ID of 2048 bytes is accepted, one of 2049 refused`(verifier: Verifier) throws {
    let start = "spiffe://demo.mesh/"
    let full = start + String(repeating: "a", count: 2048 - start.utf8.count)
    try court.accepts(.leaf("URI:\(full)"), by: verifier)
    try court.refuses(.leaf("URI:\(full)a"), .invalidSPIFFEID, by: verifier)
  }

  @Test(arguments: Verifier.allCases, ["10.0.0.1", "example.com", "127.0.0.1", "xn--80ak6aa92e"])
  func `5: a trust domain that looks like an address or a DNS name is like any other`(
    verifier: Verifier, name: String
  ) throws {
    let root = TestCertificate(.authority(name))
    let court = Court([TrustBundle(name, [root])])
    let peer = TestCertificate(.leaf("URI:spiffe://\(name)/web"), issuer: root)
    #expect(try court.judge(peer, by: verifier).accepted == SPIFFEID("spiffe://\(name)/web"))
  }

  @Test(arguments: Verifier.allCases)
  func `6: exactly one URI name; names of other kinds do not matter`(verifier: Verifier) throws {
    let web = "URI:\(SPIFFEID.web)"
    let others = "DNS:web.shop,email:web@shop.example,IP:10.0.0.1"
    try court.accepts(.leaf("\(others),\(web)"), by: verifier)
    try court.refuses(.leaf("\(web),URI:\(SPIFFEID.db)"), .multipleURISANs, by: verifier)
    try court.refuses(.leaf("\(web),URI:https://shop"), .multipleURISANs, by: verifier)
    try court.refuses(.leaf(others), .noURISAN, by: verifier)
    try court.refuses(Recipe().with { $0.names = nil }, .noURISAN, by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `7: a leaf's ID has a path, and its Subject may be empty`(verifier: Verifier) throws {
    try court.refuses(.leaf("URI:spiffe://demo.mesh"), .spiffeIDWithoutPath, by: verifier)
    let nameless = Recipe().with { $0.commonName = nil }
    try court.accepts(nameless.with { $0.names = "critical,URI:\(SPIFFEID.web)" }, by: verifier)
    // RFC 5280 §4.2.1.6: without a Subject the names must be critical.
    try court.refuses(nameless, .pathInvalid, alert: "certificate_unknown", by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `8: a leaf is no CA and can sign nothing`(verifier: Verifier) throws {
    let usage = "critical,digitalSignature"
    let authority = Recipe().with {
      $0.basicConstraints = "critical,CA:TRUE"
      $0.keyUsage = "\(usage),keyCertSign"
    }
    try court.refuses(authority, .leafIsCA, by: verifier)
    for right in ["keyCertSign", "cRLSign"] {
      try court.refuses(
        Recipe().with { $0.keyUsage = "\(usage),\(right)" }, .leafCanSign, by: verifier)
    }
    try court.accepts(Recipe().with { $0.basicConstraints = nil }, by: verifier)
  }

  @Test(arguments: Verifier.allCases)
  func `9: key usage is present, critical and has digitalSignature`(verifier: Verifier) throws {
    try court.refuses(Recipe().with { $0.keyUsage = nil }, .keyUsageMissing, by: verifier)
    try court.refuses(
      Recipe().with { $0.keyUsage = "digitalSignature" }, .keyUsageNotCritical, by: verifier)
    try court.accepts(
      Recipe().with { $0.keyUsage = "critical,digitalSignature,keyAgreement" }, by: verifier)
  }

  /// OpenSSL itself refuses to present a certificate that cannot sign, so this is asked directly.
  @Test func `9: a leaf without digitalSignature is refused`() throws {
    let recipe = Recipe().with { $0.keyUsage = "critical,keyAgreement" }
    let leaf = TestCertificate(recipe, issuer: court.root)
    let error = #expect(throws: Rejection.self) {
      try unsafe LeafProfile.check(leaf.certificate.pointer)
    }
    #expect(error?.refusal == .digitalSignatureMissing)
  }

  @Test(arguments: Verifier.allCases)
  func `10: extended key usage, if present, has serverAuth and clientAuth`(
    verifier: Verifier
  ) throws {
    try court.accepts(Recipe().with { $0.extendedKeyUsage = nil }, by: verifier)
    try court.accepts(
      Recipe().with { $0.extendedKeyUsage = "serverAuth,clientAuth,codeSigning" }, by: verifier)
    for usage in ["serverAuth", "clientAuth", "codeSigning", "anyExtendedKeyUsage"] {
      try court.refuses(
        Recipe().with { $0.extendedKeyUsage = usage }, .extendedKeyUsageIncomplete,
        alert: "unsupported_certificate", by: verifier)
    }
  }

  @Test(arguments: Verifier.allCases)
  func `11: a signing certificate never authenticates, not even one in the bundle`(
    verifier: Verifier
  ) throws {
    // With digitalSignature, without which OpenSSL would not even present it.
    let recipe = Recipe.authority("demo.mesh").with {
      $0.keyUsage = "critical,digitalSignature,keyCertSign"
    }
    let pathless = TestCertificate(recipe)
    let named = TestCertificate(recipe.with { $0.names = "URI:\(SPIFFEID.web)" })
    let nameless = TestCertificate(recipe.with { $0.names = nil })
    let honest = TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: pathless)
    let bundles = [TrustBundle("demo.mesh", [pathless, named, nameless])]
    for (authority, refusal) in [
      (pathless, PeerRefusal.spiffeIDWithoutPath), (named, .leafIsCA), (nameless, .noURISAN),
    ] {
      let pair =
        verifier == .client
        ? try Pair(
          client: honest.presented(trusting: bundles),
          server: authority.presented(trusting: bundles))
        : try Pair(
          client: authority.presented(trusting: bundles),
          server: honest.presented(trusting: bundles))
      pair.connect()
      let judge = verifier == .client ? pair.client : pair.server
      #expect(judge.state.failure?.refusal == refusal)
      let leaf = TestCertificate(Recipe(), issuer: authority).presented(trusting: bundles)
      let twin = try Pair(client: leaf, server: honest.presented(trusting: bundles)).connect()
      #expect(twin.bothEstablished)
    }
  }
}
