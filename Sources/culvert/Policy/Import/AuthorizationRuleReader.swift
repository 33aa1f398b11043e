internal import Configuration
internal import Identity
internal import Net
internal import Policy

/// Reads one item of an AuthorizationPolicy's `rules`.
///
/// Istio's values and ours mean the same where they are written the same; what differs is said at
/// each function. Source: istio.io/latest/docs/reference/config/security/authorization-policy and
/// …/conditions.
struct AuthorizationRuleReader {
  /// Of values in one list.
  static let valuesMaximum = 1000

  private static let localDomain = "cluster.local"

  /// A service account without a namespace is of the policy's own.
  let policyNamespace: String
  let trustDomain: TrustDomain

  /// Any of `from`, any of `to` and all of `when`: one value for each pair of `from` and `to`.
  func conditions(_ rule: Field) throws(Problem) -> [RuleConditions] {
    let fields = try rule.fields(["from", "to", "when"])
    var common = RuleConditions()
    for item in try fields.given("when")?.nonEmptyItems() ?? [] {
      common = try both(common, try condition(item), at: item)
    }
    var sources: [(Field, RuleConditions)] = []
    for item in try fields.given("from")?.nonEmptyItems() ?? [] {
      sources.append((item, try source(item)))
    }
    var operations: [(Field, RuleConditions)] = []
    for item in try fields.given("to")?.nonEmptyItems() ?? [] {
      operations.append((item, try operation(item)))
    }
    if sources.isEmpty { sources = [(rule, RuleConditions())] }
    if operations.isEmpty { operations = [(rule, RuleConditions())] }
    let (count, overflow) = sources.count.multipliedReportingOverflow(by: operations.count)
    guard !overflow, count <= PolicyImport.rulesMaximum else {
      throw rule.problem("more than \(PolicyImport.rulesMaximum) pairs of from and to")
    }
    var conditions: [RuleConditions] = []
    for (place, source) in sources {
      let limited = try both(common, source, at: place)
      for (place, operation) in operations {
        conditions.append(try both(limited, operation, at: place))
      }
    }
    return conditions
  }

  private func both(
    _ left: RuleConditions, _ right: RuleConditions, at place: Field
  ) throws(Problem) -> RuleConditions {
    do throws(TextPattern.Inexpressible) {
      return try left.and(right)
    } catch {
      throw place.problem("a prefix and a suffix must both match here; Culvert has no such pattern")
    }
  }
}

// MARK: - from, to, when

extension AuthorizationRuleReader {
  /// Fields of a request, which a connection does not have.
  private static let requestSources = [
    "requestPrincipals", "notRequestPrincipals", "remoteIpBlocks", "notRemoteIpBlocks",
  ]
  private static let requestOperations = [
    "hosts", "notHosts", "methods", "notMethods", "paths", "notPaths",
  ]

  private func source(_ item: Field) throws(Problem) -> RuleConditions {
    let source = try item.fields(["source"]).required("source", in: item)
    let known = [
      "principals", "notPrincipals", "namespaces", "notNamespaces", "serviceAccounts",
      "notServiceAccounts", "trustDomains", "notTrustDomains", "ipBlocks", "notIpBlocks",
    ]
    let fields = try source.fields(known + Self.requestSources)
    try refuseRequest(Self.requestSources, fields)
    guard !fields.isEmpty else { throw source.problem("must not be empty") }
    var conditions = try self.conditions(
      at: source,
      [
        (.principal, fields["principals"], fields["notPrincipals"]),
        (.serviceAccount, fields["serviceAccounts"], fields["notServiceAccounts"]),
        (.namespace, fields["namespaces"], fields["notNamespaces"]),
        (.address, fields["ipBlocks"], fields["notIpBlocks"]),
      ])
    if let list = fields["trustDomains"] { conditions.set(.trustDomains, try trustDomains(list)) }
    if let list = fields["notTrustDomains"] {
      conditions.exclude(.trustDomains, try trustDomains(list))
    }
    return conditions
  }

  private func operation(_ item: Field) throws(Problem) -> RuleConditions {
    let operation = try item.fields(["operation"]).required("operation", in: item)
    let fields = try operation.fields(["ports", "notPorts"] + Self.requestOperations)
    try refuseRequest(Self.requestOperations, fields)
    guard !fields.isEmpty else { throw operation.problem("must not be empty") }
    return try conditions(at: operation, [(.port, fields["ports"], fields["notPorts"])])
  }

