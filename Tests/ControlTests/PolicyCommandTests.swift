import Foundation
import Testing

@testable import culvert

/// A workload's configuration; the files it names do not exist, and need not.
private final class Policy {
  let directory: TemporaryDirectory

  init(_ authorization: String, inbound: String = "{ mode: permissive }") throws {
    directory = try TemporaryDirectory()
    try """
    workload:
      identity: { files: { certificate: a, privateKey: b } }
      trustBundles: [ { trustDomain: demo.mesh, pem: c } ]
    inbound: \(inbound)
    authorization:
    \(authorization)

    """.write(toFile: directory.file("db.yaml"), atomically: true, encoding: .utf8)
  }

  func test(_ from: String, _ to: String, _ more: String...) throws -> Outcome {
    try Tool.run(
      ["policy", "test", "--config", directory.file("db.yaml"), "--from", from, "--to", to] + more)
  }
}

@Suite struct `culvert policy test` {
  private static let web = "spiffe://demo.mesh/ns/shop/sa/web"
  private static let rules = """
      - { name: web-to-db, action: allow, principals: ["\(web)"], ports: [3306] }
      - { name: metrics, action: allow, sources: [10.90.0.0/24], ports: [9104] }
      - { name: no-batch, action: deny, serviceAccounts: ["*-batch"] }
      - { name: mtls, action: deny, audit: true, notPrincipals: ["*"] }
    """

