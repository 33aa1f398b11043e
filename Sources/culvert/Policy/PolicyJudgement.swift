internal import Configuration
internal import Identity
internal import Net
internal import Policy
internal import TLS

/// What a configuration makes of one inbound connection, as `culvert policy test` prints it.
struct PolicyJudgement: Encodable {
  let allowed: Bool
  let verdict: Verdict
  /// The name of the rule that decided.
  let rule: String?
  /// What would come of it if audit rules counted; nil if nothing else would.
  let audited: Audited?
  /// nil: without an identity.
  let from: String?
  let source: String?
  let to: String
  let mode: String
  /// Whether the port takes plaintext and the application's own TLS at all.
  let plaintext: Bool
  let rules: [Rule]

  /// One word for the outcome; some are refusals of the proxy.
  enum Verdict: String, Encodable, CaseIterable {
    case allowedByRule = "allowed_by_rule"
    case allowedWithoutRule = "allowed_without_rule"
    case declaredProbe = "declared_probe"
    case deniedByRule = "denied_by_policy"
    case noRuleAllows = "not_allowed_by_policy"
    case plaintextInStrict = "plaintext_in_strict"
    case unknownTrustDomain = "unknown_trust_domain"
  }

  struct Audited: Encodable {
    let allowed: Bool
    let verdict: Verdict
    let rule: String?
  }

  struct Rule: Encodable {
    let name: String
    let action: String
    let audit: Bool
    let matches: Bool
    /// The field that does not hold.
    let unmet: String?
  }

  /// - Parameter source: nil if it is not known, which is an error where a rule looks at it.
  init(
    settings: Settings, from: SPIFFEID?, source: IPAddress?, to: SocketAddress
  ) throws(CommandError) {
    let authorization = settings.authorization
    if source == nil, let rule = authorization.rules.first(where: \.looksAtSource) {
      throw CommandError("--source is needed: the rule \(rule.name) looks at it")
    }
    if source == nil, from == nil,
      settings.inbound.probes.contains(where: { $0.ports.contains(to.port) })
    {
      throw CommandError("--source is needed: inbound.probes looks at it")
    }
    let facts = AuthorizationFacts(
      principal: from, source: source ?? .anyV4, port: to.port)
    let judged = authorization.judge(facts)
    let plaintextPlan = settings.inbound.plan(
      client: .plaintext, InboundFacts(source: facts.source, port: to.port))
    let isProbe = from == nil && plaintextPlan == .relay(.declaredProbe)
    let before = isProbe ? .declaredProbe : Self.refusedBefore(settings, from, plaintextPlan)

    allowed = isProbe || before == nil && judged.outcome.isAllowed
    verdict = before ?? Verdict(judged.outcome)
    rule = before == nil ? judged.outcome.rule.map { authorization.rules[$0].name } : nil
    let counted = before == nil ? judged.audited : nil
    audited = counted.map { outcome in
      Audited(
        allowed: outcome.isAllowed, verdict: Verdict(outcome),
        rule: outcome.rule.map { authorization.rules[$0].name })
    }
    self.from = from?.description
    self.source = source?.description
    self.to = to.description
    mode = settings.inbound.mode(ofPort: to.port).rawValue
    plaintext = !plaintextPlan.isRefusal
    rules = zip(authorization.rules, authorization.explain(facts)).map { rule, unmet in
      Rule(
        name: rule.name, action: rule.action.rawValue, audit: rule.isAudit, matches: unmet == nil,
        unmet: unmet?.rawValue)
    }
  }

  /// Why the connection does not get as far as the rules; nil if it does.
  private static func refusedBefore(
    _ settings: Settings, _ from: SPIFFEID?, _ plaintextPlan: InboundPlan
  ) -> Verdict? {
    guard let from else { return plaintextPlan.isRefusal ? .plaintextInStrict : nil }
    let isTrusted = settings.trustedDomains?.contains(from.trustDomain) ?? true
    return isTrusted ? nil : .unknownTrustDomain
  }
}

extension PolicyJudgement.Verdict {
  fileprivate init(_ outcome: AuthorizationOutcome) {
    self =
      switch outcome {
      case .allowed(rule: nil): .allowedWithoutRule
      case .allowed: .allowedByRule
      case .denied: .deniedByRule
      case .notAllowed: .noRuleAllows
      }
  }
}

extension AuthorizationRule {
  fileprivate var looksAtSource: Bool { !sources.isEmpty || !notSources.isEmpty }
}

extension InboundPlan {
  fileprivate var isRefusal: Bool {
    if case .refuse = self { true } else { false }
  }
}
