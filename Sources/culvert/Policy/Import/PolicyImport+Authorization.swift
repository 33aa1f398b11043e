internal import Configuration

extension PolicyImport {
  /// `spec.action` of an AuthorizationPolicy.
  private enum Action: String {
    case allow = "ALLOW"
    case deny = "DENY"
    case audit = "AUDIT"
    case custom = "CUSTOM"
  }

  /// One policy of Istio; each of its rules becomes one for each pair of `from` and `to`.
  mutating func add(authorizationPolicy object: KubernetesObject) throws(Problem) {
    let namespace = try object.requiredNamespace()
    guard workload.isInScope(namespace) else { return }
    let spec = try object.spec([
      "selector", "targetRef", "targetRefs", "action", "provider", "rules",
    ])
    let action = try Self.action(spec)
    let isDryRun = try object.isDryRun()
    // A DENY or CUSTOM that is left out lets in what Istio keeps out.
    let consequence: String? =
      switch action {
      case .deny, .custom: isDryRun ? "nothing is logged for it" : nil
      case .allow: isDryRun ? "nothing is logged for it" : "what it allows is refused"
      case .audit: "nothing is logged for it"
      }
    if let target = spec.given("targetRefs") ?? spec.given("targetRef") {
      // Such policies are not enforced at the workload at all.
      refuse(
        target.problem("names gateways or services, not workloads"), of: object,
        leavingOut: consequence == nil ? nil : "it holds for no workload")
      return
    }
    guard try workload.isSelected(spec.given("selector")) else { return }
    if action == .custom {
      refuse(
        (spec["action"] ?? object.root).problem(
          "CUSTOM asks an external authorizer, Culvert asks nobody"),
        of: object, leavingOut: consequence)
      return
    }
    let conditions = try self.conditions(
      spec.given("rules"), of: object, namespace, leavingOut: consequence)
    try append(
      conditions, of: object, action: action == .allow ? .allow : .deny,
      isAudit: isDryRun || action == .audit)
    if action == .audit {
      remarks.append("\(object.title): AUDIT only logs what matches; nothing is denied")
    }
  }

  private static func action(_ spec: [String: Field]) throws(Problem) -> Action {
    guard let field = spec.given("action") else { return .allow }
    guard case .scalar(let text, _) = field.node.content, let action = Action(rawValue: text) else {
      throw field.expected("ALLOW, DENY, AUDIT or CUSTOM")
    }
    return action
  }

  /// What the rules of a policy match, with the number of each, from 1.
  private mutating func conditions(
    _ rules: Field?, of object: KubernetesObject, _ namespace: String,
    leavingOut consequence: String?
  ) throws(Problem) -> [(number: Int, conditions: RuleConditions)] {
    let reader = AuthorizationRuleReader(
      policyNamespace: namespace, trustDomain: workload.trustDomain)
    var conditions: [(number: Int, conditions: RuleConditions)] = []
    for (index, rule) in try (rules?.items() ?? []).enumerated() {
      do throws(Problem) {
        let read = try reader.conditions(rule).map(\.simplified)
        let satisfiable = read.filter { !$0.isUnsatisfiable }
        if satisfiable.isEmpty {
          remarks.append("\(object.title): rule \(index + 1) matches nothing")
        }
        conditions += satisfiable.map { (index + 1, $0) }
        guard conditions.count <= Self.rulesMaximum else { break }
      } catch {
        refuse(error, of: object, leavingOut: consequence)
      }
    }
    return conditions
  }

  /// Adds the rules of one policy. An ALLOW without any still refuses what no other allows.
  private mutating func append(
    _ conditions: [(number: Int, conditions: RuleConditions)], of object: KubernetesObject,
    action: ImportedRule.Action, isAudit: Bool
  ) throws(Problem) {
    if conditions.isEmpty {
      guard action == .allow else {
        remarks.append("\(object.title) has no rule that matches anything")
        return
      }
      try append(
        .nothing, of: object, suffix: "", action: action, isAudit: isAudit,
        comment: "\(object.source): allows nothing; this rule matches no client")
      return
    }
    for (index, entry) in conditions.enumerated() {
      var comment = "\(object.source), rule \(entry.number)"
      if action == .allow, entry.conditions.admitsNameless {
        comment += "; unlike in Istio, clients without an identity do not match"
      }
      try append(
        entry.conditions, of: object, suffix: conditions.count == 1 ? "" : "/\(index + 1)",
        action: action, isAudit: isAudit, comment: comment)
    }
  }

  /// Adds a rule that is named after its object.
  mutating func append(
    _ conditions: RuleConditions, of object: KubernetesObject, suffix: String,
    action: ImportedRule.Action, isAudit: Bool, comment: String
  ) throws(Problem) {
    guard rules.count < Self.rulesMaximum else {
      throw object.root.problem("more than \(Self.rulesMaximum) rules")
    }
    let name = "\(object.namespace ?? "")/\(object.name)\(suffix)"
    guard name.utf8.count <= ImportedRule.nameMaximumBytes else {
      throw object.root.problem(
        "the rule's name \(name) is longer than \(ImportedRule.nameMaximumBytes) bytes")
    }
    rules.append(
      ImportedRule(
        comment: comment, name: name, action: action, isAudit: isAudit, conditions: conditions))
  }
}