  private func condition(_ item: Field) throws(Problem) -> RuleConditions {
    let fields = try item.fields(["key", "values", "notValues"])
    let key = try fields.required("key", in: item)
    let name = try key.text()
    guard let kind = ValueKind(rawValue: name) else {
      throw key.problem(
        "\(YAMLNode.quote(name)) is not imported; known are "
          + ValueKind.allCases.map(\.rawValue).joined(separator: ", "))
    }
    guard fields["values"] != nil || fields["notValues"] != nil else {
      throw item.problem("values or notValues must be given")
    }
    return try conditions(at: item, [(kind, fields["values"], fields["notValues"])])
  }

  private func refuseRequest(_ names: [String], _ fields: [String: Field]) throws(Problem) {
    guard let field = names.compactMap({ fields[$0] }).first else { return }
    throw field.problem("belongs to requests; Culvert decides on connections")
  }
}

// MARK: - Values

extension AuthorizationRuleReader {
  /// What values are about; the raw value is the key of a condition.
  private enum ValueKind: String, CaseIterable {
    case address = "source.ip"
    case namespace = "source.namespace"
    case principal = "source.principal"
    case serviceAccount = "source.serviceAccount"
    case port = "destination.port"
  }

  private func conditions(
    at place: Field, _ lists: [(kind: ValueKind, positive: Field?, negative: Field?)]
  ) throws(Problem) -> RuleConditions {
    var conditions = RuleConditions()
    for (kind, positive, negative) in lists {
      if let positive {
        conditions = try both(conditions, try read(positive, kind, isNegative: false), at: place)
      }
      if let negative {
        conditions = try both(conditions, try read(negative, kind, isNegative: true), at: place)
      }
    }
    return conditions
  }

  private func read(
    _ list: Field, _ kind: ValueKind, isNegative: Bool
  ) throws(Problem) -> RuleConditions {
    let items = try items(list)
    switch kind {
    case .address:
      return RuleConditions(
        sources: try items.map { item throws(Problem) in try item.block() }, isNegative)
    case .port:
      return RuleConditions(
        ports: Set(try items.map { item throws(Problem) in try item.portNumber() }), isNegative)
    case .principal:
      return RuleConditions(
        .principals, try items.map { item throws(Problem) in try principal(item) }, isNegative)
    case .serviceAccount:
      return RuleConditions(
        .principals, try items.map { item throws(Problem) in try serviceAccount(item) }, isNegative)
    case .namespace:
      return RuleConditions(
        .namespaces, try items.map { item throws(Problem) in try item.namespace() }, isNegative)
    }
  }

  private func items(_ list: Field) throws(Problem) -> [Field] {
    let items = try list.nonEmptyItems()
    guard items.count <= Self.valuesMaximum else {
      throw list.problem("more than \(Self.valuesMaximum) values")
    }
    return items
  }

  private func trustDomains(_ list: Field) throws(Problem) -> [TextPattern] {
    try items(list).map { item throws(Problem) in try item.trustDomainPattern() }
  }

  /// A SPIFFE ID without `spiffe://`. In a whole one, `cluster.local` is whatever the mesh's trust
  /// domain is (pilot/pkg/security/trustdomain).
  private func principal(_ field: Field) throws(Problem) -> TextPattern {
    switch try field.pattern() {
    case .present: return .present
    case .exact(let text):
      return .exact(try field.workloadID(SPIFFEID.scheme + (try resolved(text, field))))
    case .prefix(let text):
      let prefix = SPIFFEID.scheme + (try resolved(text, field))
      // Anything may follow, a letter at least.
      _ = try field.workloadID(prefix + "x")
      return .prefix(prefix)
    case .suffix(let text):
      _ = try field.workloadID("\(SPIFFEID.scheme)x/x\(text)")
      // Ours is compared with the whole ID, Istio's with what follows `spiffe://`: of
      // `*/demo.mesh/…` ours would match what Istio's does not.
      let domains = [trustDomain.name, Self.localDomain]
      guard !domains.contains(where: { text.hasPrefix("/\($0)/") }) else {
        throw field.problem("\(YAMLNode.quote("*" + text)) matches nobody in Istio")
      }
      return .suffix(text)
    }
  }

