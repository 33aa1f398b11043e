import Identity
import Testing

@testable import Configuration

@Suite struct `The entries of a workload agent` {
  private func parse(_ text: String) throws(ConfigurationError) -> RegistrationEntries {
    guard let trustDomain = try? TrustDomain("demo.mesh") else { preconditionFailure() }
    return try RegistrationEntries.parse(
      yaml: Array(text.utf8), file: "entries.yaml", directory: "/etc/x", trustDomain: trustDomain)
  }

  @Test func `are read with every field`() throws {
    let file = try parse(
      """
      entries:
        - id: spiffe://demo.mesh/ns/shop/sa/web
          selectors: ["unix:uid:1000", "unix:gid:100", "unix:path:/usr/bin/a:b c"]
          hint: internal
          lifetimeSeconds: 60
          federatesWith: [partner.example]
        - { id: spiffe://demo.mesh/db, selectors: ["unix:uid:0"], hint: "" }
      federatedBundles: [ { trustDomain: partner.example, pem: partner.pem } ]
      crls: [a.crl, /b.crl]
      """)
    let web = try #require(file.entries.first)
    #expect(web.id.description == "spiffe://demo.mesh/ns/shop/sa/web")
    #expect(web.selectors == [.userID(1000), .groupID(100), .path("/usr/bin/a:b c")])
    #expect(web.hint == "internal" && web.lifetimeSeconds == 60)
    #expect(web.federatesWith.map(\.name) == ["partner.example"])
    #expect(file.entries[1].hint.isEmpty && file.entries[1].lifetimeSeconds == 3600)
    #expect(file.files == ["/etc/x/partner.pem", "/etc/x/a.crl", "/b.crl"])
  }

  @Test func `may be none`() throws {
    #expect(try parse("entries: []").entries.isEmpty)
  }

  @Test(arguments: [
    ("{}", "missing field \"entries\""), ("entries: 7", "expected a list"),
    ("entries: []\nentry: []", "unknown field \"entry\""),
    ("entries: [ { id: spiffe://demo.mesh/x } ]", "missing field \"selectors\""),
    ("entries: [ { selectors: [\"unix:uid:1\"] } ]", "missing field \"id\""),
    ("entries: [ { id: demo, selectors: [\"unix:uid:1\"] } ]", "not a SPIFFE ID"),
    ("entries: [ { id: spiffe://demo.mesh, selectors: [\"unix:uid:1\"] } ]", "has a path"),
    (
      "entries: [ { id: spiffe://other.mesh/x, selectors: [\"unix:uid:1\"] } ]",
      "not in demo.mesh"
    ),
    ("entries: [ { id: spiffe://demo.mesh/x, selectors: [] } ]", "must not be empty"),
    ("entries: [ { id: spiffe://demo.mesh/x, selectors: [\"unix:uid:-1\"] } ]", "unix:uid:NUMBER"),
    ("entries: [ { id: spiffe://demo.mesh/x, selectors: [\"unix:uid:4294967296\"] } ]", "NUMBER"),
    ("entries: [ { id: spiffe://demo.mesh/x, selectors: [\"unix:uid\"] } ]", "unix:uid:NUMBER"),
    ("entries: [ { id: spiffe://demo.mesh/x, selectors: [\"k8s:uid:1\"] } ]", "unix:uid:NUMBER"),
    ("entries: [ { id: spiffe://demo.mesh/x, selectors: [\"unix:path:web\"] } ]", "/PROGRAM"),
    (
      "entries: [ { id: spiffe://demo.mesh/x, selectors: [\"unix:uid:1\"], lifetimeSeconds: 0 } ]",
      "integer from 1"
    ),
    (
      "entries: [ { id: spiffe://demo.mesh/x, selectors: [\"unix:uid:1\"], federatesWith: [b] } ]",
      "no entry in federatedBundles"
    ),
    (
      "entries: []\nfederatedBundles: [ { trustDomain: demo.mesh, pem: a } ]",
      "already has a bundle"
    ),
    ("entries: []\nfederatedBundles: [ { trustDomain: b } ]", "missing field \"pem\""),
  ])
  func `are refused with what is wrong`(text: String, words: String) throws {
    let error = try #require(throws: ConfigurationError.self) { try parse(text) }
    #expect(error.message.contains(words), "\(error)")
    #expect(error.line != nil)
  }
}
