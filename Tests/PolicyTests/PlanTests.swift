import Identity
import Net
import Policy
import Testing

@Suite struct InboundPlans {
  static let table: [(InboundMode, ClientKind, InboundPlan)] = [
    (.permissive, .mesh, .terminate),
    (.permissive, .applicationTLS, .relay(.clientTLS)),
    (.permissive, .plaintext, .relay(.clientPlaintext)),
    (.permissive, .silent, .relay(.serverFirst)),
    (.strict, .mesh, .terminate),
    (.strict, .applicationTLS, .refuse(.applicationTLSInStrict)),
    (.strict, .plaintext, .refuse(.plaintextInStrict)),
    (.strict, .silent, .refuse(.plaintextInStrict)),
    (.disabled, .mesh, .terminate),
    (.disabled, .applicationTLS, .relay(.clientTLS)),
    (.disabled, .plaintext, .relay(.clientPlaintext)),
    (.disabled, .silent, .relay(.serverFirst)),
  ]

  @Test(arguments: table)
  func everyModeAndClientHasOnePlan(mode: InboundMode, client: ClientKind, plan: InboundPlan) {
    #expect(InboundPolicy(mode: mode).plan(client: client, facts(80)) == plan)
  }

  @Test(arguments: table)
  func aPortsModeWinsOverTheWorkloads(mode: InboundMode, client: ClientKind, plan: InboundPlan) {
    for other in InboundMode.allCases {
      let policy = InboundPolicy(mode: other, ports: [8080: mode])
      #expect(policy.plan(client: client, facts(8080)) == plan)
      #expect(policy.mode(ofPort: 8081) == other)
    }
  }

  private func facts(_ port: UInt16) -> InboundFacts {
    InboundFacts(source: IPAddress(v4: 0x0a5a_0009), port: port)
  }

  @Test func theDefaultIsPermissive() { #expect(InboundPolicy().mode == .permissive) }
}

@Suite struct OutboundPlans {
  private let web: SPIFFEID
  private let cache: SPIFFEID
  private let other: SPIFFEID
  private let policy: OutboundPolicy

  init() throws {
    web = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web")
    cache = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/cache")
    other = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/other")
    func range(_ text: String) throws -> CIDR { try #require(CIDR(text)) }
    policy = OutboundPolicy(
      rules: [
        OutboundRule(
          to: [try range("10.90.0.2")], ports: PortSet([3306...3306]), action: .mtls, expect: [web]),
        OutboundRule(to: [try range("10.90.0.2")], action: .deny),
        OutboundRule(
          to: [try range("0.0.0.0/0"), try range("::/0")], ports: PortSet([443...443]),
          action: .passthrough),
        OutboundRule(
          to: [try range("10.91.0.0/16")], ports: PortSet([8000...8099]), action: .plaintext),
        OutboundRule(to: [try range("10.92.0.0/16")], action: .mtls),
      ],
      peers: [
        Peer(address: try range("10.90.0.0/24"), identity: other),
        Peer(address: try range("10.90.0.3"), identity: cache),
        Peer(address: try range("fd00::/64"), identity: web),
      ])
  }

  private func plan(_ address: String, _ port: UInt16, _ mode: OutboundMode) throws -> OutboundPlan
  {
    var policy = policy
    policy.mode = mode
    return policy.plan(to: SocketAddress(try #require(IPAddress(address)), port: port))
  }

  @Test(arguments: OutboundMode.allCases)
  func theFirstMatchingRuleWinsInEveryMode(mode: OutboundMode) throws {
    #expect(try plan("10.90.0.2", 3306, mode) == .originate(expect: [web]))
    #expect(try plan("::ffff:10.90.0.2", 3306, mode) == .originate(expect: [web]))
    #expect(try plan("10.90.0.2", 443, mode) == .refuse(.deniedByRule))
    #expect(try plan("203.0.113.1", 443, mode) == .relay(.rulePassthrough))
    #expect(try plan("2001:db8::1", 443, mode) == .relay(.rulePassthrough))
    #expect(try plan("10.91.7.7", 8099, mode) == .relay(.rulePlaintext))
    #expect(try plan("10.92.0.1", 1, mode) == .originate(expect: []))
  }

  @Test(arguments: OutboundMode.allCases)
  func thenThePeerWithTheLongestPrefix(mode: OutboundMode) throws {
    #expect(try plan("10.90.0.3", 6379, mode) == .originate(expect: [cache]))
    #expect(try plan("10.90.0.4", 6379, mode) == .originate(expect: [other]))
    #expect(try plan("fd00::7", 6379, mode) == .originate(expect: [web]))
  }

  @Test(
    arguments: [
      (.auto, .discover), (.strict, .originate(expect: [])),
      (.disabled, .relay(.modeDisabled)),
    ] as [(OutboundMode, OutboundPlan)])
  func thenTheMode(mode: OutboundMode, expected: OutboundPlan) throws {
    #expect(try plan("10.91.7.7", 8100, mode) == expected)
    #expect(try plan("fd00:0:0:1::1", 80, mode) == expected)
  }

  @Test func everyReasonHasItsOwnWord() {
    let words = Refusal.allCases.map(\.rawValue) + RelayReason.allCases.map(\.rawValue)
    #expect(Set(words).count == words.count)
    let allowed = Set("abcdefghijklmnopqrstuvwxyz_")
    #expect(words.allSatisfy { $0.allSatisfy(allowed.contains) })
  }
}
