import Configuration
import Identity
import Net
import Policy
import Testing

@Suite struct `Who is on the other side, in the configuration` {
  private func settings(_ lines: String) throws -> Settings {
    try Sample.parse(Sample.least + lines)
  }

  @Test func `is taken with every field of inbound and discovery`() throws {
    let settings = try settings(
      """
      inbound:
        mode: strict
        probes:
          - { sources: [10.0.0.0/8, "fd00::1"], ports: [8080, 9000-9010] }
          - { sources: [127.0.0.1], ports: [1] }
      discovery:
        announce: off
        probe: off
        meshRanges: [10.90.0.0/16, "fd90::/16"]
      """)
    func range(_ text: String) throws -> CIDR { try #require(CIDR(text)) }
    #expect(
      settings.inbound
        == InboundPolicy(
          mode: .strict,
          probes: [
            ProbeDeclaration(
              sources: [try range("10.0.0.0/8"), try range("fd00::1")],
              ports: PortSet([8080...8080, 9000...9010])),
            ProbeDeclaration(sources: [try range("127.0.0.1")], ports: PortSet([1...1])),
          ]))
    #expect(settings.discovery.announce == .off && settings.discovery.probe == .off)
    #expect(settings.discovery.meshRanges == [try range("10.90.0.0/16"), try range("fd90::/16")])
    let least = try Sample.parse(Sample.least)
    #expect(least.discovery.announce == .auto && least.discovery.probe == .on)
    #expect(least.discovery.meshRanges.count == 4 && least.inbound.probes.isEmpty)
  }

  @Test func `is taken with every field of outbound`() throws {
    let settings = try settings(
      """
      outbound:
        peersFile: peers.yaml
        pins: { ttlSeconds: 3600, file: /var/lib/web.pins }
        registryOnly: true
        expectTrustDomains: [demo.mesh]
        peers:
          - { address: 10.0.0.1, mesh: true }
          - { address: 10.0.0.0/24, mesh: false }
          - { address: "fd00::/8", identity: "spiffe://demo.mesh/a" }
          - { address: "fd00::1", identity: "spiffe://demo.mesh/b", mesh: true }
      """)
    #expect(settings.peersFile == "/etc/culvert/peers.yaml")
    let outbound = settings.outbound
    #expect(outbound.pins == PinSettings(ttlSeconds: 3600, file: "/var/lib/web.pins"))
    #expect(outbound.isRegistryOnly)
    #expect(outbound.expectTrustDomains == [try TrustDomain("demo.mesh")])
    let kinds: [Peer.Kind] = [
      .mesh(nil), .notMesh, .mesh(try SPIFFEID("spiffe://demo.mesh/a")),
      .mesh(try SPIFFEID("spiffe://demo.mesh/b")),
    ]
    #expect(settings.peers.map(\.kind) == kinds)
    #expect(outbound.peers == PeerTable(settings.peers))
    let least = try Sample.parse(Sample.least)
    #expect(least.peersFile == nil && least.outbound == OutboundPolicy())
    #expect(try self.settings("outbound: { pins: { ttlSeconds: 1 } }").outbound.pins?.file == nil)
  }

  @Test func `is taken with rules by server name and for TLS`() throws {
    let rules = try settings(
      """
      outbound:
        rules:
          - { sni: [api.example.com, "*.svc.example"], ports: [443], action: passthrough }
          - { to: [10.0.0.0/8], sni: [a.example], ports: [1-99], action: mtls, expect: ["spiffe://demo.mesh/a"] }
          - { to: [0.0.0.0/0], action: tls, tls: { serverName: api.example.com } }
          - to: [0.0.0.0/0]
            action: tls
            tls: { serverName: "fd00::1", ca: ca.pem, certificate: c.pem, privateKey: /k, missingCloseNotify: end }
      """
    ).outbound.rules
    let patterns = ["api.example.com", "*.svc.example"].compactMap(ServerNamePattern.init)
    #expect(
      rules[0]
        == OutboundRule(
          to: [.allV4, .allV6], ports: PortSet([443...443]), serverNames: patterns,
          action: .passthrough))
    #expect(rules[1].to == [try #require(CIDR("10.0.0.0/8"))])
    #expect(rules[1].serverNames == ["a.example"].compactMap(ServerNamePattern.init))
    #expect(rules[2].origination == TLSOrigination(serverName: "api.example.com"))
    var origination = TLSOrigination(serverName: "fd00::1")
    origination.authorities = "/etc/culvert/ca.pem"
    origination.credential = .init(certificate: "/etc/culvert/c.pem", privateKey: "/k")
    origination.missingCloseNotify = .end
    #expect(rules[3].origination == origination)
  }
}

