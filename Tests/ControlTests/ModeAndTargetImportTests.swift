import Foundation
import Testing

@Suite struct `PeerAuthentications` {
  private static let selected = "selector: { matchLabels: { app: db } }"

  private func modes(_ objects: [String], options: [String] = []) throws -> Outcome {
    try imported(
      objects.joined(separator: "---\n"),
      options: ["--namespace", "shop", "--labels", "app=db"] + options)
  }

  private func text(_ outcome: Outcome) -> String {
    outcome.output.split(separator: "\n").filter { !$0.contains("#") }.joined(separator: "\n")
  }

  @Test(arguments: [
    ("STRICT", "strict"), ("PERMISSIVE", "permissive"), ("DISABLE", "disabled"),
    ("UNSET", "permissive"),
  ])
  func `say a mode`(mode: String, word: String) throws {
    let outcome = try modes([peerAuthentication("{ mtls: { mode: \(mode) } }")])
    #expect(outcome.status == 0)
    #expect(text(outcome) == "inbound:\n  mode: \(word)")
  }

  @Test func `win the narrower they are, and inherit what they leave unset`() throws {
    let mesh = peerAuthentication("{ mtls: { mode: STRICT } }", namespace: "istio-system")
    let namespace = peerAuthentication("{ mtls: { mode: PERMISSIVE } }")
    let workload = peerAuthentication("{ \(Self.selected), mtls: { mode: DISABLE } }", name: "w")
    let unset = peerAuthentication("{ \(Self.selected), mtls: { mode: UNSET } }", name: "w")
    let empty = peerAuthentication("{}")
    let other = peerAuthentication(
      "{ selector: { matchLabels: { app: web } }, mtls: { mode: DISABLE } }", name: "w")
    let elsewhere = peerAuthentication("{ mtls: { mode: DISABLE } }", namespace: "other")
    for (objects, word) in [
      ([mesh], "strict"), ([namespace, mesh], "permissive"),
      ([workload, mesh, namespace], "disabled"),
      ([unset, mesh], "strict"), ([unset, namespace, mesh], "permissive"),
      ([mesh, empty], "strict"),
      ([other, mesh], "strict"), ([elsewhere, mesh], "strict"), ([empty], "permissive"),
    ] {
      #expect(text(try modes(objects)) == "inbound:\n  mode: \(word)")
    }
    #expect(try modes([elsewhere]).output.contains("# No PeerAuthentication applies"))
  }

