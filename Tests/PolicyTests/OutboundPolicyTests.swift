import Identity
import Net
import Policy
import Testing

@Suite struct `An outbound policy` {
  private let destination: SocketAddress
  private let web: SPIFFEID
  private let everything: [CIDR] = [.allV4, .allV6]

  init() throws {
    destination = SocketAddress(try #require(IPAddress("203.0.113.7")), port: 443)
    web = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web")
  }

  private func rule(
    _ action: OutboundAction, names: [String] = [], expect: [SPIFFEID] = []
  ) throws -> OutboundRule {
    OutboundRule(
      to: everything, ports: PortSet([443...443]),
      serverNames: try names.map { try #require(ServerNamePattern($0)) }, action: action,
      expect: expect)
  }

  @Test func `looks into the ClientHello only where the first rule that covers asks for it`() throws
  {
    let names = try rule(.passthrough, names: ["api.example.com"])
    let plain = try rule(.plaintext)
    let other = SocketAddress(destination.address, port: 444)
    #expect(OutboundPolicy(rules: [names]).needsServerName(for: destination))
    #expect(OutboundPolicy(rules: [names, plain]).needsServerName(for: destination))
    #expect(!OutboundPolicy(rules: [names]).needsServerName(for: other))
    #expect(!OutboundPolicy(rules: [plain, names]).needsServerName(for: destination))
    #expect(!OutboundPolicy().needsServerName(for: destination))
  }

  @Test(arguments: OutboundMode.allCases)
  func `takes the first rule whose server name fits`(mode: OutboundMode) throws {
    let policy = OutboundPolicy(
      mode: mode,
      rules: [
        try rule(.passthrough, names: ["api.example.com", "*.svc.example"]),
        try rule(.mtls, names: ["mesh.example"], expect: [web]), try rule(.deny),
      ])
    for (name, plan) in [
      ("api.example.com", .relay(.rulePassthrough)), ("API.EXAMPLE.COM", .relay(.rulePassthrough)),
      ("a.svc.example", .relay(.rulePassthrough)), ("b.a.svc.example", .relay(.rulePassthrough)),
      ("mesh.example", .originate(expect: [web])), ("svc.example", .refuse(.deniedByRule)),
      ("xsvc.example", .refuse(.deniedByRule)), ("api.example.com.", .refuse(.deniedByRule)),
      ("", .refuse(.deniedByRule)), (nil, .refuse(.deniedByRule)),
    ] as [(String?, OutboundPlan)] {
      #expect(policy.plan(to: destination, serverName: name) == plan, "\(name ?? "none")")
    }
  }

  @Test func `names the rule that originates TLS by its index`() throws {
    var tls = try rule(.tls)
    tls.origination = TLSOrigination(serverName: "api.example.com")
    let policy = OutboundPolicy(rules: [
      OutboundRule(to: everything, ports: PortSet([80...80]), action: .deny), tls,
    ])
    #expect(policy.plan(to: destination) == .originateTLS(rule: 1))
  }

  @Test(arguments: OutboundMode.allCases)
  func `with registryOnly refuses what nothing names`(mode: OutboundMode) throws {
    let near = try #require(IPAddress("10.0.0.1"))
    let peers = [
      Peer(address: CIDR(near), kind: .mesh(nil)),
      Peer(address: try #require(CIDR("10.0.0.2")), kind: .notMesh),
    ]
    var policy = OutboundPolicy(mode: mode, rules: [try rule(.plaintext)], peers: peers)
    let named = OutboundPlan.originate(expect: [])
    let notMesh: OutboundPlan = mode == .strict ? .refuse(.notMesh) : .relay(.peerNotMesh)
    for isRegistryOnly in [false, true] {
      policy.isRegistryOnly = isRegistryOnly
      func plan(_ address: String, _ port: UInt16) throws -> OutboundPlan {
        policy.plan(to: SocketAddress(try #require(IPAddress(address)), port: port))
      }
      #expect(try plan("10.0.0.1", 80) == named)
      #expect(try plan("10.0.0.2", 80) == notMesh)
      #expect(try plan("10.0.0.3", 443) == .relay(.rulePlaintext))
      let unnamed = try plan("10.0.0.3", 80)
      #expect((unnamed == .refuse(.notInRegistry)) == isRegistryOnly)
    }
  }

  @Test(
    arguments: [
      (.mesh, .originate(expect: []), .originate(expect: [])),
      (.silent, .relay(.notAnnounced), .refuse(.pinnedMeshLost)),
      (.noMeshPort, .relay(.noMeshPort), .refuse(.pinnedMeshLost)),
      (.notAsked, .relay(.notKnownAsMesh), .refuse(.pinnedMeshLost)),
    ] as [(DiscoveryAnswer, OutboundPlan, OutboundPlan)])
  func `does not speak plaintext to what is pinned`(
    answer: DiscoveryAnswer, unpinned: OutboundPlan, pinned: OutboundPlan
  ) {
    #expect(OutboundPolicy().plan(found: answer, isPinned: false) == unpinned)
    #expect(OutboundPolicy().plan(found: answer, isPinned: true) == pinned)
  }

  @Test func `bounds who may answer where nobody is named`() throws {
    let stranger = try SPIFFEID("spiffe://stranger.example/ns/shop/sa/web")
    var policy = OutboundPolicy()
    #expect(policy.admits(web) && policy.admits(stranger))
    policy.expectTrustDomains = [web.trustDomain]
    #expect(policy.admits(web) && !policy.admits(stranger))
  }
}

@Suite struct `A server name pattern` {
  @Test(arguments: [
    "", "*", "*.", "**", "*.*.example", "a.*", "*a.example", "a*.example", "a..b", ".a", "a.",
    "10.0.0.1", "::1", "*.10.0.0.1", "*.::1", "1.2", "a b", "exämple.com", "-a.example",
    "a/b", "a:443", String(repeating: "a", count: 64) + ".example",
    String(repeating: "a.", count: 127),
  ])
  func `is refused`(text: String) { #expect(ServerNamePattern(text) == nil) }

  @Test(arguments: [
    (
      "api.example.com", ["api.example.com", "Api.Example.COM"],
      ["x.api.example.com", "example.com"]
    ),
    ("API.example.com", ["api.example.com"], ["api.example.co"]),
    ("*.svc.example", ["a.svc.example", "b.a.SVC.example"], ["svc.example", "asvc.example", ""]),
    ("localhost", ["localhost"], ["localhost.", "local"]),
    ("*.example", ["a.example"], ["example", "a.example.com"]),
    ("_srv.a-b.example", ["_srv.a-b.example"], ["srv.a-b.example"]),
  ])
  func `fits what it says`(text: String, fitting: [String], others: [String]) throws {
    let pattern = try #require(ServerNamePattern(text))
    for name in fitting { #expect(pattern.matches(name), "\(name)") }
    for name in others { #expect(!pattern.matches(name), "\(name)") }
  }

  @Test func `is the same in either case`() {
    #expect(ServerNamePattern("A.example") == ServerNamePattern("a.EXAMPLE"))
    #expect(ServerNamePattern("*.a.example") != ServerNamePattern("a.example"))
  }
}