/// Each case is one line under the least configuration; the error stands where `¦` is in it.
@Suite struct `A policy field that cannot work` {
  private func expect(
    _ line: String, _ complaint: String, _ location: SourceLocation = #_sourceLocation
  ) throws {
    let parts = line.split(separator: "¦", omittingEmptySubsequences: false)
    try #require(parts.count == 2, sourceLocation: location)
    #expect(
      Sample.complaint(Sample.least + parts.joined())
        == "c.yaml:4:\(parts[0].count + 1): \(complaint)", sourceLocation: location)
  }

  private static let notRange =
    "is not an address or a range ADDRESS/LENGTH without bits set beyond its length"

  @Test(arguments: [
    ("inbound: { probes: ¦[] }", "inbound.probes: must not be empty"),
    ("inbound: { probes: ¦{} }", "inbound.probes: expected a list, found a mapping"),
    (
      "inbound: { probes: [¦{ sources: [10.0.0.1] }] }",
      "inbound.probes[0]: missing field \"ports\""
    ),
    ("inbound: { probes: [¦{ ports: [80] }] }", "inbound.probes[0]: missing field \"sources\""),
    (
      "inbound: { probes: [{ sources: ¦[], ports: [80] }] }",
      "inbound.probes[0].sources: must not be empty"
    ),
    (
      "inbound: { probes: [{ sources: [10.0.0.1], ports: ¦[] }] }",
      "inbound.probes[0].ports: must not be empty"
    ),
    (
      "inbound: { probes: [{ sources: [¦10.0.0.1/8], ports: [80] }] }",
      "inbound.probes[0].sources[0]: \"10.0.0.1/8\" \(notRange)"
    ),
    (
      "inbound: { probes: [{ sources: [10.0.0.1], ports: [80], ¦path: / }] }",
      "unknown field \"inbound.probes[0].path\""
    ),
    ("discovery: { announce: ¦on }", "discovery.announce: expected auto or off, found \"on\""),
    ("discovery: { probe: ¦auto }", "discovery.probe: expected on or off, found \"auto\""),
    ("discovery: { meshRanges: ¦[] }", "discovery.meshRanges: must not be empty"),
    (
      "discovery: { meshRanges: [¦10.0.0.1/8] }",
      "discovery.meshRanges[0]: \"10.0.0.1/8\" \(notRange)"
    ),
    ("discovery: { ¦ranges: [] }", "unknown field \"discovery.ranges\""),
  ])
  func `of inbound or discovery is refused where it stands`(
    line: String, complaint: String
  ) throws {
    try expect(line, complaint)
  }

  @Test(arguments: ["auto", "strict", "disabled"])
  func `pins may stay whatever the mode`(mode: String) throws {
    let settings = try Sample.parse(
      Sample.least + "outbound: { mode: \(mode), pins: { ttlSeconds: 1 } }\n")
    #expect(settings.outbound.pins?.ttlSeconds == 1)
  }

  @Test(arguments: [
    ("pins: ¦{}", "pins: missing field \"ttlSeconds\""),
    (
      "pins: { ttlSeconds: ¦0 }",
      "pins.ttlSeconds: expected an integer from 1 to 31536000, found \"0\""
    ),
    (
      "pins: { ttlSeconds: ¦31536001 }",
      "pins.ttlSeconds: expected an integer from 1 to 31536000, found \"31536001\""
    ),
    ("pins: { ttlSeconds: 1, file: ¦\"\" }", "pins.file: must not be empty"),
    ("registryOnly: ¦yes", "registryOnly: expected true or false, found \"yes\""),
    ("registryOnly: ¦\"true\"", "registryOnly: expected true or false, found \"true\""),
    ("peersFile: ¦[a]", "peersFile: expected a text, found a list"),
    ("peersFile: ¦\"\"", "peersFile: must not be empty"),
    ("expectTrustDomains: ¦[]", "expectTrustDomains: must not be empty"),
    (
      "expectTrustDomains: [demo.mesh, ¦demo.mesh]",
      "expectTrustDomains[1]: \"demo.mesh\" is already in the list"
    ),
    (
      "expectTrustDomains: [¦other.mesh]",
      "expectTrustDomains[0]: no bundle in workload.trustBundles for trust domain \"other.mesh\""
    ),
    (
      "expectTrustDomains: [¦Demo.mesh]",
      "expectTrustDomains[0]: \"Demo.mesh\" is not a trust domain: invalid_trust_domain"
    ),
    ("peers: [¦{ address: 10.0.0.1 }]", "peers[0]: missing field \"identity\" or \"mesh\""),
    ("peers: [¦{ mesh: true }]", "peers[0]: missing field \"address\""),
    (
      "peers: [{ address: 10.0.0.1, mesh: ¦1 }]",
      "peers[0].mesh: expected true or false, found \"1\""
    ),
    (
      "peers: [{ address: 10.0.0.1, mesh: false, identity: ¦\"spiffe://demo.mesh/a\" }]",
      "peers[0].identity: goes with a mesh workload only, and \"mesh\" is false here"
    ),
    (
      "peers: [{ address: ¦10.0.0.1/8, mesh: true }]",
      "peers[0].address: \"10.0.0.1/8\" \(notRange)"
    ),
    (
      "peers: [{ address: \"::1\", mesh: true }, { address: ¦\"0::1\", mesh: false }]",
      "peers[1].address: \"::1/128\" already has an entry"
    ),
  ])
  func `of outbound is refused where it stands`(fields: String, complaint: String) throws {
    try expect("outbound: { \(fields) }", "outbound.\(complaint)")
  }

  private static let needsPorts =
    "needs \"ports\": on a port where servers speak first, waiting for a server name would hang"
    + " every connection"

  @Test(arguments: [
    ("¦{ action: passthrough, ports: [443] }", ": missing field \"to\""),
    ("{ sni: ¦[a.example], action: passthrough }", ".sni: \(needsPorts)"),
    ("{ sni: ¦[], ports: [443], action: passthrough }", ".sni: must not be empty"),
    (
      "{ sni: [¦\"*\"], ports: [443], action: deny }",
      ".sni[0]: \"*\" is no server name such as api.example.com or *.example.com"
    ),
    (
      "{ sni: [a.example, ¦\"10.0.0.1\"], ports: [443], action: deny }",
      ".sni[1]: \"10.0.0.1\" is no server name such as api.example.com or *.example.com"
    ),
    (
      "{ sni: [a.example, ¦A.example], ports: [443], action: deny }",
      ".sni[1]: \"A.example\" is already in the list"
    ),
    (
      "{ sni: ¦[a.example], ports: [443], action: tls, tls: { serverName: a.example } }",
      ".sni: with action tls the application speaks no TLS of its own to look into"
    ),
    (
      "¦{ to: [10.0.0.1], action: tls }",
      ": missing field \"tls\", which says whom the server must prove to be"
    ),
    (
      "{ to: [10.0.0.1], action: mtls, tls: ¦{ serverName: a.example } }",
      ".tls: goes with action tls only, the action here is mtls"
    ),
    ("{ to: [10.0.0.1], action: tls, tls: ¦{} }", ".tls: missing field \"serverName\""),
    (
      "{ to: [10.0.0.1], action: tls, tls: { serverName: ¦\"*.example\" } }",
      ".tls.serverName: \"*.example\" is neither a DNS name nor an IP address"
    ),
    (
      "{ to: [10.0.0.1], action: tls, tls: { serverName: a.example, ca: ¦\"\" } }",
      ".tls.ca: must not be empty"
    ),
    (
      "{ to: [10.0.0.1], action: tls, tls: { serverName: a.example, certificate: ¦c } }",
      ".tls.certificate: \"certificate\" and \"privateKey\" go together"
    ),
    (
      "{ to: [10.0.0.1], action: tls, tls: { serverName: a.example, privateKey: ¦k } }",
      ".tls.privateKey: \"certificate\" and \"privateKey\" go together"
    ),
    (
      "{ to: [10.0.0.1], action: tls, tls: { serverName: a.example, missingCloseNotify: ¦no } }",
      ".tls.missingCloseNotify: expected reset or end, found \"no\""
    ),
    (
      "{ to: [10.0.0.1], action: ¦drop }",
      ".action: expected mtls, tls, passthrough, plaintext or deny, found \"drop\""
    ),
    (
      "{ to: [10.0.0.1], action: tls, tls: { serverName: a.example }, expect: ¦[] }",
      ".expect: goes with action mtls only, the action here is tls"
    ),
  ])
  func `of a rule is refused where it stands`(rule: String, complaint: String) throws {
    try expect("outbound: { rules: [\(rule)] }", "outbound.rules[0]\(complaint)")
  }
}

