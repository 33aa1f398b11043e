import Identity
import Net
import Policy

/// What the rules of a policy look like.
enum RuleKind: String, CaseIterable {
  /// Each one principal and one port.
  case exact
  /// Each a prefix of principals, so that one after another is tried.
  case prefixes
}

extension Timing {
  /// Judging whom the last of `count` rules allows.
  func judge(_ kind: RuleKind, _ count: Int) throws -> Figure {
    let rules = (0..<count).map { number in
      var rule = AuthorizationRule(name: "rule-\(number)", action: .allow)
      switch kind {
      case .exact:
        rule.principals = [.exact(Self.principal(number))]
        rule.ports = PortSet([3306...3306])
      case .prefixes: rule.principals = [.prefix(Self.principal(number))]
      }
      return rule
    }
    let authorization = Authorization(rules)
    let facts = AuthorizationFacts(
      principal: try SPIFFEID(Self.principal(count - 1)), source: .loopbackV4, port: 3306)
    return figure("judge by \(count) rules, \(kind.rawValue)", bytes: 0) { _ in
      let verdict = authorization.judge(facts)
      precondition(verdict.outcome == .allowed(rule: count - 1), "another verdict")
    }
  }

  /// All of one length, so that none is the beginning of another.
  private static func principal(_ number: Int) -> String {
    "spiffe://bench.mesh/ns/bench/sa/workload-\(100_000 + number)"
  }
}
