import Foundation
import Testing

@Suite struct `An AuthorizationPolicy` {
  /// `spec` of a policy, and the rules it becomes.
  @Test(arguments: [
    // Allow nothing; deny nothing; everything.
    ("{}", ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"]),
    ("{ rules: [] }", ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"]),
    ("", ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"]),
    ("{ action: DENY }", []),
    ("{ rules: [{}] }", ["{ name: \"shop/p\", action: allow }"]),
    ("{ action: DENY, rules: [{}] }", ["{ name: \"shop/p\", action: deny }"]),
    // Selectors.
    ("{ selector: { matchLabels: { app: web } }, action: DENY, rules: [{}] }", []),
    (
      "{ selector: { matchLabels: {} }, action: DENY, rules: [{}] }",
      ["{ name: \"shop/p\", action: deny }"]
    ),
    // A product.
    (
      """
      { rules: [{
        from: [{ source: { namespaces: [a] } }, { source: { namespaces: [b] } }],
        to: [{ operation: { ports: ["1"] } }, { operation: { notPorts: [2, 3] } }] }] }
      """,
      [
        "{ name: \"shop/p/1\", action: allow, namespaces: [\"a\"], ports: [1] }",
        "{ name: \"shop/p/2\", action: allow, namespaces: [\"a\"], notPorts: [2, 3] }",
        "{ name: \"shop/p/3\", action: allow, namespaces: [\"b\"], ports: [1] }",
        "{ name: \"shop/p/4\", action: allow, namespaces: [\"b\"], notPorts: [2, 3] }",
      ]
    ),
    // Every condition, and each narrows the source.
    (
      """
      { rules: [{
        from: [{ source: { principals: ["cluster.local/ns/a/*", "td/ns/b/sa/c"], ipBlocks: [10.0.0.0/8] } }],
        when: [
          { key: source.principal, values: ["cluster.local/ns/a/sa/x", "td/ns/b/*"], notValues: ["*/sa/y"] },
          { key: source.namespace, values: [b, a], notValues: [c] },
          { key: source.ip, values: [10.1.0.0/16, 11.0.0.0/8], notValues: ["fd00::/8"] },
          { key: destination.port, values: ["80", "81"], notValues: ["81"] } ] }] }
      """,
      [
        "{ name: \"shop/p\", action: allow, principals: [\"spiffe://cluster.local/ns/a/sa/x\", "
          + "\"spiffe://td/ns/b/sa/c\"], notPrincipals: [\"*/sa/y\"], "
          + "namespaces: [\"b\", \"a\"], notNamespaces: [\"c\"], sources: [\"10.1.0.0/16\"], "
          + "notSources: [\"fd00::/8\"], ports: [80] }"
      ]
    ),
    // Service accounts, in whatever trust domain, without a namespace in the policy's own.
    (
      """
      { rules: [{ from: [{ source: {
        serviceAccounts: [web, other/web], notServiceAccounts: [x/y], trustDomains: [td], notTrustDomains: ["a*"] } }] }] }
      """,
      [
        "{ name: \"shop/p\", action: allow, principals: [\"*/ns/shop/sa/web\", \"*/ns/other/sa/web\"], "
          + "notPrincipals: [\"*/ns/x/sa/y\"], trustDomains: [\"td\"], notTrustDomains: [\"a*\"] }"
      ]
    ),
    // What cannot match is left out; of an ALLOW the default deny stays.
    (
      "{ action: DENY, rules: [{ to: [{ operation: { ports: [1], notPorts: [1] } }] }, {}] }",
      ["{ name: \"shop/p\", action: deny }"]
    ),
    (
      "{ rules: [{ from: [{ source: { namespaces: [a], notNamespaces: [a] } }] }] }",
      ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"]
    ),
    (
      "{ rules: [{ from: [{ source: { ipBlocks: [10.0.0.1], notIpBlocks: [10.0.0.1] } }] }] }",
      ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"]
    ),
    (
      "{ rules: [{ from: [{ source: { ipBlocks: [10.0.0.1] } }], when: [{ key: source.ip, values: [10.0.0.2] }] }] }",
      ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"]
    ),
    // A value twice.
    (
      "{ rules: [{ from: [{ source: { namespaces: [a, a], ipBlocks: [10.0.0.1, 10.0.0.1/32] } }] }] }",
      ["{ name: \"shop/p\", action: allow, namespaces: [\"a\"], sources: [\"10.0.0.1/32\"] }"]
    ),
    // AUDIT.
    (
      "{ action: AUDIT, rules: [{ to: [{ operation: { ports: [1] } }] }] }",
      ["{ name: \"shop/p\", action: deny, audit: true, ports: [1] }"]
    ),
  ])
  func `becomes rules`(spec: String, expected: [String]) throws {
    let outcome = try imported(authorizationPolicy(spec))
    #expect(outcome.error == "")
    #expect(outcome.status == 0)
    #expect(importedRules(outcome) == expected)
  }

  @Test func `in dry-run audits`() throws {
    let annotations = #"{ "istio.io/dry-run": "true" }"#
    #expect(
      importedRules(
        try imported(authorizationPolicy("{ action: DENY, rules: [{}] }", annotations: annotations))
      )
        == ["{ name: \"shop/p\", action: deny, audit: true }"])
    #expect(
      importedRules(try imported(authorizationPolicy("{}", annotations: annotations)))
        == ["{ name: \"shop/p\", action: allow, audit: true, \(matchesNothing) }"])
    let off = #"{ "istio.io/dry-run": "false" }"#
    #expect(
      importedRules(try imported(authorizationPolicy("{ rules: [{}] }", annotations: off)))
        == ["{ name: \"shop/p\", action: allow }"])
    #expect(
      try imported(authorizationPolicy("{}", annotations: "{ istio.io/dry-run: maybe }")).error
        .contains("expected \"true\" or \"false\""))
  }

  @Test func `holds for namespaces and the whole mesh`() throws {
    for (namespace, isExpected) in [("shop", true), ("istio-system", true), ("other", false)] {
      let outcome = try imported(authorizationPolicy("{ rules: [{}] }", namespace: namespace))
      #expect(importedRules(outcome).count == (isExpected ? 1 : 0), "\(namespace)")
    }
    let other = ["--namespace", "shop", "--root-namespace", "other"]
    #expect(
      importedRules(try imported(authorizationPolicy("{}", namespace: "other"), options: other))
        .count == 1)
    #expect(
      importedRules(
        try imported(authorizationPolicy("{}", namespace: "istio-system"), options: other)
      ).isEmpty)
  }

  @Test func `names the mesh's trust domain cluster.local`() throws {
    func principal(_ text: String) throws -> Outcome {
      try imported(
        authorizationPolicy("{ rules: [{ from: [{ source: { principals: [\"\(text)\"] } }] }] }"),
        options: ["--namespace", "shop", "--trust-domain", "demo.mesh"])
    }
    for (text, expected) in [
      ("cluster.local/ns/a/sa/b", "spiffe://demo.mesh/ns/a/sa/b"),
      ("cluster.local/ns/a/sa/*", "spiffe://demo.mesh/ns/a/sa/*"),
      ("demo.mesh/ns/a/*", "spiffe://demo.mesh/ns/a/*"),
      ("partner/ns/a/sa/b", "spiffe://partner/ns/a/sa/b"), ("*", "*"),
    ] {
      let outcome = try principal(text)
      #expect(outcome.output.contains("principals: [\"\(expected)\"]"), "\(outcome)")
    }
    #expect(try principal("cluster.local/ns/a/*").error.contains("write demo.mesh"))
  }

  @Test func `says where Istio lets in clients without an identity`() throws {
    func isSaid(_ source: String, _ action: String = "ALLOW") throws -> Bool {
      let outcome = try imported(
        authorizationPolicy("{ action: \(action), rules: [{ from: [{ source: \(source) }] }] }"))
      #expect(outcome.status == 0)
      return outcome.output.contains("clients without an identity do not match")
    }
    #expect(try isSaid("{ notNamespaces: [a] }"))
    #expect(try !isSaid("{ notNamespaces: [a], principals: [\"*\"] }"))
    #expect(try !isSaid("{ namespaces: [a] }"))
    #expect(try !isSaid("{ notNamespaces: [a] }", "DENY"))
  }
}
