import Foundation
import TestSupport
import Testing

/// Runs `culvert policy import` over YAML texts, as files in the directory it runs in.
private func imported(
  _ files: String..., options: [String] = ["--namespace", "shop", "--labels", "app=db"]
) throws -> Outcome {
  let directory = try TemporaryDirectory()
  var names: [String] = []
  for (index, text) in files.enumerated() {
    let name = "\(index + 1).yaml"
    try text.write(toFile: directory.file(name), atomically: true, encoding: .utf8)
    names.append(name)
  }
  return try Tool.run(
    ["policy", "import"] + options + names,
    through: ["env", "--chdir", directory.file("")])
}

/// An AuthorizationPolicy `shop/p` with this `spec`, in YAML's flow style.
private func policy(
  _ spec: String, name: String = "p", namespace: String = "shop", annotations: String = "{}"
) -> String {
  """
  apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata: { name: \(name), namespace: \(namespace), annotations: \(annotations) }
  spec: \(spec)

  """
}

private func peerAuthentication(
  _ spec: String, name: String = "default", namespace: String = "shop", created: String = "null"
) -> String {
  """
  apiVersion: security.istio.io/v1beta1
  kind: PeerAuthentication
  metadata: { name: \(name), namespace: \(namespace), creationTimestamp: \(created) }
  spec: \(spec)

  """
}

/// The rules of an output, without `  - `.
private func rules(_ outcome: Outcome) -> [String] {
  outcome.output.split(separator: "\n").filter { $0.hasPrefix("  - ") }.map {
    String($0.dropFirst(4))
  }
}

private let nothing = "sources: [\"0.0.0.0/32\"], notSources: [\"0.0.0.0/0\"]"

@Suite struct `culvert policy import` {
  @Test func `turns a mesh's objects into one workload's configuration`() throws {
    let mesh = """
      # What the whole mesh has.
      apiVersion: security.istio.io/v1
      kind: PeerAuthentication
      metadata:
        name: default
        namespace: istio-system
      spec:
        mtls:
          mode: STRICT
      ---
      apiVersion: v1
      kind: List
      items:
      - apiVersion: security.istio.io/v1
        kind: PeerAuthentication
        metadata: { name: metrics-in-plaintext, namespace: shop }
        spec:
          selector: { matchLabels: { app: db } }
          portLevelMtls:
            9104: { mode: PERMISSIVE }
      - apiVersion: security.istio.io/v1
        kind: AuthorizationPolicy
        metadata: { name: no-strangers, namespace: istio-system }
        spec:
          action: DENY
          rules:
          - from:
            - source: { notPrincipals: ["*"] }
            to:
            - operation: { notPorts: ["9104"] }
      """
    let shop = """
      apiVersion: security.istio.io/v1beta1
      kind: AuthorizationPolicy
      metadata:
        name: web-to-db
        namespace: shop
      spec:
        selector:
          matchLabels:
            app: db
        rules:
        - from:
          - source:
              principals: ["cluster.local/ns/shop/sa/web"]
          - source:
              namespaces: ["backup-*"]
              ipBlocks: ["10.1.2.3/16", "10.9.9.9"]
          to:
          - operation:
              ports: ["3306"]
        - from:
          - source:
              principals: ["cluster.local/ns/monitoring/*", "*/sa/probe"]
          when:
          - key: destination.port
            values: ["9104"]
      """
    let outcome = try imported(mesh, shop)
    #expect(outcome.error == "")
    #expect(outcome.status == 0)
    #expect(
      outcome.output == """
        # For namespace shop, labels app=db.
        inbound:
          # PeerAuthentication istio-system/default (1.yaml:2)
          # PeerAuthentication shop/metrics-in-plaintext (1.yaml:14)
          mode: strict
          ports: { 9104: permissive }
        authorization:
          # AuthorizationPolicy istio-system/no-strangers (1.yaml:21), rule 1
          - { name: "istio-system/no-strangers", action: deny, notPrincipals: ["*"], notPorts: [9104] }
          # AuthorizationPolicy shop/web-to-db (2.yaml:1), rule 1
          - { name: "shop/web-to-db/1", action: allow, principals: ["spiffe://cluster.local/ns/shop/sa/web"], ports: [3306] }
          # AuthorizationPolicy shop/web-to-db (2.yaml:1), rule 1
          - { name: "shop/web-to-db/2", action: allow, namespaces: ["backup-*"], sources: ["10.1.0.0/16", "10.9.9.9/32"], ports: [3306] }
          # AuthorizationPolicy shop/web-to-db (2.yaml:1), rule 2
          - { name: "shop/web-to-db/3", action: allow, principals: ["spiffe://cluster.local/ns/monitoring/*", "*/sa/probe"], ports: [9104] }

        """)
  }

  @Test func `says that nothing applies`() throws {
    let outcome = try imported(policy("{}", namespace: "elsewhere"))
    #expect(outcome.status == 0)
    #expect(
      outcome.output == """
        # For namespace shop, labels app=db.
        # No PeerAuthentication applies: permissive, in Istio and here.
        # No authorization rule applies: every connection is allowed.

        """)
  }

  @Test func `reads nothing from a file that is no YAML`() throws {
    for (text, words) in [
      ("a: [", "culvert: 1.yaml:"), ("- a", "1.yaml:1:1: expected a mapping"),
      ("kind: X", "1.yaml:1:1: missing field \"apiVersion\""),
      ("{ kind: X, apiVersion: v1 }", "missing field \"metadata\""),
      (policy("{}") + "---\n- a", "1.yaml:6:1: expected a mapping"),
      ("{ kind: X, apiVersion: v1, metadata: { name: 'a b' } }", "expected a name"),
      ("{ kind: List, apiVersion: v1, items: 1 }", "items: expected a list"),
    ] {
      let outcome = try imported(text)
      #expect(outcome.status == 1, "\(text)")
      #expect(outcome.output == "")
      #expect(outcome.error.contains(words), "\(outcome.error)")
    }
    #expect(try imported(options: ["--namespace", "shop", "/nonexistent"]).status == 1)
  }

  @Test(arguments: [
    ["--labels", "app=db"], ["--namespace", "shop"],
    ["--namespace", "shop", "--labels", "app", "f"],
    ["--namespace", "shop", "--labels", "a=1,a=2", "f"],
    ["--namespace", "shop", "--trust-domain", "A", "f"],
  ])
  func `wants its options`(options: [String]) throws {
    #expect(try imported(options: options).status == 64)
  }

  @Test func `shows examples`() throws {
    let outcome = try Tool.run("policy", "import", "--help")
    #expect(outcome.status == 0)
    #expect(outcome.output.contains("EXAMPLES"))
  }
}