  @Test func `shows every rule, then what comes of them`() throws {
    let policy = try Policy(Self.rules, inbound: "{ ports: { 3306: strict } }")
    let outcome = try policy.test(Self.web, "10.90.0.2:3306", "--source", "10.90.0.1")
    #expect(outcome.error == "")
    #expect(outcome.status == 0)
    #expect(
      outcome.output == """
        web-to-db  allow: matches
        metrics    allow: ports does not hold
        no-batch   deny: serviceAccounts does not hold
        mtls       deny, audit: notPrincipals does not hold

        from     \(Self.web) at 10.90.0.1
        to       10.90.0.2:3306
        mode     strict: plaintext is refused
        verdict  allowed: allowed_by_rule web-to-db

        """)
  }

  @Test(
    arguments: [
      (web, "10.90.0.2:3306", "10.90.1.1", "allowed_by_rule", "web-to-db"),
      (web, "10.90.0.2:9104", "10.90.1.1", "not_allowed_by_policy", nil),
      (web + "-batch", "[fd00::2]:9104", "10.90.0.1", "denied_by_policy", "no-batch"),
      ("none", "10.90.0.2:9104", "10.90.0.1", "allowed_by_rule", "metrics"),
      ("none", "10.90.0.2:22", "10.90.0.1", "not_allowed_by_policy", nil),
      ("none", "10.90.0.2:3306", "10.90.0.1", "plaintext_in_strict", nil),
      ("spiffe://stranger.mesh/a", "10.90.0.2:9104", "10.90.0.1", "unknown_trust_domain", nil),
    ] as [(String, String, String, String, String?)])
  func `gives the verdict as a word, in both forms`(
    from: String, to: String, source: String, verdict: String, rule: String?
  ) throws {
    let policy = try Policy(Self.rules, inbound: "{ ports: { 3306: strict } }")
    let isAllowed = verdict.hasPrefix("allowed")
    let text = try policy.test(from, to, "--source", source)
    #expect(text.status == (isAllowed ? 0 : 1))
    let line =
      "\nverdict  \(isAllowed ? "allowed" : "refused"): \(verdict)"
      + (rule.map { " \($0)" } ?? "") + "\n"
    #expect(text.output.contains(line), "\(text.output)")

    let json = try policy.test(from, to, "--source", source, "--json")
    #expect(json.status == text.status)
    #expect(json.output.count { $0 == "\n" } == 1)
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
    #expect(object["allowed"] as? Bool == isAllowed)
    #expect(object["verdict"] as? String == verdict)
    #expect(object["rule"] as? String == rule)
    #expect(object["from"] as? String == (from == "none" ? nil : from))
    #expect(object["to"] as? String == to)
    #expect(object["source"] as? String == source)
    #expect(object["mode"] as? String == (to.hasSuffix(":3306") ? "strict" : "permissive"))
    #expect(object["plaintext"] as? Bool == !to.hasSuffix(":3306"))
    let rules = try #require(object["rules"] as? [[String: Any]])
    #expect(rules.map { $0["name"] as? String } == ["web-to-db", "metrics", "no-batch", "mtls"])
    #expect(rules.map { $0["audit"] as? Bool } == [false, false, false, true])
    for shown in rules {
      #expect((shown["matches"] as? Bool == true) == (shown["unmet"] == nil))
    }
  }

  @Test func `says what an audit rule would have done`() throws {
    let policy = try Policy(Self.rules)
    let outcome = try policy.test("none", "10.90.0.2:9104", "--source", "10.90.0.1")
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("\nmtls       deny, audit: matches\n"), "\(outcome.output)")
    #expect(
      outcome.output.hasSuffix(
        """
        from     no identity at 10.90.0.1
        to       10.90.0.2:9104
        mode     permissive: plaintext is served
        verdict  allowed: allowed_by_rule metrics
        audit    if all rules counted: refused: denied_by_policy mtls

        """), "\(outcome.output)")
  }

  @Test func `works without rules`() throws {
    let outcome = try Policy("  []").test("none", "10.90.0.2:80")
    #expect(outcome.status == 0)
    #expect(outcome.output.hasPrefix("no rules\n\nfrom     no identity\n"), "\(outcome.output)")
    #expect(outcome.output.hasSuffix("verdict  allowed: allowed_without_rule\n"))
  }

  @Test func `asks for the source only where a rule looks at it`() throws {
    let looks = try Policy(Self.rules).test(Self.web, "10.90.0.2:3306")
    #expect(looks.status == 2)
    #expect(looks.output == "")
    #expect(looks.error == "culvert: --source is needed: the rule metrics looks at it\n")
    let policy = try Policy("  - { name: a, action: allow, ports: [80] }")
    #expect(try policy.test(Self.web, "10.90.0.2:80").status == 0)
    #expect(try policy.test(Self.web, "10.90.0.2:81").status == 1)
  }

  @Test(arguments: [
    ("web", "10.90.0.2:80", "10.90.0.1", "--from: neither \"none\" nor a SPIFFE ID"),
    ("spiffe://demo.mesh", "10.90.0.2:80", "10.90.0.1", "--from: names a trust domain"),
    (web, "10.90.0.2", "10.90.0.1", "--to: expected ADDRESS:PORT"),
    (web, "10.90.0.2:0", "10.90.0.1", "--to: expected ADDRESS:PORT"),
    (web, "10.90.0.2:80", "10.90.0.1/32", "--source: not an IP address"),
  ])
  func `refuses what is no connection`(
    from: String, to: String, source: String, words: String
  ) throws {
    let outcome = try Policy(Self.rules).test(from, to, "--source", source)
    #expect(outcome.status == 2)
    #expect(outcome.output == "")
    #expect(outcome.error.hasPrefix("culvert: \(words)"), "\(outcome.error)")
    #expect(outcome.error.count { $0 == "\n" } == 1)
  }

  @Test func `says where a configuration is wrong`() throws {
    let policy = try Policy("  - { name: a, action: alow }")
    let outcome = try policy.test(Self.web, "10.90.0.2:80")
    #expect(outcome.status == 2)
    #expect(
      outcome.error
        == "culvert: \(policy.directory.file("db.yaml")):6:24: authorization[0].action: expected"
        + " allow or deny, found \"alow\"\n")
    let gone = try Tool.run(
      "policy", "test", "--config", "/nonexistent", "--from", "none", "--to", "10.0.0.1:80")
    #expect(gone.status == 2)
    #expect(gone.error == "culvert: /nonexistent: cannot be read: No such file or directory\n")
  }

  @Test func `shows examples in its help`() throws {
    let help = try Tool.run("policy", "test", "--help")
    #expect(help.status == 0)
    #expect(help.output.contains("EXAMPLES") && help.output.contains("--from none"))
    #expect(try Tool.run("policy", "test", "--from", "none").status == 64)
  }

  /// The table below the worked example in Docs/CONFIGURATION.md.
  @Test(arguments: [
    (web, 3306, "10.90.0.1", "allowed_by_rule web-to-db"),
    (web, 9104, "10.90.0.1", "not_allowed_by_policy"),
    (
      "spiffe://demo.mesh/ns/monitoring/sa/scrape", 9104, "10.90.0.1",
      "allowed_by_rule monitoring"
    ),
    (
      "spiffe://demo.mesh/ns/monitoring/sa/nightly-batch", 9104, "10.90.0.1",
      "denied_by_policy no-batch"
    ),
    ("none", 9105, "10.90.0.20", "allowed_by_rule old-backup"),
    ("none", 3306, "10.90.0.20", "plaintext_in_strict"),
  ])
  func `bears out the documented example`(
    from: String, port: Int, source: String, verdict: String
  ) throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let document = try String(
      contentsOf: root.appending(path: "Docs/CONFIGURATION.md"), encoding: .utf8)
    let example = try #require(
      document.components(separatedBy: "```yaml\n").map { $0.components(separatedBy: "```")[0] }
        .first { $0.contains("\nauthorization:") })
    let directory = try TemporaryDirectory()
    try example.write(toFile: directory.file("c.yaml"), atomically: true, encoding: .utf8)
    let outcome = try Tool.run(
      "policy", "test", "--config", directory.file("c.yaml"), "--from", from, "--source", source,
      "--to", "10.90.0.2:\(port)")
    #expect(outcome.output.contains(": \(verdict)\n"), "\(outcome.output)\(outcome.error)")
    #expect(
      outcome.output.contains(
        "\naudit    if all rules counted: refused: denied_by_policy mtls-everywhere")
        == (port == 9105))
  }
}
