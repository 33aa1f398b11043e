package import Identity
package import Net

/// What is known of an inbound connection when it is judged.
package struct AuthorizationFacts: Hashable, Sendable {
  /// The verified identity of the peer; nil for plaintext and the application's own TLS.
  package var principal: SPIFFEID?
  package var source: IPAddress
  /// The port the client wanted to reach.
  package var port: UInt16

  package init(principal: SPIFFEID?, source: IPAddress, port: UInt16) {
    self.principal = principal
    self.source = source
    self.port = port
  }
}

/// What the rules come to; `rule` is the index of the first that matches.
package enum AuthorizationOutcome: Hashable, Sendable {
  /// nil: there is no rule that allows, so whatever is not denied may pass.
  case allowed(rule: Int?)
  case denied(rule: Int)
  /// There are rules that allow, and none matches.
  case notAllowed

  package var isAllowed: Bool {
    switch self {
    case .allowed: true
    case .denied, .notAllowed: false
    }
  }

  /// The rule that decided, if one did.
  package var rule: Int? {
    switch self {
    case .allowed(let rule): rule
    case .denied(let rule): rule
    case .notAllowed: nil
    }
  }
}

package struct AuthorizationVerdict: Hashable, Sendable {
  /// What counts: audit rules have no part in it.
  package var outcome: AuthorizationOutcome
  /// What the outcome would be if audit rules counted; nil if that is the same: allowed or not as
  /// without them, and not by an audit rule.
  package var audited: AuthorizationOutcome?

  package init(outcome: AuthorizationOutcome, audited: AuthorizationOutcome? = nil) {
    self.outcome = outcome
    self.audited = audited
  }
}

/// `authorization`: who may connect. Rules that deny come first, then those that allow; if there is
/// one that allows, what none of them allows is refused.
package struct Authorization: Sendable {
  /// The configuration takes no more.
  package static let maximumRules = 10_000

  package let rules: [AuthorizationRule]
  private let denying: AuthorizationIndex
  private let allowing: AuthorizationIndex
  private let auditDenying: AuthorizationIndex
  private let auditAllowing: AuthorizationIndex

  package init(_ rules: [AuthorizationRule] = []) {
    self.rules = rules
    denying = AuthorizationIndex(rules) { $0.action == .deny && !$0.isAudit }
    allowing = AuthorizationIndex(rules) { $0.action == .allow && !$0.isAudit }
    auditDenying = AuthorizationIndex(rules) { $0.action == .deny && $0.isAudit }
    auditAllowing = AuthorizationIndex(rules) { $0.action == .allow && $0.isAudit }
  }

  /// Pure: the same facts always give the same verdict.
  package func judge(_ facts: AuthorizationFacts) -> AuthorizationVerdict {
    if rules.isEmpty { return AuthorizationVerdict(outcome: .allowed(rule: nil)) }
    let subject = AuthorizationSubject(facts)
    let denied = denying.first(matching: subject)
    let allowed = denied == nil ? allowing.first(matching: subject) : nil
    let outcome = Self.outcome(
      denied: denied, allowed: allowed, hasAllowRule: !allowing.isEmpty)
    if auditDenying.isEmpty, auditAllowing.isEmpty { return AuthorizationVerdict(outcome: outcome) }

    let auditDenied = Self.earlier(denied, auditDenying.first(matching: subject))
    // With a rule that denies, those that allow have not been asked, and need not be.
    let auditAllowed = Self.earlier(allowed, auditAllowing.first(matching: subject))
    let audited = Self.outcome(
      denied: auditDenied, allowed: auditAllowed,
      hasAllowRule: !allowing.isEmpty || !auditAllowing.isEmpty)
    let isSame =
      audited.isAllowed == outcome.isAllowed
      && !(audited.rule.map { rules[$0].isAudit } ?? false)
    return AuthorizationVerdict(outcome: outcome, audited: isSame ? nil : audited)
  }

  /// For tools: of each rule the first field that does not hold, nil where the rule matches.
  package func explain(_ facts: AuthorizationFacts) -> [AuthorizationField?] {
    let subject = AuthorizationSubject(facts)
    return rules.map { $0.unmet(by: subject) }
  }

  private static func outcome(
    denied: Int?, allowed: Int?, hasAllowRule: Bool
  ) -> AuthorizationOutcome {
    if let denied { return .denied(rule: denied) }
    if let allowed { return .allowed(rule: allowed) }
    return hasAllowRule ? .notAllowed : .allowed(rule: nil)
  }

  private static func earlier(_ left: Int?, _ right: Int?) -> Int? {
    guard let left, let right else { return left ?? right }
    return min(left, right)
  }
}

extension Authorization: Hashable {
  package static func == (left: Authorization, right: Authorization) -> Bool {
    left.rules == right.rules
  }

  package func hash(into hasher: inout Hasher) { hasher.combine(rules) }
}
