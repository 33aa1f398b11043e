import Configuration
import Net
import Policy
import Testing

@Suite struct `Authorization rules in the configuration` {
  private func rules(_ yaml: String) throws -> [AuthorizationRule] {
    try Sample.parse(Sample.least + "authorization:\n" + yaml).authorization.rules
  }

  @Test func `are taken with every field, in their order`() throws {
    let rules = try rules(
      """
        - name: shop/Web-to_db.1
          action: allow
          principals: [spiffe://demo.mesh/ns/shop/sa/web, "spiffe://demo.mesh/ns/jobs/*", "*/sa/cron"]
          notPrincipals: ["spiffe://demo.mesh/ns/jobs/sa/x"]
          trustDomains: [demo.mesh, "d*", "*.mesh"]
          notTrustDomains: ["*.example"]
          namespaces: [shop, "j*", "*s"]
          notNamespaces: ["*"]
          serviceAccounts: [Web_1, "w*"]
          notServiceAccounts: ["*-old"]
          sources: [10.90.0.0/24, "::1"]
          notSources: [10.90.0.7]
          ports: [3306, 8000-8099]
          notPorts: [8080]
        - { name: everyone, action: deny, audit: true }
        - { name: third, action: allow, audit: false, ports: ["80-81"] }
      """)
    var first = AuthorizationRule(name: "shop/Web-to_db.1", action: .allow)
    first.principals = [
      .exact("spiffe://demo.mesh/ns/shop/sa/web"), .prefix("spiffe://demo.mesh/ns/jobs/"),
      .suffix("/sa/cron"),
    ]
    first.notPrincipals = [.exact("spiffe://demo.mesh/ns/jobs/sa/x")]
    first.trustDomains = [.exact("demo.mesh"), .prefix("d"), .suffix(".mesh")]
    first.notTrustDomains = [.suffix(".example")]
    first.namespaces = [.exact("shop"), .prefix("j"), .suffix("s")]
    first.notNamespaces = [.present]
    first.serviceAccounts = [.exact("Web_1"), .prefix("w")]
    first.notServiceAccounts = [.suffix("-old")]
    first.sources = [try #require(CIDR("10.90.0.0/24")), try #require(CIDR("::1"))]
    first.notSources = [try #require(CIDR("10.90.0.7"))]
    first.ports = PortSet([3306...3306, 8000...8099])
    first.notPorts = PortSet([8080...8080])
    var third = AuthorizationRule(name: "third", action: .allow)
    third.ports = PortSet([80...81])
    #expect(
      rules == [first, AuthorizationRule(name: "everyone", action: .deny, isAudit: true), third])
  }

  @Test(arguments: [
    "principals: [\"*\"]", "principals: [\"spiffe://demo.mesh/*\"]", "principals: [\"*.\"]",
    "principals: [\"spiffe://demo.mesh/ns/.*\"]", "principals: [\"*..\"]", "principals: [\"*/a\"]",
    "principals: [\"*mesh/a\"]", "trustDomains: [\"*\"]", "trustDomains: [\"*h\", \"d*\"]",
    "namespaces: [\"..*\"]", "serviceAccounts: [\"*\", a]", "ports: [1-65535]",
    "sources: [0.0.0.0/0], notSources: [10.0.0.0/8]", "ports: [1-99], notPorts: [80]",
    "trustDomains: [\"*\"], notTrustDomains: [demo.mesh]",
  ])
  func `are taken if something can match them`(field: String) {
    #expect(
      Sample.complaint(Sample.least + "authorization: [ { name: a, action: deny, \(field) } ]")
        == nil)
  }

  @Test func `may be none`() throws {
    #expect(try Sample.parse(Sample.least + "authorization: []").authorization.rules.isEmpty)
  }

  @Test func `ask for a bundle only if the file knows which there are`() throws {
    let yaml = """
      workload: { identity: { workloadAPI: { socket: "unix:///run/a" } } }
      authorization:
        - { name: a, action: deny, principals: ["spiffe://x.mesh/a"], notTrustDomains: [y.mesh] }
      """
    #expect(Sample.complaint(yaml) == nil)
  }

  @Test func `are bounded in number`() throws {
    func text(_ count: Int) -> String {
      Sample.least + "authorization:\n"
        + (0..<count).map { "- { name: r\($0), action: deny }\n" }.joined()
    }
    #expect(
      try Sample.parse(text(Authorization.maximumRules)).authorization.rules.count == 10_000)
    #expect(
      Sample.complaint(text(Authorization.maximumRules + 1))
        == "c.yaml:5:1: authorization: more than 10000 rules")
  }
}

/// Each case is the one rule of a policy, on a line of its own.
@Suite struct `An authorization rule is refused` {
  private func expect(
    _ rule: String, _ complaint: String, _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(
      Sample.complaint(Sample.least + "authorization: [\n  { \(rule) } ]") == "c.yaml:" + complaint,
      sourceLocation: location)
  }

  @Test(arguments: [
    ("name: a", "5:3: authorization[0]: missing field \"action\""),
    ("action: deny", "5:3: authorization[0]: missing field \"name\""),
    (
      "name: a, action: audit",
      "5:22: authorization[0].action: expected allow or deny, found \"audit\""
    ),
    (
      "name: a, action: deny, audit: \"true\"",
      "5:35: authorization[0].audit: expected true or false, found \"true\""
    ),
    (
      "name: a, action: deny, audit: yes",
      "5:35: authorization[0].audit: expected true or false, found \"yes\""
    ),
    (
      "name: a, action: deny, principal: [a]",
      "5:28: unknown field \"authorization[0].principal\"; did you mean \"principals\"?"
    ),
    (
      "name: \"\", action: deny", "5:11: authorization[0].name: must not be empty"
    ),
    (
      "name: a b, action: deny",
      "5:11: authorization[0].name: \"a b\" is not a name of 1 to 128 of the characters"
        + " a-z A-Z 0-9 . _ - /"
    ),
    (
      "name: é, action: deny",
      "5:11: authorization[0].name: \"é\" is not a name of 1 to 128 of the characters"
        + " a-z A-Z 0-9 . _ - /"
    ),
  ])
  func `for what it lacks or calls itself`(rule: String, complaint: String) {
    expect(rule, complaint)
  }

