import Foundation
import Testing

/// Where connections end up, over IPv4 and IPv6.
@Suite(
  .serialized,
  .enabled(if: missingFeature == nil, "missing: \(missingFeature ?? "nothing")"))
struct TrafficTests {
  static let outward = [Wire.outsideV4, Wire.outsideV6]
  static let inward = [Wire.insideV4, Wire.insideV6]

  @Test(arguments: outward)
  func `an outbound connection lands on the outbound port`(_ address: String) throws {
    let wire = try Wire()
    let server = try wire.outside.sink("7000")
    let proxy = try wire.inside.sink("15001")
    let before = try wire.inside.peer("client", address, "7000")
    try before.expect("connected")
    try server.expect("accepted 7000")
    before.stop()
    try wire.inside.install()
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    try proxy.expect("accepted 15001")
  }

  @Test(arguments: inward)
  func `an inbound connection lands on the inbound port, one to the mesh port does not`(
    _ address: String
  ) throws {
    let wire = try Wire()
    let proxy = try wire.inside.sink("15006", "15008", "7000")
    try wire.inside.install()
    let first = try wire.outside.peer("client", address, "7000")
    try first.expect("connected")
    try proxy.expect("accepted 15006")
    let second = try wire.outside.peer("client", address, "15008")
    try second.expect("connected")
    try proxy.expect("accepted 15008")
  }

  @Test(arguments: inward)
  func `a connection within the namespace is left alone`(_ address: String) throws {
    let wire = try Wire()
    let server = try wire.inside.sink("7000", "15001", "15006")
    try wire.inside.install()
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    #expect(try server.expect("accepted") == "7000")
  }

  /// Options under which outbound port 7000 is left alone, and one port that is not.
  @Test(
    arguments: [
      ["--exclude-outbound-ports", "7000-7001"],
      ["--include-outbound-ports", "7002"],
      ["--exclude-outbound-cidrs", "\(Wire.outsideV4),\(Wire.outsideV6)"],
      ["--include-outbound-cidrs", "192.0.2.0/24,2001:db8::/32"],
      ["--exclude-uids", "0"],
      ["--exclude-gids", "0"],
      ["--exclude-interfaces", "wire0"],
    ], outward)
  func `what is excluded passes both ways, rules and guard`(
    _ options: [String], _ address: String
  ) throws {
    let wire = try Wire()
    let server = try wire.outside.sink("7000")
    let proxy = try wire.inside.sink("15001")
    try wire.inside.install()
    let intercepted = try wire.inside.peer("client", address, "7000")
    try intercepted.expect("connected")
    try proxy.expect("accepted 15001")
    try #require(
      try run([Files.program, "install", "--netns", wire.inside.name] + options).status == 0)
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    try server.expect("accepted 7000")
    try client.tell("send x 3000000")
    // Closed with most of it unsent: those packets belong to a socket that has no owner.
    try client.tell("close")
    try client.expect("closed")
    client.stop()
    #expect(try server.expect("closed 7000") == "3000000")
  }

  @Test(
    arguments: [
      ["--exclude-inbound-ports", "7000"],
      ["--include-inbound-ports", "7001"],
      ["--exclude-interfaces", "wire0"],
    ], inward)
  func `an excluded inbound port is reached directly`(_ options: [String], _ address: String) throws
  {
    let wire = try Wire()
    let server = try wire.inside.sink("7000", "15006")
    try #require(
      try run([Files.program, "install", "--netns", wire.inside.name] + options).status == 0)
    let client = try wire.outside.peer("client", address, "7000")
    try client.expect("connected")
    try client.tell("send x 1000000")
    try client.tell("close")
    #expect(try server.expect("accepted") == "7000")
    #expect(try server.expect("closed 7000") == "1000000")
  }

  @Test func `an excluded server's connection older than the rules lives on`() throws {
    let wire = try Wire()
    let server = try wire.inside.peer("pour", "7000", "PLAIN")
    try server.expect("ready")
    let client = try wire.outside.peer("client", Wire.insideV4, "7000")
    try client.expect("connected")
    try server.expect("accepted")
    // Nothing tracks connections here before the rules: the server's packet is the first one seen.
    try wire.inside.install("--exclude-inbound-ports", "7000")
    let capture = try Capture(wire)
    try server.tell("go")
    try server.expect("flooding")
    var seen = 0
    let deadline = Date(timeIntervalSinceNow: 10)
    while seen == 0, deadline.timeIntervalSinceNow > 0 { seen = try capture.count("PLAIN") }
    #expect(seen > 0)
  }

  @Test func `forwarded connections are neither captured nor dropped`() throws {
    let left = try Wire()
    let far = try TestNamespace()
    // left.outside — left.inside (with the rules) — far
    try succeed(
      "ip", "link", "add", "far0", "netns", left.inside.name, "type", "veth", "peer", "name",
      "far0", "netns", far.name)
    for (name, address) in [(left.inside.name, "10.92.0.1/24"), (far.name, "10.92.0.2/24")] {
      try succeed("ip", "-n", name, "addr", "add", address, "dev", "far0")
      try succeed("ip", "-n", name, "link", "set", "far0", "up")
    }
    try succeed("ip", "-n", far.name, "route", "add", "default", "via", "10.92.0.1")
    try succeed("ip", "-n", left.outside.name, "route", "add", "default", "via", Wire.insideV4)
    try succeed(
      "ip", "netns", "exec", left.inside.name, "sh", "-c",
      "echo 1 > /proc/sys/net/ipv4/ip_forward")
    try left.inside.install("--block-udp")
    let server = try far.sink("7000")
    let client = try left.outside.peer("client", "10.92.0.2", "7000")
    try client.expect("connected")
    try client.tell("send x 100000")
    try client.tell("close")
    #expect(try server.expect("closed 7000") == "100000")
  }

  @Test(arguments: [
    (Wire.outsideV4, Wire.insideV4), (Wire.outsideV6, Wire.insideV6),
  ])
  func `blocked UDP is dropped both ways, DNS and lo are not`(
    _ outside: String, _ inside: String
  ) throws {
    let wire = try Wire()
    let servers = [
      try wire.outside.peer("answer", "5353", "far"), try wire.outside.peer("answer", "53", "far"),
      try wire.inside.peer("answer", "5353", "near"), try wire.inside.peer("answer", "53", "near"),
    ]
    for server in servers { try server.expect("ready") }
    func ask(_ from: TestNamespace, _ address: String, _ port: String, _ source: String = "0")
      throws
      -> String
    {
      try from.peer("datagram", address, port, "x", source).expect("")
    }
    try wire.inside.install()
    #expect(try ask(wire.inside, outside, "5353") == "answered far")
    #expect(try ask(wire.outside, inside, "5353") == "answered near")
    try wire.inside.install("--block-udp")
    #expect(try ask(wire.inside, outside, "5353").hasPrefix("failed"))
    #expect(try ask(wire.outside, inside, "5353").hasPrefix("failed"))
    // A source port of 53 makes no answer of what nobody asked for.
    servers[1].stop()
    #expect(try ask(wire.outside, inside, "5353", "53").hasPrefix("failed"))
    #expect(try ask(wire.outside, inside, "53") == "answered near")
    #expect(try ask(wire.inside, inside, "5353") == "answered near")
    #expect(try ask(wire.inside, outside, "53").hasPrefix("failed"))
    let again = try wire.outside.peer("answer", "53", "far")
    try again.expect("ready")
    #expect(try ask(wire.inside, outside, "53") == "answered far")
  }
}
