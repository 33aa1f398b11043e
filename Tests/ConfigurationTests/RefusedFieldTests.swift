import Testing

/// Each case is one line put under the least configuration, whose own lines are 1 to 3.
@Suite struct RefusedFields {
  private func expect(
    _ lines: String, _ complaint: String, _ location: SourceLocation = #_sourceLocation
  ) {
    #expect(
      Sample.complaint(Sample.least + lines) == "c.yaml:" + complaint, sourceLocation: location)
  }

  @Test(arguments: [
    ("inbond: {}", "4:1: unknown field \"inbond\"; did you mean \"inbound\"?"),
    ("admni: {}", "4:1: unknown field \"admni\"; did you mean \"admin\"?"),
    ("Workers: 1", "4:1: unknown field \"Workers\"; did you mean \"workers\"?"),
    ("authorisation: []", "4:1: unknown field \"authorisation\"; did you mean \"authorization\"?"),
    ("inbound: { mod: strict }", "4:12: unknown field \"inbound.mod\"; did you mean \"mode\"?"),
    ("inbound: { probe: [] }", "4:12: unknown field \"inbound.probe\"; did you mean \"probes\"?"),
    (
      "discovery: { announces: off }",
      "4:14: unknown field \"discovery.announces\"; did you mean \"announce\"?"
    ),
    ("outbound: { pin: {} }", "4:13: unknown field \"outbound.pin\"; did you mean \"pins\"?"),
    (
      "outbound: { rules: [{ to: [0::/0], action: mtls, names: [a] }] }",
      "4:50: unknown field \"outbound.rules[0].names\""
    ),
    ("outbound: { pins: { ttl: 5 } }", "4:21: unknown field \"outbound.pins.ttl\""),
    ("admin: { http: 127.0.0.1:15020 }", "4:10: unknown field \"admin.http\""),
    ("limits: { maxConnections: 5 }", "4:11: unknown field \"limits.maxConnections\""),
    ("\"a\\nb\": 1", "4:1: unknown field \"a\\nb\""),
  ])
  func anUnknownFieldIsRefusedWhereItStands(line: String, complaint: String) {
    expect(line, complaint)
  }

  /// SPIFFE Federation §5.1, 7.2: the twin that has everything is in AcceptedTests.
  @Test(arguments: [
    ("{ url: \"https://a.example/\" }", "missing field \"profile\""),
    ("{ profile: https_web }", "missing field \"url\""),
    ("{ url: \"https://a.example/\", profile: https }", "federation.profile"),
    ("{ url: \"http://a.example/\", profile: https_web }", "http://a.example/"),
    ("{ url: \"https://u@a.example/\", profile: https_web }", "https://u@a.example/"),
    (
      "{ url: \"https://a.example/\", profile: https_spiffe }", "missing field \"endpointID\""
    ),
    (
      "{ url: \"https://a.example/\", profile: https_web, endpointID: \"spiffe://a.example/x\" }",
      "goes with profile https_spiffe only"
    ),
  ])
  func `21: an endpoint's URL, profile and ID are configured, never inferred`(
    federation: String, complaint: String
  ) throws {
    func text(_ entry: String) -> String {
      "workload: { identity: { files: { certificate: a, privateKey: b } }, "
        + "trustBundles: [{ trustDomain: demo.mesh, pem: c }, \(entry)] }"
    }
    let refused = try #require(
      Sample.complaint(text("{ trustDomain: a.example, federation: \(federation) }")))
    #expect(refused.contains(complaint), "\(refused)")
    #expect(
      Sample.complaint(
        text("{ federation: { url: \"https://a.example/\", profile: https_web } }"))?
        .contains("missing field \"trustDomain\"") == true)
  }

  @Test(arguments: [
    ("workload: {}", "1:11: workload: missing field \"identity\""),
    (
      "workload: { identity: {} }",
      "1:23: workload.identity: needs one of \"files\", \"workloadAPI\" and \"embeddedCA\""
    ),
    (
      "workload: { identity: { files: { privateKey: a } }, trustBundles: [] }",
      "1:32: workload.identity.files: missing field \"certificate\""
    ),
    (
      "workload: { identity: { files: { certificate: a, privateKey: b } } }",
      "1:11: workload: missing field \"trustBundles\""
    ),
    (
      "workload: { identity: { files: { certificate: a } }, trustBundles: [] }",
      "1:32: workload.identity.files: missing field \"privateKey\""
    ),
    (
      "workload: { identity: { files: { certificate: a, privateKey: b } }, trustBundles: [] }",
      "1:83: workload.trustBundles: must not be empty"
    ),
    (
      "workload: { identity: { vault: { socket: a } } }",
      "1:25: unknown field \"workload.identity.vault\""
    ),
    ("inbound: {}", "1:1: missing field \"workload\""),
  ])
  func whatIsRequiredIsMissed(text: String, complaint: String) {
    #expect(Sample.complaint(text) == "c.yaml:" + complaint)
  }

  private static let notPorts =
    "expected a port from 1 to 65535 or a range such as 8000-8099, found"

  @Test(arguments: [
    ("listeners: 1", "4:12: listeners: expected a mapping, found \"1\""),
    ("listeners:", "4:11: listeners: expected a mapping, found nothing"),
    (
      "listeners: { meshPort: 0 }",
      "4:24: listeners.meshPort: expected an integer from 1 to 65535, found \"0\""
    ),
    (
      "listeners: { inboundPort: 65536 }",
      "4:27: listeners.inboundPort: expected an integer from 1 to 65535, found \"65536\""
    ),
    (
      "listeners: { outboundPort: \"80\" }",
      "4:28: listeners.outboundPort: expected an integer from 1 to 65535, found \"80\""
    ),
    (
      "listeners: { meshPort: 15001 }",
      "4:12: listeners: the ports must differ: outboundPort 15001, inboundPort 15006, meshPort 15001"
    ),
    (
      "inbound: { mode: Strict }",
      "4:18: inbound.mode: expected permissive, strict or disabled, found \"Strict\""
    ),
    (
      "inbound: { mode: [strict] }",
      "4:18: inbound.mode: expected permissive, strict or disabled, found a list"
    ),
    (
      "inbound: { ports: { 80: auto } }",
      "4:25: inbound.ports.80: expected permissive, strict or disabled, found \"auto\""
    ),
    (
      "inbound: { ports: { http: strict } }",
      "4:21: inbound.ports: expected a port from 1 to 65535, found \"http\""
    ),
    ("inbound: { ports: [80] }", "4:19: inbound.ports: expected a mapping, found a list"),
    (
      "inbound: { ports: { 080: strict } }",
      "4:21: inbound.ports: expected a port from 1 to 65535, found \"080\""
    ),
    (
      "outbound: { mode: on }",
      "4:19: outbound.mode: expected auto, strict or disabled, found \"on\""
    ),
    ("outbound: { rules: {} }", "4:20: outbound.rules: expected a list, found a mapping"),
    (
      "interception: { excludeInboundPorts: 80 }",
      "4:38: interception.excludeInboundPorts: expected a list, found \"80\""
    ),
    (
      "interception: { excludeInboundPorts: [0] }",
      "4:39: interception.excludeInboundPorts[0]: \(notPorts) \"0\""
    ),
    (
      "interception: { includeOutboundPorts: [80, 90-80] }",
      "4:44: interception.includeOutboundPorts[1]: \(notPorts) \"90-80\""
    ),
    (
      "interception: { includeInboundPorts: [\"80\"] }",
      "4:39: interception.includeInboundPorts[0]: \(notPorts) \"80\""
    ),
    (
      "interception: { excludeOutboundPorts: [1-2-3] }",
      "4:40: interception.excludeOutboundPorts[0]: \(notPorts) \"1-2-3\""
    ),
    (
      "interception: { excludeOutboundPorts: [[80]] }",
      "4:40: interception.excludeOutboundPorts[0]: \(notPorts) a list"
    ),
    (
      "interception: { excludeOutboundCIDRs: [10.0.0.1/8] }",
      "4:40: interception.excludeOutboundCIDRs[0]: \"10.0.0.1/8\" is not an address or a range"
        + " ADDRESS/LENGTH without bits set beyond its length"
    ),
    (
      "interception: { includeOutboundCIDRs: [10] }",
      "4:40: interception.includeOutboundCIDRs[0]: expected a text, found \"10\""
    ),
    ("workers: 0", "4:10: workers: expected an integer from 1 to 1024, found \"0\""),
    ("workers: 1025", "4:10: workers: expected an integer from 1 to 1024, found \"1025\""),
    ("workers: 0x2", "4:10: workers: expected an integer from 1 to 1024, found \"0x2\""),
    ("workers: 02", "4:10: workers: expected an integer from 1 to 1024, found \"02\""),
    ("workers: 2.0", "4:10: workers: expected an integer from 1 to 1024, found \"2.0\""),
    ("workers: -1", "4:10: workers: expected an integer from 1 to 1024, found \"-1\""),
    ("workers: true", "4:10: workers: expected an integer from 1 to 1024, found \"true\""),
    ("workers: null", "4:10: workers: expected an integer from 1 to 1024, found \"null\""),
    (
      "workers: 99999999999999999999",
      "4:10: workers: expected an integer from 1 to 1024, found \"99999999999999999999\""
    ),
    ("admin: {}", "4:8: admin: missing field \"socket\""),
    (
      "admin: { socket: a.sock }", "4:18: admin.socket: expected an absolute path, found \"a.sock\""
    ),
    ("admin: { socket: \"\" }", "4:18: admin.socket: must not be empty"),
    ("admin: { socket: true }", "4:18: admin.socket: expected a text, found \"true\""),
    ("admin: { socket: \"/a\\0b\" }", "4:18: admin.socket: must not hold control characters"),
  ])
  func aBadValueIsRefusedWhereItStands(line: String, complaint: String) {
    expect(line, complaint)
  }

  @Test func theAdminSocketFitsItsAddress() {
    let longest = "/" + String(repeating: "a", count: 106)
    #expect(Sample.complaint(Sample.least + "admin: { socket: \(longest) }") == nil)
    expect("admin: { socket: \(longest)a }", "4:18: admin.socket: longer than 107 bytes")
  }

  @Test(arguments: [
    ("maximumConnections", 1, 1_000_000), ("handshakeTimeoutMilliseconds", 10, 600_000),
    ("connectTimeoutMilliseconds", 10, 600_000), ("halfCloseTimeoutMilliseconds", 10, 604_800_000),
    ("drainTimeoutMilliseconds", 0, 3_600_000), ("sniffMemoryMaximumBytes", 262_144, 1_073_741_824),
  ])
  func everyLimitHasItsRange(key: String, low: Int, high: Int) {
    for value in [low, high] {
      #expect(Sample.complaint(Sample.least + "limits: { \(key): \(value) }") == nil)
    }
    for value in [low - 1, high + 1] {
      expect(
        "limits: { \(key): \(value) }",
        "4:\(13 + key.count): limits.\(key): expected an integer from \(low) to \(high), found \"\(value)\""
      )
    }
  }

  @Test(arguments: [
    ("{ action: deny }", "5:5: outbound.rules[0]: missing field \"to\""),
    ("{ to: [0::/0] }", "5:5: outbound.rules[0]: missing field \"action\""),
    ("{ to: [], action: deny }", "5:11: outbound.rules[0].to: must not be empty"),
    (
      "{ to: [0::/0], ports: [], action: deny }", "5:27: outbound.rules[0].ports: must not be empty"
    ),
    (
      "{ to: [0::/0], action: tls }",
      "5:5: outbound.rules[0]: missing field \"tls\", which says whom the server must prove to be"
    ),
    (
      "{ to: [0::/0], action: mtls, expect: [] }",
      "5:42: outbound.rules[0].expect: must not be empty"
    ),
    (
      "{ to: [0::/0], action: deny, expect: [\"spiffe://demo.mesh/web\"] }",
      "5:42: outbound.rules[0].expect: goes with action mtls only, the action here is deny"
    ),
    (
      "{ to: [0::/0], action: mtls, expect: [\"spiffe://demo.mesh\"] }",
      "5:43: outbound.rules[0].expect[0]: \"spiffe://demo.mesh\" names a trust domain, not a workload:"
        + " it has no path"
    ),
    (
      "{ to: [0::/0], action: mtls, expect: [\"spiffe://demo.mesh/a/\"] }",
      "5:43: outbound.rules[0].expect[0]: \"spiffe://demo.mesh/a/\" is not a SPIFFE ID: trailing_slash"
    ),
    (
      "{ to: [0::/0], action: mtls, expect: [\"spiffe://other.mesh/a\"] }",
      "5:43: outbound.rules[0].expect[0]: no bundle in workload.trustBundles for trust domain"
        + " \"other.mesh\""
    ),
  ])
  func aRuleThatCannotWorkIsRefused(rule: String, complaint: String) {
    expect("outbound: { rules: [\n    \(rule) ] }", complaint)
  }

  @Test func aPeerThatCannotWorkIsRefused() {
    expect(
      "outbound: { peers: [ { address: 10.0.0.1, identity: \"spiffe://other.mesh/a\" } ] }",
      "4:53: outbound.peers[0].identity: no bundle in workload.trustBundles for trust domain"
        + " \"other.mesh\"")
    expect(
      "outbound: { peers: [ { address: 10.0.0.1 } ] }",
      "4:22: outbound.peers[0]: missing field \"identity\" or \"mesh\"")
    let peer = "{ address: 10.0.0.1, identity: \"spiffe://demo.mesh/a\" }"
    #expect(Sample.complaint(Sample.least + "outbound: { peers: [ \(peer) ] }") == nil)
    expect(
      "outbound:\n  peers:\n    - \(peer)\n    - \(peer.replacing("10.0.0.1", with: "10.0.0.1/32"))",
      "7:18: outbound.peers[1].address: \"10.0.0.1/32\" already has an entry")
  }

  @Test func oneTrustDomainHasOneBundle() {
    let text = Sample.least.replacing(
      "[ { trustDomain: demo.mesh, pem: c } ]",
      with: "[ { trustDomain: demo.mesh, pem: c }, { trustDomain: demo.mesh, pem: d } ]")
    #expect(
      Sample.complaint(text)
        == "c.yaml:3:70: workload.trustBundles[1].trustDomain: \"demo.mesh\" already has a bundle")
    #expect(
      Sample.complaint(Sample.least.replacing("demo.mesh", with: "Demo.mesh"))
        == "c.yaml:3:34: workload.trustBundles[0].trustDomain: \"Demo.mesh\" is not a trust domain:"
        + " invalid_trust_domain")
  }
}
