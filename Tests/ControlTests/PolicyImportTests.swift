import Configuration
import Foundation
import TestSupport
import Testing

/// Runs `culvert policy import` over YAML texts, as files in the directory it runs in.
func imported(
  _ files: String..., options: [String] = ["--namespace", "shop", "--labels", "app=db"]
) throws -> Outcome {
  let directory = try TemporaryDirectory()
  var names: [String] = []
  for (index, text) in files.enumerated() {
    let name = "\(index + 1).yaml"
    try text.write(toFile: directory.file(name), atomically: true, encoding: .utf8)
    names.append(name)
  }
  let outcome = try Tool.run(
    ["policy", "import"] + options + names,
    through: ["env", "--chdir", directory.file("")])
  if outcome.status == 0 { expectConfiguration(outcome.output) }
  return outcome
}

/// What is printed is taken as it stands by a workload that could trust anybody.
private func expectConfiguration(_ text: String) {
  let workload = """
    workload:
      identity: { files: { certificate: a.pem, privateKey: a.key } }
      trustBundles: [{ directory: bundles }]

    """
  #expect(throws: Never.self, "\(text)") {
    _ = try Settings.parse(yaml: Array((workload + text).utf8), file: "c.yaml", directory: "/c")
  }
}

/// An AuthorizationPolicy `shop/p` with this `spec`, in YAML's flow style.
func authorizationPolicy(
  _ spec: String, name: String = "p", namespace: String = "shop", annotations: String = "{}"
) -> String {
  """
  apiVersion: security.istio.io/v1
  kind: AuthorizationPolicy
  metadata: { name: \(name), namespace: \(namespace), annotations: \(annotations) }
  spec: \(spec)

  """
}

func peerAuthentication(
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
func importedRules(_ outcome: Outcome) -> [String] {
  outcome.output.split(separator: "\n").filter { $0.hasPrefix("  - ") }.map {
    String($0.dropFirst(4))
  }
}

/// Conditions that nothing meets.
let matchesNothing = "sources: [\"0.0.0.0/32\"], notSources: [\"0.0.0.0/0\"]"

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
    let outcome = try imported(authorizationPolicy("{}", namespace: "elsewhere"))
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
      (authorizationPolicy("{}") + "---\n- a", "1.yaml:6:1: expected a mapping"),
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
