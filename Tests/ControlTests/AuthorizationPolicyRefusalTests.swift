import Foundation
import Testing

@Suite struct `What an AuthorizationPolicy cannot say here` {
  /// One `source`, `operation` or condition that is refused, and the words for it.
  @Test(arguments: [
    (
      "from", "source: { requestPrincipals: [\"*\"] }",
      "source.requestPrincipals: belongs to requests"
    ),
    ("from", "source: { notRequestPrincipals: [a] }", "source.notRequestPrincipals: belongs to"),
    ("from", "source: { remoteIpBlocks: [10.0.0.1] }", "source.remoteIpBlocks: belongs to"),
    ("from", "source: { notRemoteIpBlocks: [10.0.0.1] }", "source.notRemoteIpBlocks: belongs to"),
    ("from", "source: { principal: [a] }", "unknown field"),
    ("from", "source: {}", "from[0].source: must not be empty"),
    ("from", "source: { principals: [] }", "source.principals: must not be empty"),
    ("from", "sources: {}", "unknown field"),
    ("from", "source: { principals: [spiffe://a/b] }", "is not a text of letters"),
    ("from", "source: { principals: [a] }", "names a trust domain, not a workload"),
    ("from", "source: { principals: [\"a*\"] }", "names a trust domain, not a workload"),
    ("from", "source: { principals: [\"a/b*c\"] }", "at most one star"),
    ("from", "source: { principals: [\"*b*\"] }", "at most one star"),
    ("from", "source: { principals: [\"**\"] }", "at most one star"),
    ("from", "source: { principals: [A/b] }", "invalid_trust_domain"),
    ("from", "source: { principals: [\"a/b//*\"] }", "empty_path_segment"),
    ("from", "source: { principals: [\"*/cluster.local/ns/a/sa/b\"] }", "matches nobody in Istio"),
    ("from", "source: { namespaces: [a/b] }", "expected a namespace"),
    ("from", "source: { trustDomains: [A] }", "is not a trust domain"),
    ("from", "source: { serviceAccounts: [\"a/*\"] }", "without stars"),
    ("from", "source: { serviceAccounts: [a/b/c] }", "NAMESPACE/NAME or NAME"),
    ("from", "source: { ipBlocks: [10.0.0.0/33] }", "expected an address or a range"),
    ("from", "source: { ipBlocks: [web] }", "expected an address or a range"),
    (
      "from", "source: { principals: [\"a/b*\"], serviceAccounts: [c] }",
      "a prefix and a suffix must both match"
    ),
    ("to", "operation: { hosts: [a] }", "operation.hosts: belongs to requests"),
    ("to", "operation: { notHosts: [a] }", "operation.notHosts: belongs to"),
    ("to", "operation: { paths: [/a] }", "to[0].operation.paths: belongs to"),
    ("to", "operation: { notPaths: [/a] }", "operation.notPaths: belongs to"),
    ("to", "operation: { methods: [GET] }", "operation.methods: belongs to"),
    ("to", "operation: { notMethods: [GET], ports: [1] }", "operation.notMethods: belongs to"),
    ("to", "operation: { ports: [\"0\"] }", "expected a port from 1 to 65535"),
    ("to", "operation: { ports: [\"80-81\"] }", "expected a port from 1 to 65535"),
    ("to", "operation: {}", "to[0].operation: must not be empty"),
    (
      "when", "{ key: \"request.headers[a]\", values: [b] }",
      "\"request.headers[a]\" is not imported"
    ),
    ("when", "{ key: destination.ip, values: [10.0.0.1] }", "\"destination.ip\" is not imported"),
    ("when", "{ key: connection.sni, values: [a] }", "\"connection.sni\" is not imported"),
    ("when", "{ key: source.ip }", "values or notValues must be given"),
    ("when", "{ key: source.ip, values: [] }", "when[0].values: must not be empty"),
  ])
  func `is refused by name`(place: String, item: String, words: String) throws {
    let flow = item.hasPrefix("{") ? item : "{ \(item) }"
    func outcome(_ action: String, _ flags: [String] = []) throws -> Outcome {
      try imported(
        authorizationPolicy(
          """

            action: \(action)
            rules:
            - to: [{ operation: { ports: [1] } }]
            - \(place):
              - \(flow)
          """),
        options: ["--namespace", "shop"] + flags)
    }
    for action in ["ALLOW", "DENY", "AUDIT"] {
      let outcome = try outcome(action)
      #expect(outcome.status == 1)
      #expect(outcome.output == "")
      #expect(
        outcome.error.hasPrefix("culvert: 1.yaml:") && outcome.error.contains(words)
          && outcome.error.contains(": AuthorizationPolicy shop/p: ")
          && outcome.error.contains("spec.rules[1]"), "\(outcome.error)")
      #expect(outcome.error.count { $0 == "\n" } == 1)
    }
    let allow = try outcome("ALLOW", ["--skip-unsupported"])
    #expect(allow.status == 0)
    #expect(importedRules(allow) == ["{ name: \"shop/p\", action: allow, ports: [1] }"])
    #expect(allow.output.contains("# not imported: 1.yaml:"))
    #expect(allow.error.contains("; what it allows is refused\n"))
    #expect(allow.error.contains("the result is incomplete: 1 not imported"))
    let deny = try outcome("DENY", ["--skip-unsupported"])
    #expect(deny.status == 1)
    #expect(deny.output == "")
    #expect(deny.error.contains(words))
  }

  @Test func `keeps the default deny when its only rule is left out`() throws {
    let outcome = try imported(
      authorizationPolicy("{ rules: [{ to: [{ operation: { paths: [/a] } }] }] }"),
      options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(outcome.status == 0)
    #expect(importedRules(outcome) == ["{ name: \"shop/p\", action: allow, \(matchesNothing) }"])
  }

  /// What concerns a whole policy. `isSkippable` with --skip-unsupported.
  @Test(arguments: [
    (
      "{ action: CUSTOM, provider: { name: x }, rules: [{}] }", "asks an external authorizer", false
    ),
    ("{ action: LOG }", "spec.action: expected ALLOW, DENY, AUDIT or CUSTOM", false),
    ("{ selektor: {} }", "unknown field \"spec.selektor\"", false),
    ("{ selector: { matchExpressions: [] } }", "unknown field", false),
    ("{ selector: { matchLabels: { app: \"*\" } } }", "expected a label's value", false),
    ("{ targetRefs: [{ kind: Gateway, name: g }] }", "names gateways or services", true),
    ("{ targetRef: { kind: Gateway, name: g }, action: DENY }", "names gateways", false),
    ("{ rules: [1] }", "spec.rules[0]: expected a mapping", true),
    ("{ rules: 1 }", "spec.rules: expected a list", false),
    ("{ rules: [{ from: [] }] }", "spec.rules[0].from: must not be empty", true),
    ("{ rules: [{ froms: [] }] }", "unknown field \"spec.rules[0].froms\"", true),
  ])
  func `is refused as a whole`(spec: String, words: String, isSkippable: Bool) throws {
    let options = ["--namespace", "shop", "--labels", "app=db"]
    let outcome = try imported(authorizationPolicy(spec), options: options)
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(outcome.error.contains(words), "\(outcome.error)")
    let skipping = try imported(
      authorizationPolicy(spec), options: options + ["--skip-unsupported"])
    #expect(skipping.status == (isSkippable ? 0 : 1))
    #expect(skipping.output.contains("# not imported") == isSkippable)
  }

  @Test func `with a selector needs the workload's labels`() throws {
    let text = authorizationPolicy("{ selector: { matchLabels: { app: db } }, rules: [{}] }")
    let outcome = try imported(text, options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("--labels of the workload are needed"))
    let none = try imported(text, options: ["--namespace", "shop", "--labels", ""])
    #expect(none.status == 0)
    #expect(importedRules(none).isEmpty)
  }

  @Test func `needs a namespace, one version and to be given once`() throws {
    for (text, words) in [
      (
        authorizationPolicy("{}").replacing(", namespace: shop", with: ""),
        "metadata.namespace is missing"
      ),
      (
        authorizationPolicy("{}").replacing("/v1\n", with: "/v1alpha1\n"),
        "version \"v1alpha1\" is not known"
      ),
      (
        authorizationPolicy("{}") + "---\n" + authorizationPolicy("{}"),
        "1.yaml:6:1: AuthorizationPolicy shop/p: given twice"
      ),
      (
        authorizationPolicy("{}", name: String(repeating: "a", count: 200)),
        "is longer than 128 bytes"
      ),
    ] {
      let outcome = try imported(
        text, options: ["--namespace", "shop", "--skip-unsupported"])
      #expect(outcome.status == 1)
      #expect(outcome.error.contains(words), "\(outcome.error)")
    }
  }

  @Test func `does not grow without bound`() throws {
    let sources = Array(repeating: "{ source: { namespaces: [a] } }", count: 200)
    let operations = Array(repeating: "{ operation: { ports: [1] } }", count: 51)
    let product = """
      { rules: [{ from: [\(sources.joined(separator: ","))], to: [\(operations.joined(separator: ","))] }] }
      """
    #expect(
      try imported(authorizationPolicy(product)).error.contains(
        "more than 10000 pairs of from and to"))
    let values = (0...1000).map { "a\($0)" }.joined(separator: ",")
    #expect(
      try imported(
        authorizationPolicy("{ rules: [{ from: [{ source: { namespaces: [\(values)] } }] }] }")
      ).error
        .contains("more than 1000 values"))
  }

  @Test func `among objects of other kinds is not taken for all there is`() throws {
    let other = """
      ---
      apiVersion: security.istio.io/v1
      kind: RequestAuthentication
      metadata: { name: jwt, namespace: shop }
      """
    let outcome = try imported(authorizationPolicy("{ rules: [{}] }") + other)
    #expect(outcome.status == 1)
    #expect(
      outcome.error
        == "culvert: 1.yaml:6:1: RequestAuthentication shop/jwt: objects of this kind are not imported\n"
    )
    let skipping = try imported(
      authorizationPolicy("{ rules: [{}] }") + other,
      options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(skipping.status == 0)
    #expect(importedRules(skipping).count == 1)
    #expect(
      try imported(authorizationPolicy("{ rules: [{}] }") + other.replacing("shop", with: "other"))
        .status == 0)
  }
}
