import Net
import Policy
import Testing

/// Everything that an inbound plan depends on.
private struct InboundQuestion: CustomTestStringConvertible {
  let mode: InboundMode
  let client: ClientKind
  let isAnnounced: Bool
  let isProbe: Bool

  var testDescription: String {
    "\(mode), \(client)\(isAnnounced ? ", announced" : "")\(isProbe ? ", probe" : "")"
  }

  static let all = InboundMode.allCases.flatMap { mode in
    [ClientKind.mesh, .applicationTLS, .plaintext, .silent].flatMap { client in
      [false, true].flatMap { isAnnounced in
        [false, true].map { isProbe in
          Self(mode: mode, client: client, isAnnounced: isAnnounced, isProbe: isProbe)
        }
      }
    }
  }

  /// As the design says it, in its order.
  var plan: InboundPlan {
    if client == .mesh { return .terminate }
    if isAnnounced { return .refuse(.announcedThenPlaintext) }
    if isProbe { return .relay(.declaredProbe) }
    switch (mode, client) {
    case (.strict, .applicationTLS): return .refuse(.applicationTLSInStrict)
    case (.strict, _): return .refuse(.plaintextInStrict)
    case (_, .applicationTLS): return .relay(.clientTLS)
    case (_, .silent): return .relay(.serverFirst)
    default: return .relay(.clientPlaintext)
    }
  }
}

@Suite struct `An inbound policy` {
  private let near: IPAddress
  private let probe: ProbeDeclaration

  init() throws {
    near = try #require(IPAddress("10.90.0.9"))
    probe = ProbeDeclaration(
      sources: [try #require(CIDR("10.90.0.0/28")), try #require(CIDR("fd90::9"))],
      ports: PortSet([8080...8081]))
  }

  @Test(arguments: InboundQuestion.all)
  fileprivate func `has one plan for all that it can be asked`(question: InboundQuestion) {
    let policy = InboundPolicy(mode: question.mode, probes: question.isProbe ? [probe] : [])
    let facts = InboundFacts(source: near, port: 8080, isAnnounced: question.isAnnounced)
    #expect(policy.plan(client: question.client, facts) == question.plan)
    #expect(policy.isProbe(facts) == question.isProbe)
    #expect(
      policy.admitsMeshOnly(facts)
        == (question.isAnnounced || question.mode == .strict && !question.isProbe))
    // The mode may be that of the port.
    let other = InboundPolicy(
      mode: question.mode == .strict ? .permissive : .strict, ports: [8080: question.mode],
      probes: policy.probes)
    #expect(other.plan(client: question.client, facts) == question.plan)
  }

  @Test(
    arguments: [
      ("10.90.0.15", 8080, true), ("10.90.0.16", 8080, false), ("10.90.0.15", 8081, true),
      ("10.90.0.15", 8082, false), ("10.90.0.15", 8079, false), ("fd90::9", 8080, true),
      ("fd90::8", 8080, false), ("::ffff:10.90.0.1", 8080, true),
    ] as [(String, UInt16, Bool)])
  func `takes for a probe what comes from its sources to its ports`(
    source: String, port: UInt16, isProbe: Bool
  ) throws {
    let policy = InboundPolicy(mode: .strict, probes: [probe])
    let facts = InboundFacts(source: try #require(IPAddress(source)), port: port)
    #expect(policy.isProbe(facts) == isProbe)
  }
}
