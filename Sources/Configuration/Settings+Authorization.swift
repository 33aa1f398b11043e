internal import Identity
internal import Net
internal import Policy

extension Authorization {
  /// `trusted` are the trust domains that have a bundle, if the file says which: nobody else's
  /// identity can ever verify.
  init(_ field: Field, trusted: Set<TrustDomain>?) throws(Problem) {
    let items = try field.items()
    guard items.count <= Self.maximumRules else {
      throw field.problem("more than \(Self.maximumRules) rules")
    }
    var rules: [AuthorizationRule] = []
    var names: Set<String> = []
    for item in items {
      rules.append(try AuthorizationRule(item, names: &names, trusted: trusted))
    }
    self.init(rules)
  }
}

extension AuthorizationRule {
  /// - Parameter names: those of earlier rules; this rule's is added.
  fileprivate init(
    _ field: Field, names: inout Set<String>, trusted: Set<TrustDomain>?
  ) throws(Problem) {
    let fields = try field.fields([
      "name", "action", "audit", "principals", "notPrincipals", "trustDomains", "notTrustDomains",
      "namespaces", "notNamespaces", "serviceAccounts", "notServiceAccounts", "sources",
      "notSources", "ports", "notPorts",
    ])
    let name = try fields.required("name", in: field)
    self.init(
      name: try name.ruleName(),
      action: try fields.required("action", in: field).choice(AuthorizationAction.self),
      isAudit: try fields["audit"]?.boolean() ?? false)
    guard names.insert(self.name).inserted else {
      throw name.problem("\(YAMLNode.quote(self.name)) is the name of an earlier rule")
    }
    (principals, notPrincipals) = try fields.contrary(.principals, .notPrincipals) {
      (item: Field) throws(Problem) in try item.principal(trusted: trusted)
    }
    (trustDomains, notTrustDomains) = try fields.contrary(.trustDomains, .notTrustDomains) {
      (item: Field) throws(Problem) in try item.trustDomainPattern(trusted: trusted)
    }
    (namespaces, notNamespaces) = try fields.contrary(.namespaces, .notNamespaces) {
      (item: Field) throws(Problem) in try item.pathSegment()
    }
    (serviceAccounts, notServiceAccounts) = try fields.contrary(
      .serviceAccounts, .notServiceAccounts
    ) { (item: Field) throws(Problem) in try item.pathSegment() }
    (sources, notSources) = try fields.contrary(.sources, .notSources) {
      (item: Field) throws(Problem) in try item.cidr()
    }
    let (ports, notPorts) = try fields.contrary(.ports, .notPorts) {
      (item: Field) throws(Problem) in try item.portRange()
    }
    self.ports = PortSet(ports)
    self.notPorts = PortSet(notPorts)
  }
}

extension [String: Field] {
  /// What a property must be, and what it must not be; empty if the rule does not say.
  fileprivate func contrary<Item: Hashable>(
    _ wanted: AuthorizationField, _ unwanted: AuthorizationField,
    read: (Field) throws(Problem) -> Item
  ) throws(Problem) -> ([Item], [Item]) {
    let (wantedValues, _) = try distinct(wanted, read: read)
    let (unwantedValues, unwantedItems) = try distinct(unwanted, read: read)
    let seen = Set(wantedValues)
    for (value, item) in zip(unwantedValues, unwantedItems) where seen.contains(value) {
      throw item.problem("\(item.node.summary) is in \(wanted.rawValue) as well")
    }
    return (wantedValues, unwantedValues)
  }

  private func distinct<Item: Hashable>(
    _ field: AuthorizationField, read: (Field) throws(Problem) -> Item
  ) throws(Problem) -> (values: [Item], items: [Field]) {
    guard let list = self[field.rawValue] else { return ([], []) }
    let items = try list.nonEmptyItems()
    var values: [Item] = []
    var seen: Set<Item> = []
    for item in items {
      let value = try read(item)
      guard seen.insert(value).inserted else {
        throw item.problem("\(item.node.summary) is in the list already")
      }
      values.append(value)
    }
    return (values, items)
  }
}

// MARK: - Values with a meaning

extension Field {
  private static let ruleNameMaximumBytes = 128

  /// What logs, metrics and tools call the rule.
  fileprivate func ruleName() throws(Problem) -> String {
    let text = try text()
    let allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/".utf8
    guard text.utf8.count <= Self.ruleNameMaximumBytes, text.utf8.allSatisfy(allowed.contains)
    else {
      throw problem(
        "\(YAMLNode.quote(text)) is not a name of 1 to \(Self.ruleNameMaximumBytes) of the"
          + " characters a-z A-Z 0-9 . _ - /")
    }
    return text
  }

  private func pattern() throws(Problem) -> TextPattern {
    let text = try text()
    guard let pattern = TextPattern(text) else {
      throw problem("\(YAMLNode.quote(text)): one star may stand at the start or at the end")
    }
    return pattern
  }

  /// A pattern that the SPIFFE ID of some workload with a bundle can match.
  fileprivate func principal(trusted: Set<TrustDomain>?) throws(Problem) -> TextPattern {
    let pattern = try pattern()
    switch pattern {
    case .exact: _ = try workloadID(trusted: trusted)
    case .prefix(let text):
      let id = try spiffeID(text + "x")
      guard !id.path.isEmpty else {
        throw problem(
          "\(YAMLNode.quote(pattern.description)) matches other trust domains as well:"
            + " end the name with a slash, or use trustDomains")
      }
      try requireBundle(of: id.trustDomain, trusted)
    case .suffix(let text): _ = try spiffeID("spiffe://x/x" + text)
    case .present: break
    }
    return pattern
  }

  fileprivate func trustDomainPattern(trusted: Set<TrustDomain>?) throws(Problem) -> TextPattern {
    let pattern = try pattern()
    switch pattern {
    case .exact: try requireBundle(of: try trustDomain(), trusted)
    case .prefix(let text), .suffix(let text):
      do throws(SPIFFEIDError) { _ = try TrustDomain(text) } catch {
        throw neverMatches(error)
      }
    case .present: break
    }
    return pattern
  }

  /// A pattern that a segment of a SPIFFE ID's path can match.
  fileprivate func pathSegment() throws(Problem) -> TextPattern {
    let pattern = try pattern()
    let example: String
    switch pattern {
    case .exact(let text): example = text
    case .prefix(let text): example = text + "x"
    case .suffix(let text): example = "x" + text
    case .present: return pattern
    }
    let id = try spiffeID("spiffe://x/" + example)
    guard !id.path.dropFirst().contains("/") else { throw neverMatches(.invalidPathCharacter) }
    return pattern
  }

  /// An example of what a pattern would match.
  private func spiffeID(_ example: String) throws(Problem) -> SPIFFEID {
    do throws(SPIFFEIDError) {
      return try SPIFFEID(example)
    } catch {
      throw neverMatches(error)
    }
  }

  private func neverMatches(_ error: SPIFFEIDError) -> Problem {
    problem("\(node.summary) can match no SPIFFE ID: \(error.rawValue)")
  }
}