@Suite struct `A peers file` {
  private func load(_ text: String) throws(ConfigurationError) -> [Peer] {
    let settings = try Sample.parse(
      Sample.least + "outbound: { peers: [{ address: 10.0.0.1, mesh: true }] }")
    return try PeersFile.parse(yaml: Array(text.utf8), file: "p.yaml", for: settings)
  }

  @Test func `holds entries as the configuration does`() throws {
    let peers = try load(
      """
      peers:
        - { address: 10.0.0.2, identity: "spiffe://demo.mesh/a" }
        - { address: 10.0.0.0/24, mesh: false }
      """)
    #expect(
      peers == [
        Peer(
          address: try #require(CIDR("10.0.0.2")), identity: try SPIFFEID("spiffe://demo.mesh/a")),
        Peer(address: try #require(CIDR("10.0.0.0/24")), kind: .notMesh),
      ])
    #expect(try load("peers: []").isEmpty)
  }

  @Test(arguments: [
    ("", "1:1: the file is empty"),
    ("peers: {}", "1:8: peers: expected a list, found a mapping"),
    ("{}", "1:1: missing field \"peers\""),
    ("peers: []\nworkers: 1", "2:1: unknown field \"workers\""),
    (
      "peers:\n  - { address: 10.0.0.1/32, mesh: false }",
      "2:5: peers[0]: \"10.0.0.1/32\" already has an entry in the configuration"
    ),
    (
      "peers:\n  - { address: 10.0.0.2, mesh: false }\n  - { address: 10.0.0.2, mesh: true }",
      "3:16: peers[1].address: \"10.0.0.2/32\" already has an entry"
    ),
    (
      "peers:\n  - { address: 10.0.0.2, identity: \"spiffe://other.mesh/a\" }",
      "2:36: peers[0].identity: no bundle in workload.trustBundles for trust domain \"other.mesh\""
    ),
  ])
  func `that cannot work is refused where it is wrong`(text: String, complaint: String) {
    let error = #expect(throws: ConfigurationError.self) { try load(text) }
    #expect(error?.description == "p.yaml:\(complaint)")
  }

  @Test func `that is not there is named`() throws {
    let settings = try Sample.parse(Sample.least)
    let error = #expect(throws: ConfigurationError.self) {
      try PeersFile.load(path: "/nowhere/peers.yaml", for: settings)
    }
    #expect(error?.description.contains("/nowhere/peers.yaml") == true)
  }
}