  private func resolved(_ text: String, _ field: Field) throws(Problem) -> String {
    let local = Self.localDomain + "/"
    guard text.hasPrefix(local), trustDomain.name != Self.localDomain else { return text }
    // Istio takes it literally elsewhere, and nobody has it.
    guard text.split(separator: "/", omittingEmptySubsequences: false).count == 5 else {
      throw field.problem(
        "Istio replaces cluster.local by the mesh's trust domain in TD/ns/NAMESPACE/sa/NAME only;"
          + " write \(trustDomain.name)")
    }
    return trustDomain.name + "/" + text.dropFirst(local.count)
  }

  /// `NAMESPACE/NAME` or `NAME`, in whatever trust domain.
  private func serviceAccount(_ field: Field) throws(Problem) -> TextPattern {
    let text = try field.text()
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), parts.allSatisfy({ !$0.isEmpty }),
      text.utf8.allSatisfy(Field.isPlain)
    else { throw field.expected("NAMESPACE/NAME or NAME, without stars") }
    let namespace = parts.count == 2 ? String(parts[0]) : policyNamespace
    return .suffix("/ns/\(namespace)/sa/\(parts[parts.count - 1])")
  }
}

extension Field {
  /// Checks that an ID is one of a workload.
  fileprivate func workloadID(_ text: String) throws(Problem) -> String {
    let id: SPIFFEID
    do throws(SPIFFEIDError) {
      id = try SPIFFEID(text)
    } catch {
      throw problem("\(YAMLNode.quote(text)) is not a SPIFFE ID: \(error.rawValue)")
    }
    guard !id.path.isEmpty else {
      throw problem("\(YAMLNode.quote(text)) names a trust domain, not a workload")
    }
    return text
  }

  /// A pattern for the namespace in an ID of the form `TD/ns/NAMESPACE/sa/NAME`.
  fileprivate func namespace() throws(Problem) -> TextPattern {
    let pattern = try pattern()
    let example = pattern.example
    guard !example.contains("/") else { throw expected("a namespace") }
    _ = try workloadID("\(SPIFFEID.scheme)x/\(example)")
    return pattern
  }

  fileprivate func trustDomainPattern() throws(Problem) -> TextPattern {
    let pattern = try pattern()
    do throws(SPIFFEIDError) {
      _ = try TrustDomain(pattern.example)
    } catch {
      throw problem("\(node.summary) is not a trust domain: \(error.rawValue)")
    }
    return pattern
  }

  /// Exact, `x*`, `*x` or `*`.
  fileprivate func pattern() throws(Problem) -> TextPattern {
    let text = try text()
    guard let pattern = TextPattern(text),
      text.utf8.allSatisfy({ Self.isPlain($0) || $0 == UInt8(ascii: "*") })
    else {
      throw problem(
        "\(YAMLNode.quote(text)) is not a text of letters, digits and ._-/ with at most one star,"
          + " at one end")
    }
    return pattern
  }

  /// A port, which Istio writes as a text.
  func portNumber() throws(Problem) -> UInt16 {
    guard case .scalar(let text, _) = node.content,
      let port = Self.decimal(text[...]).flatMap(UInt16.init(exactly:)), port > 0
    else { throw expected("a port from 1 to 65535") }
    return port
  }

  /// An address or a range; Istio ignores bits beyond the prefix.
  fileprivate func block() throws(Problem) -> CIDR {
    let text = try text()
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = IPAddress(String(parts[0])) else { throw expected("an address or a range") }
    guard parts.count == 2 else { return CIDR(address) }
    let family = address.family
    guard let length = Self.decimal(parts[1]), (0...family.bitCount).contains(length) else {
      throw expected("an address or a range")
    }
    let bits = address.bits & CIDR.mask(family, length)
    let masked =
      family == .v4 ? IPAddress(v4: UInt32(truncatingIfNeeded: bits)) : IPAddress(v6: bits)
    guard let range = CIDR(masked, prefixLength: length) else {
      throw expected("an address or a range")
    }
    return range
  }
}

extension RuleConditions {
  fileprivate init(_ field: Text, _ patterns: [TextPattern], _ isNegative: Bool) {
    self.init()
    // There is nothing yet that could contradict.
    if isNegative { exclude(field, patterns) } else { set(field, patterns) }
  }

  fileprivate init(sources: [CIDR], _ isNegative: Bool) {
    self.init()
    if isNegative { exclude(sources: sources) } else { require(sources: sources) }
  }

  fileprivate init(ports: Set<UInt16>, _ isNegative: Bool) {
    self.init()
    if isNegative { exclude(ports: ports) } else { require(ports: ports) }
  }
}