  @Test func `say modes of ports`() throws {
    let ports = """
      { \(Self.selected), mtls: { mode: STRICT }, portLevelMtls: {
        80: { mode: PERMISSIVE }, "81": { mode: DISABLE }, 82: { mode: STRICT }, 83: { mode: UNSET }, 84: {} } }
      """
    #expect(
      text(try modes([peerAuthentication(ports)]))
        == "inbound:\n  mode: strict\n  ports: { 80: permissive, 81: disabled }")
  }

  @Test func `at one level give way to the oldest`() throws {
    func rivals(_ first: String, _ second: String) throws -> Outcome {
      try modes([
        peerAuthentication("{ mtls: { mode: STRICT } }", name: "a", created: first),
        peerAuthentication("{ mtls: { mode: PERMISSIVE } }", name: "b", created: second),
      ])
    }
    let (older, newer) = ("\"2025-01-31T12:00:00Z\"", "\"2025-02-01T00:00:00Z\"")
    #expect(text(try rivals(older, newer)) == "inbound:\n  mode: strict")
    let outcome = try rivals(newer, older)
    #expect(text(outcome) == "inbound:\n  mode: permissive")
    #expect(
      outcome.output.contains("shop/a (1.yaml:1) has no effect: PeerAuthentication shop/b is older")
    )
    for (first, second) in [("null", "null"), (older, older), (older, "null"), ("null", older)] {
      let outcome = try rivals(first, second)
      #expect(outcome.status == 1)
      #expect(outcome.error.contains("in Istio the older one wins"), "\(outcome.error)")
    }
    #expect(try rivals("yesterday", newer).error.contains("expected a time such as"))
  }

  @Test(arguments: [
    ("{ mtls: { mode: strict } }", "spec.mtls.mode: expected STRICT, PERMISSIVE, DISABLE or UNSET"),
    ("{ mtls: STRICT }", "spec.mtls: expected a mapping"),
    ("{ mtls: { modus: STRICT } }", "unknown field \"spec.mtls.modus\""),
    (
      "{ portLevelMtls: { 80: { mode: STRICT } } }", "spec.portLevelMtls: goes with a selector only"
    ),
    ("{ \(selected), portLevelMtls: { 0: { mode: STRICT } } }", "expected a port"),
    ("{ \(selected), portLevelMtls: { http: { mode: STRICT } } }", "expected a port"),
    ("{ mtl: {} }", "unknown field \"spec.mtl\""),
  ])
  func `are refused by name`(spec: String, words: String) throws {
    for flags in [[], ["--skip-unsupported"]] {
      let outcome = try modes([peerAuthentication(spec)], options: flags)
      #expect(outcome.status == 1)
      #expect(outcome.output == "")
      #expect(outcome.error.contains(": PeerAuthentication shop/default: "), "\(outcome.error)")
      #expect(outcome.error.contains(words), "\(outcome.error)")
    }
  }

  @Test func `with a selector in the root namespace are refused`() throws {
    let text = peerAuthentication("{ \(Self.selected) }", namespace: "istio-system")
    #expect(try modes([text]).error.contains("Istio ignores such an object"))
  }

  /// A connection that does not come to the proxy is not judged.
  @Test func `that disable mTLS are refused where rules apply`() throws {
    let disable = peerAuthentication(
      "{ \(Self.selected), portLevelMtls: { 80: { mode: DISABLE } } }", name: "w")
    let strict = peerAuthentication("{ mtls: { mode: STRICT } }")
    #expect(text(try modes([disable, strict])).contains("80: disabled"))
    let outcome = try modes([disable, strict, authorizationPolicy("{}")])
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("no authorization rule would hold"), "\(outcome.error)")
    let skipping = try modes(
      [disable, strict, authorizationPolicy("{}")], options: ["--skip-unsupported"])
    #expect(skipping.status == 0)
    #expect(text(skipping).hasPrefix("inbound:\n  mode: strict\nauthorization:"))
  }
}

@Suite struct `A TrafficTarget` {
  private static let options = ["--namespace", "shop", "--service-account", "db"]

  private func target(
    _ version: String = "v1alpha3", destination: String = "name: db, namespace: shop",
    sources: String = "[{ kind: ServiceAccount, name: web, namespace: front }]",
    rules: String = "[{ kind: TCPRoute, name: mysql }]"
  ) -> String {
    let indent = version == "v1alpha1" ? "" : "  "
    return """
      kind: TrafficTarget
      apiVersion: access.smi-spec.io/\(version)
      metadata: { name: to-db, namespace: shop }
      \(version == "v1alpha1" ? "" : "spec:")
      \(indent)destination: { kind: ServiceAccount, \(destination) }
      \(indent)\(version == "v1alpha1" ? "specs" : "rules"): \(rules)
      \(indent)sources: \(sources)

      """
  }

  private func route(_ spec: String, name: String = "mysql", namespace: String = "shop") -> String {
    """
    ---
    kind: TCPRoute
    apiVersion: specs.smi-spec.io/v1alpha4
    metadata: { name: \(name), namespace: \(namespace) }
    spec: \(spec)

    """
  }

  private let mysql = "{ matches: { ports: [3306, 33060] } }"
  private let rule =
    "{ name: \"shop/to-db\", action: allow, principals: [\"spiffe://cluster.local/ns/front/sa/web\"], "

