internal import Configuration
internal import Identity
internal import Policy

extension PolicyImport {
  /// SMI denies by default: with no TrafficTarget for the workload, nothing is allowed.
  mutating func addTrafficTargets(_ objects: [KubernetesObject]) {
    let targets = objects.filter {
      $0.group == "access.smi-spec.io" && $0.kind == "TrafficTarget"
    }
    guard let first = targets.first else { return }
    guard let serviceAccount = workload.serviceAccount else {
      refuse(
        first.root.problem("--service-account of the workload is needed to say what applies"),
        of: first)
      return
    }
    let isMixed = !rules.isEmpty
    let count = rules.count
    for target in targets {
      attempt(target) { (result: inout Self) throws(Problem) in
        try result.add(trafficTarget: target, serviceAccount, objects)
      }
    }
    if isMixed {
      refuse(
        first.root.problem(
          "AuthorizationPolicies apply as well; what must pass both would pass one. Import them"
            + " apart"),
        of: first)
    }
    if rules.count == count {
      rules.append(
        ImportedRule(
          comment: "SMI denies by default, and no TrafficTarget allows anything here; this rule"
            + " matches no client",
          name: "smi/default-deny", action: .allow, isAudit: false, conditions: .nothing))
    }
  }

  private mutating func add(
    trafficTarget object: KubernetesObject, _ serviceAccount: String,
    _ objects: [KubernetesObject]
  ) throws(Problem) {
    let namespace = try object.requiredNamespace()
    let isFirstVersion = object.version == "v1alpha1"
    // The first version has no `spec`, and another word for rules.
    let fields =
      isFirstVersion
      ? try object.root.fields([
        "apiVersion", "kind", "metadata", "destination", "specs", "sources",
      ]) : try object.spec(["destination", "rules", "sources"])
    let destination = try fields.required("destination", in: object.root)
    let target = try ServiceAccount(destination, extraFields: ["port"], defaultNamespace: namespace)
    guard target.name == serviceAccount, target.namespace == workload.namespace else { return }
    let consequence = "what it allows is refused"
    do throws(Problem) {
      var conditions = RuleConditions()
      let sources = try fields.required("sources", in: object.root)
      conditions.set(.principals, try principals(sources))
      if let port = try destination.dictionary().given("port") {
        conditions.require(ports: [try port.portNumber()])
      }
      let rules = try fields.required(isFirstVersion ? "specs" : "rules", in: object.root)
      if let ports = try self.ports(rules, namespace, objects) { conditions.require(ports: ports) }
      guard !conditions.isUnsatisfiable else {
        remarks.append(
          "\(object.title) matches nothing: no port is its destination's and its routes'")
        return
      }
      try append(
        conditions, of: object, suffix: "", action: .allow, isAudit: false, comment: object.source)
    } catch {
      refuse(error, of: object, leavingOut: consequence)
    }
  }

  private func principals(_ sources: Field) throws(Problem) -> [TextPattern] {
    let items = try sources.nonEmptyItems()
    guard items.count <= AuthorizationRuleReader.valuesMaximum else {
      throw sources.problem("more than \(AuthorizationRuleReader.valuesMaximum) values")
    }
    return try items.map { item throws(Problem) in
      let account = try ServiceAccount(item)
      let id =
        "\(SPIFFEID.scheme)\(workload.trustDomain)/ns/\(account.namespace)/sa/\(account.name)"
      return .exact(id)
    }
  }

  /// The ports of all routes together; nil for any port.
  private func ports(
    _ rules: Field, _ namespace: String, _ objects: [KubernetesObject]
  ) throws(Problem) -> Set<UInt16>? {
    var ports: Set<UInt16>? = []
    for rule in try rules.nonEmptyItems() {
      let fields = try rule.fields(["kind", "name", "matches"])
      let kind = try fields.required("kind", in: rule)
      guard try kind.text() == "TCPRoute" else {
        throw kind.problem(
          "\(kind.node.summary) describes no TCP connection; only TCPRoute is imported")
      }
      if let matches = fields.given("matches") {
        throw matches.problem("a TCPRoute has no named matches")
      }
      let name = try fields.required("name", in: rule)
      let text = try name.objectName()
      let route = objects.first {
        $0.group == "specs.smi-spec.io" && $0.kind == "TCPRoute" && $0.name == text
          && $0.namespace == namespace
      }
      guard let route else {
        throw name.problem("no TCPRoute \(namespace)/\(text) in the input")
      }
      if let numbers = try Self.ports(route, at: name) {
        ports?.formUnion(numbers)
      } else {
        ports = nil
      }
    }
    return ports
  }

  /// The ports of a TCPRoute; nil for any port. A problem stands at the reference to it.
  private static func ports(
    _ route: KubernetesObject, at reference: Field
  ) throws(Problem) -> Set<UInt16>? {
    do throws(Problem) {
      let spec = try route.spec(["matches"])
      guard let matches = spec.given("matches"),
        let list = try matches.fields(["name", "ports"]).given("ports")
      else { return nil }
      let ports = Set(try list.items().map { item throws(Problem) in try item.portNumber() })
      return ports.isEmpty ? nil : ports
    } catch {
      throw reference.problem(
        "\(route.title) at \(route.file):\(error.mark.line):\(error.mark.column): \(error.message)")
    }
  }
}

/// A destination or source of a TrafficTarget.
private struct ServiceAccount {
  let name: String
  let namespace: String

  init(
    _ field: Field, extraFields: [String] = [], defaultNamespace: String? = nil
  ) throws(Problem) {
    let fields = try field.fields(["kind", "name", "namespace"] + extraFields)
    let kind = try fields.required("kind", in: field)
    guard try kind.text() == "ServiceAccount" else {
      throw kind.expected("ServiceAccount")
    }
    name = try fields.required("name", in: field).objectName()
    if fields.given("namespace") == nil, let defaultNamespace {
      namespace = defaultNamespace
    } else {
      namespace = try fields.required("namespace", in: field).objectName()
    }
  }
}
