import Identity
import Net
import Policy

/// Authorization evaluated as Docs/CONFIGURATION.md words it, slowly, sharing nothing with the
/// engine but its values.
struct Reference {
  /// Facts, with the parts of the principal taken out.
  struct Connection {
    let principal: String?
    let trustDomain: String?
    let namespace: String?
    let serviceAccount: String?
    let source: IPAddress
    let port: UInt16

    init(_ facts: AuthorizationFacts) {
      principal = facts.principal.map { "\($0)" }
      // spiffe: // TRUST DOMAIN / ns / NS / sa / SA
      let parts = principal?.split(separator: "/", omittingEmptySubsequences: false) ?? []
      let hasAccount = parts.count == 7 && parts[3] == "ns" && parts[5] == "sa"
      trustDomain = parts.count > 2 ? String(parts[2]) : nil
      namespace = hasAccount ? String(parts[4]) : nil
      serviceAccount = hasAccount ? String(parts[6]) : nil
      source = facts.source
      port = facts.port
    }
  }

  let rules: [AuthorizationRule]

  /// - Parameter matching: for each rule, whether it `matches`.
  func judge(matching: [Bool]) -> AuthorizationVerdict {
    let counted = decide(matching) { _ in true }
    let outcome = decide(matching) { !$0.isAudit }
    let isByAudit = counted.rule.map { rules[$0].isAudit } == true
    return AuthorizationVerdict(
      outcome: outcome,
      audited: isByAudit || counted.isAllowed != outcome.isAllowed ? counted : nil)
  }

  private func decide(
    _ matching: [Bool], counting: (AuthorizationRule) -> Bool
  ) -> AuthorizationOutcome {
    var hasAllowRule = false
    for action in [AuthorizationAction.deny, .allow] {
      for (index, rule) in rules.enumerated() where rule.action == action && counting(rule) {
        if action == .allow { hasAllowRule = true }
        guard matching[index] else { continue }
        return action == .deny ? .denied(rule: index) : .allowed(rule: index)
      }
    }
    return hasAllowRule ? .notAllowed : .allowed(rule: nil)
  }

  static func matches(_ rule: AuthorizationRule, _ connection: Connection) -> Bool {
    let texts: [(String?, [TextPattern], [TextPattern])] = [
      (connection.principal, rule.principals, rule.notPrincipals),
      (connection.trustDomain, rule.trustDomains, rule.notTrustDomains),
      (connection.namespace, rule.namespaces, rule.notNamespaces),
      (connection.serviceAccount, rule.serviceAccounts, rule.notServiceAccounts),
    ]
    var holds: [Bool] = []
    for (text, wanted, unwanted) in texts {
      if let text {
        if !wanted.isEmpty { holds.append(wanted.filter { fits(text, $0) }.count > 0) }
        if !unwanted.isEmpty { holds.append(unwanted.filter { fits(text, $0) }.count == 0) }
      } else {
        if !wanted.isEmpty { holds.append(false) }
        if !unwanted.isEmpty { holds.append(rule.action == .deny) }
      }
    }
    if !rule.sources.isEmpty { holds.append(isIn(rule.sources, connection.source)) }
    if !rule.notSources.isEmpty { holds.append(!isIn(rule.notSources, connection.source)) }
    if !rule.ports.isEmpty { holds.append(isIn(rule.ports, connection.port)) }
    if !rule.notPorts.isEmpty { holds.append(!isIn(rule.notPorts, connection.port)) }
    return !holds.contains(false)
  }

  private static func fits(_ text: String, _ pattern: TextPattern) -> Bool {
    let text = Array(text.utf8)
    switch pattern {
    case .exact(let whole): return text == Array(whole.utf8)
    case .present: return true
    case .prefix(let part):
      let part = Array(part.utf8)
      return part.count <= text.count && Array(text[..<part.count]) == part
    case .suffix(let part):
      let part = Array(part.utf8)
      return part.count <= text.count && Array(text[(text.count - part.count)...]) == part
    }
  }

  private static func isIn(_ ranges: [CIDR], _ address: IPAddress) -> Bool {
    ranges.contains { range in
      range.address.family == address.family
        && (0..<range.prefixLength).allSatisfy { bit in
          let shift = UInt128(address.family.bitCount - 1 - bit)
          return (range.address.bits >> shift) & 1 == (address.bits >> shift) & 1
        }
    }
  }

  private static func isIn(_ ports: PortSet, _ port: UInt16) -> Bool {
    ports.ranges.filter { $0.lowerBound <= port && port <= $0.upperBound }.count > 0
  }
}

/// SplitMix64: the same numbers for the same seed.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }
}