  @Test(arguments: ["v1alpha1", "v1alpha2", "v1alpha3"])
  func `becomes a rule`(version: String) throws {
    let outcome = try imported(target(version) + route(mysql), options: Self.options)
    #expect(outcome.error == "")
    #expect(outcome.status == 0)
    #expect(
      outcome.output == """
        # For namespace shop, service account db.
        # No PeerAuthentication applies: permissive, in Istio and here.
        authorization:
          # TrafficTarget shop/to-db (1.yaml:1)
          - \(rule)ports: [3306, 33060] }

        """)
  }

  @Test func `allows the ports of its routes and its destination`() throws {
    let other = route("{ matches: { ports: [\"1\"] } }", name: "other")
    let both = "[{ kind: TCPRoute, name: mysql }, { kind: TCPRoute, name: other }]"
    for (text, ports) in [
      (target(rules: both) + route(mysql) + other, "ports: [1, 3306, 33060] }"),
      (
        target(destination: "name: db, namespace: shop, port: 3306") + route(mysql),
        "ports: [3306] }"
      ),
      (target(destination: "name: db, namespace: shop, port: 9") + route("{}"), "ports: [9] }"),
      (target(destination: "name: db") + route(mysql), "ports: [3306, 33060] }"),
    ] {
      #expect(importedRules(try imported(text, options: Self.options)) == [rule + ports])
    }
    for spec in ["{}", "", "{ matches: {} }", "{ matches: { ports: [] } }"] {
      #expect(
        importedRules(try imported(target() + route(spec), options: Self.options))
          == [rule.dropLast(2) + " }"])
    }
  }

  @Test func `of another workload leaves nothing allowed`() throws {
    for text in [
      target(destination: "name: cache, namespace: shop") + route(mysql),
      target(destination: "name: db, namespace: other") + route(mysql),
      target(destination: "name: db, namespace: shop, port: 9") + route(mysql),
    ] {
      let outcome = try imported(text, options: Self.options)
      #expect(outcome.status == 0)
      #expect(
        importedRules(outcome) == [
          "{ name: \"smi/default-deny\", action: allow, \(matchesNothing) }"
        ])
    }
  }

  @Test func `is refused by name`() throws {
    let http = "[{ kind: HTTPRouteGroup, name: routes, matches: [metrics] }]"
    for (text, words) in [
      (target(rules: http), "rules[0].kind: \"HTTPRouteGroup\" describes no TCP connection"),
      (
        target(rules: "[{ kind: UDPRoute, name: dns }]"), "\"UDPRoute\" describes no TCP connection"
      ),
      (target(rules: "[]") + route(mysql), "spec.rules: must not be empty"),
      (target(sources: "[]") + route(mysql), "spec.sources: must not be empty"),
      (
        target(sources: "[{ kind: Group, name: a, namespace: b }]") + route(mysql),
        "spec.sources[0].kind: expected ServiceAccount"
      ),
      (
        target(sources: "[{ kind: ServiceAccount, name: a }]") + route(mysql),
        "missing field \"namespace\""
      ),
      (target(), "no TCPRoute shop/mysql in the input"),
      (target() + route(mysql, namespace: "other"), "no TCPRoute shop/mysql in the input"),
      (target() + route("{ matches: { ports: [0] } }"), "1.yaml:12:28: spec.matches.ports[0]"),
      (
        target(rules: "[{ kind: TCPRoute, name: mysql, matches: [a] }]") + route(mysql),
        "a TCPRoute has no named matches"
      ),
    ] {
      let outcome = try imported(text, options: Self.options)
      #expect(outcome.status == 1)
      #expect(outcome.output == "")
      #expect(outcome.error.contains(words), "\(outcome.error)")
      #expect(outcome.error.contains(": TrafficTarget shop/to-db: "))
      let skipping = try imported(text, options: Self.options + ["--skip-unsupported"])
      #expect(skipping.status == 0)
      #expect(
        importedRules(skipping) == [
          "{ name: \"smi/default-deny\", action: allow, \(matchesNothing) }"
        ])
      #expect(skipping.error.contains("; what it allows is refused"))
    }
  }

  @Test func `needs the workload's service account`() throws {
    let outcome = try imported(
      target() + route(mysql), options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("--service-account of the workload is needed"))
  }

  @Test func `is not mixed with Istio's policies`() throws {
    let outcome = try imported(
      target() + route(mysql) + "---\n" + authorizationPolicy("{}"),
      options: Self.options + ["--skip-unsupported"])
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("Import them apart"))
  }

  @Test func `stands beside routes that it does not name`() throws {
    let http = """
      ---
      kind: HTTPRouteGroup
      apiVersion: specs.smi-spec.io/v1alpha4
      metadata: { name: routes, namespace: shop }
      spec: { matches: [{ name: all, pathRegex: ".*", methods: ["*"] }] }
      """
    #expect(try imported(target() + route(mysql) + http, options: Self.options).status == 0)
  }
}