  @Test func `with a name of more than 128 bytes`() {
    let name = String(repeating: "n", count: 128)
    #expect(
      Sample.complaint(Sample.least + "authorization: [ { name: \(name), action: deny } ]") == nil)
    #expect(
      Sample.complaint(Sample.least + "authorization: [ { name: \(name)n, action: deny } ]")?
        .contains("is not a name of 1 to 128") == true)
  }

  @Test func `with the name of another`() {
    #expect(
      Sample.complaint(
        Sample.least
          + "authorization:\n- { name: a, action: deny }\n- { action: allow, name: a }\n")
        == "c.yaml:6:26: authorization[1].name: \"a\" is the name of an earlier rule")
  }

  @Test(
    arguments: AuthorizationField.allCases)
  func `with a list of nothing`(field: AuthorizationField) {
    expect(
      "name: a, action: deny, \(field.rawValue): []",
      "5:\(30 + field.rawValue.count): authorization[0].\(field.rawValue): must not be empty")
  }

  private static let oneStar = "one star may stand at the start or at the end"
  private static let never = "can match no SPIFFE ID:"

  @Test(arguments: [
    ("principals", "\"**\"", oneStar), ("principals", "\"a*b\"", oneStar),
    ("namespaces", "\"*a*\"", oneStar), ("trustDomains", "\"a**\"", oneStar),
    ("serviceAccounts", "\"*a*b\"", oneStar),
    ("principals", "demo.mesh/ns/shop/sa/web", "is not a SPIFFE ID: scheme_not_spiffe"),
    ("notPrincipals", "\"spiffe://demo.mesh\"", "names a trust domain, not a workload"),
    (
      "principals", "\"spiffe://other.mesh/a\"",
      "no bundle in workload.trustBundles for trust domain \"other.mesh\""
    ),
    (
      "principals", "\"spiffe://other.mesh/*\"",
      "no bundle in workload.trustBundles for trust domain \"other.mesh\""
    ),
    (
      "notTrustDomains", "other.mesh",
      "no bundle in workload.trustBundles for trust domain \"other.mesh\""
    ),
    ("principals", "\"demo.mesh/*\"", "\(never) scheme_not_spiffe"),
    ("principals", "\"spiffe://Demo.mesh/*\"", "\(never) invalid_trust_domain"),
    ("principals", "\"spiffe://demo.mesh/a//*\"", "\(never) empty_path_segment"),
    ("principals", "\"spiffe://demo.mesh*\"", "matches other trust domains as well"),
    ("principals", "\"spiffe://*\"", "matches other trust domains as well"),
    ("principals", "\"*/a/\"", "\(never) trailing_slash"),
    ("principals", "\"*a b\"", "\(never) invalid_path_character"),
    ("principals", "\"*/..\"", "\(never) dot_path_segment"),
    ("trustDomains", "Demo.mesh", "is not a trust domain: invalid_trust_domain"),
    ("trustDomains", "\"*.Mesh\"", "\(never) invalid_trust_domain"),
    ("namespaces", "a/b", "\(never) invalid_path_character"),
    ("namespaces", "..", "\(never) dot_path_segment"),
    ("serviceAccounts", "\"a/*\"", "\(never) invalid_path_character"),
    ("serviceAccounts", "\"*é\"", "\(never) invalid_path_character"),
    ("namespaces", "7", "expected a text, found \"7\""),
    ("sources", "10.0.0.1/8", "is not an address or a range"), ("notPorts", "0", "expected a port"),
  ])
  func `with a value that nothing can be`(field: String, value: String, words: String) throws {
    let rule = "name: a, action: deny, \(field): [\(value)]"
    let complaint = try #require(
      Sample.complaint(Sample.least + "authorization: [\n  { \(rule) } ]"))
    let place = "c.yaml:5:\(31 + field.count): authorization[0].\(field)[0]: "
    #expect(complaint.hasPrefix(place) && complaint.contains(words), "\(complaint)")
  }

  @Test(arguments: [
    (
      "principals: [\"*\", \"*/a\", \"*\"]",
      "5:53: authorization[0].principals[2]: \"*\" is in the list already"
    ),
    ("notPorts: [80, 80]", "5:43: authorization[0].notPorts[1]: \"80\" is in the list already"),
    (
      "sources: [10.0.0.1, 10.0.0.1/32]",
      "5:48: authorization[0].sources[1]: \"10.0.0.1/32\" is in the list already"
    ),
    (
      "namespaces: [a, \"b*\"], notNamespaces: [c, \"b*\"]",
      "5:70: authorization[0].notNamespaces[1]: \"b*\" is in namespaces as well"
    ),
    (
      "notSources: [10.0.0.0/8], sources: [10.0.0.0/8]",
      "5:41: authorization[0].notSources[0]: \"10.0.0.0/8\" is in sources as well"
    ),
    (
      "ports: [80-81], notPorts: [\"80-81\"]",
      "5:55: authorization[0].notPorts[0]: \"80-81\" is in ports as well"
    ),
  ])
  func `that says something twice or against itself`(fields: String, complaint: String) {
    expect("name: a, action: deny, \(fields)", complaint)
  }
}