@Suite struct `An AuthorizationPolicy` {
  /// `spec` of a policy, and the rules it becomes.
  @Test(arguments: [
    // Allow nothing; deny nothing; everything.
    ("{}", ["{ name: \"shop/p\", action: allow, \(nothing) }"]),
    ("{ rules: [] }", ["{ name: \"shop/p\", action: allow, \(nothing) }"]),
    ("", ["{ name: \"shop/p\", action: allow, \(nothing) }"]),
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
      ["{ name: \"shop/p\", action: allow, \(nothing) }"]
    ),
    (
      "{ rules: [{ from: [{ source: { ipBlocks: [10.0.0.1], notIpBlocks: [10.0.0.1] } }] }] }",
      ["{ name: \"shop/p\", action: allow, \(nothing) }"]
    ),
    (
      "{ rules: [{ from: [{ source: { ipBlocks: [10.0.0.1] } }], when: [{ key: source.ip, values: [10.0.0.2] }] }] }",
      ["{ name: \"shop/p\", action: allow, \(nothing) }"]
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
    let outcome = try imported(policy(spec))
    #expect(outcome.error == "")
    #expect(outcome.status == 0)
    #expect(rules(outcome) == expected)
  }

  @Test func `in dry-run audits`() throws {
    let annotations = #"{ "istio.io/dry-run": "true" }"#
    #expect(
      rules(try imported(policy("{ action: DENY, rules: [{}] }", annotations: annotations)))
        == ["{ name: \"shop/p\", action: deny, audit: true }"])
    #expect(
      rules(try imported(policy("{}", annotations: annotations)))
        == ["{ name: \"shop/p\", action: allow, audit: true, \(nothing) }"])
    let off = #"{ "istio.io/dry-run": "false" }"#
    #expect(
      rules(try imported(policy("{ rules: [{}] }", annotations: off)))
        == ["{ name: \"shop/p\", action: allow }"])
    #expect(
      try imported(policy("{}", annotations: "{ istio.io/dry-run: maybe }")).error
        .contains("expected \"true\" or \"false\""))
  }

  @Test func `holds for namespaces and the whole mesh`() throws {
    for (namespace, isExpected) in [("shop", true), ("istio-system", true), ("other", false)] {
      let outcome = try imported(policy("{ rules: [{}] }", namespace: namespace))
      #expect(rules(outcome).count == (isExpected ? 1 : 0), "\(namespace)")
    }
    let other = ["--namespace", "shop", "--root-namespace", "other"]
    #expect(rules(try imported(policy("{}", namespace: "other"), options: other)).count == 1)
    #expect(rules(try imported(policy("{}", namespace: "istio-system"), options: other)).isEmpty)
  }

  @Test func `names the mesh's trust domain cluster.local`() throws {
    func principal(_ text: String) throws -> Outcome {
      try imported(
        policy("{ rules: [{ from: [{ source: { principals: [\"\(text)\"] } }] }] }"),
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
        policy("{ action: \(action), rules: [{ from: [{ source: \(source) }] }] }"))
      #expect(outcome.status == 0)
      return outcome.output.contains("clients without an identity do not match")
    }
    #expect(try isSaid("{ notNamespaces: [a] }"))
    #expect(try !isSaid("{ notNamespaces: [a], principals: [\"*\"] }"))
    #expect(try !isSaid("{ namespaces: [a] }"))
    #expect(try !isSaid("{ notNamespaces: [a] }", "DENY"))
  }

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
        policy(
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
    #expect(rules(allow) == ["{ name: \"shop/p\", action: allow, ports: [1] }"])
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
      policy("{ rules: [{ to: [{ operation: { paths: [/a] } }] }] }"),
      options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(outcome.status == 0)
    #expect(rules(outcome) == ["{ name: \"shop/p\", action: allow, \(nothing) }"])
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
    let outcome = try imported(policy(spec), options: options)
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(outcome.error.contains(words), "\(outcome.error)")
    let skipping = try imported(policy(spec), options: options + ["--skip-unsupported"])
    #expect(skipping.status == (isSkippable ? 0 : 1))
    #expect(skipping.output.contains("# not imported") == isSkippable)
  }

  @Test func `with a selector needs the workload's labels`() throws {
    let text = policy("{ selector: { matchLabels: { app: db } }, rules: [{}] }")
    let outcome = try imported(text, options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("--labels of the workload are needed"))
    let none = try imported(text, options: ["--namespace", "shop", "--labels", ""])
    #expect(none.status == 0)
    #expect(rules(none).isEmpty)
  }

  @Test func `needs a namespace, one version and to be given once`() throws {
    for (text, words) in [
      (policy("{}").replacing(", namespace: shop", with: ""), "metadata.namespace is missing"),
      (policy("{}").replacing("/v1\n", with: "/v1alpha1\n"), "version \"v1alpha1\" is not known"),
      (
        policy("{}") + "---\n" + policy("{}"), "1.yaml:6:1: AuthorizationPolicy shop/p: given twice"
      ),
      (policy("{}", name: String(repeating: "a", count: 200)), "is longer than 128 bytes"),
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
    #expect(try imported(policy(product)).error.contains("more than 10000 pairs of from and to"))
    let values = (0...1000).map { "a\($0)" }.joined(separator: ",")
    #expect(
      try imported(policy("{ rules: [{ from: [{ source: { namespaces: [\(values)] } }] }] }")).error
        .contains("more than 1000 values"))
  }

  @Test func `among objects of other kinds is not taken for all there is`() throws {
    let other = """
      ---
      apiVersion: security.istio.io/v1
      kind: RequestAuthentication
      metadata: { name: jwt, namespace: shop }
      """
    let outcome = try imported(policy("{ rules: [{}] }") + other)
    #expect(outcome.status == 1)
    #expect(
      outcome.error
        == "culvert: 1.yaml:6:1: RequestAuthentication shop/jwt: objects of this kind are not imported\n"
    )
    let skipping = try imported(
      policy("{ rules: [{}] }") + other, options: ["--namespace", "shop", "--skip-unsupported"])
    #expect(skipping.status == 0)
    #expect(rules(skipping).count == 1)
    #expect(
      try imported(policy("{ rules: [{}] }") + other.replacing("shop", with: "other")).status == 0)
  }
}

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
    let outcome = try modes([disable, strict, policy("{}")])
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("no authorization rule would hold"), "\(outcome.error)")
    let skipping = try modes([disable, strict, policy("{}")], options: ["--skip-unsupported"])
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
      #expect(rules(try imported(text, options: Self.options)) == [rule + ports])
    }
    for spec in ["{}", "", "{ matches: {} }", "{ matches: { ports: [] } }"] {
      #expect(
        rules(try imported(target() + route(spec), options: Self.options))
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
      #expect(rules(outcome) == ["{ name: \"smi/default-deny\", action: allow, \(nothing) }"])
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
      #expect(rules(skipping) == ["{ name: \"smi/default-deny\", action: allow, \(nothing) }"])
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
      target() + route(mysql) + "---\n" + policy("{}"),
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
