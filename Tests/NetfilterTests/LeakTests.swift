import Foundation
import Testing

/// Nothing that should be intercepted crosses the wire as it is: each test has a twin with the one
/// difference that lets it, in which the same capture finds the canary.
@Suite(
  .serialized,
  .enabled(if: missingFeature == nil, "missing: \(missingFeature ?? "nothing")"))
struct LeakTests {
  static let canary = "CANARY-7f3a91"
  static let outward = [Wire.outsideV4, Wire.outsideV6]

  /// Makes the kernel track connections before there are rules of ours, so that a connection older
  /// than they are is known as such.
  private func track(_ namespace: TestNamespace) throws {
    try succeed(
      "ip", "netns", "exec", namespace.name, "nft",
      "add table inet tracking; add chain inet tracking c "
        + "{ type filter hook prerouting priority 0; }; "
        + "add rule inet tracking c ct state invalid counter")
  }

  @Test(arguments: outward)
  func `a connection older than the rules is closed before it leaks`(_ address: String) throws {
    let wire = try Wire()
    try track(wire.inside)
    let server = try wire.outside.sink("7000")
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    try wire.inside.install()
    let capture = try Capture(wire)
    try client.tell("flood \(Self.canary)")
    #expect(try client.expect("failed").hasPrefix("Connection"))
    #expect(try capture.count(Self.canary) == 0)
    try server.expect("reset 7000 0")
  }

  @Test(arguments: outward)
  func `a connection older than the rules and kept is stopped by the guard`(
    _ address: String
  ) throws {
    let wire = try Wire()
    try track(wire.inside)
    let server = try wire.outside.sink("7000")
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    try server.expect("accepted")
    try wire.inside.install("--keep-connections")
    let capture = try Capture(wire)
    try client.tell("send \(Self.canary) 1000")
    try client.expect("sent")
    try client.tell("retried")
    try client.expect("retried")
    #expect(try capture.count(Self.canary) == 0)
  }

  @Test(arguments: outward)
  func `twin: without guard, a kept connection leaks`(_ address: String) throws {
    let wire = try Wire()
    try track(wire.inside)
    let server = try wire.outside.sink("7000")
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    try server.expect("accepted")
    try wire.inside.install("--keep-connections", "--no-guard")
    let capture = try Capture(wire)
    try client.tell("send \(Self.canary) 1000")
    try client.expect("sent")
    try client.tell("close")
    try server.expect("closed 7000")
    #expect(try capture.count(Self.canary) > 0)
  }

  @Test(arguments: [(["--keep-connections"], false), (["--keep-connections", "--no-guard"], true)])
  func `a server that talks on an inbound connection older than the rules`(
    _ options: [String], _ leaks: Bool
  ) throws {
    let wire = try Wire()
    try track(wire.inside)
    let server = try wire.inside.peer("pour", "7000", Self.canary)
    try server.expect("ready")
    let client = try wire.outside.peer("client", Wire.insideV4, "7000")
    try client.expect("connected")
    try server.expect("accepted")
    try #require(
      try run([Files.program, "install", "--netns", wire.inside.name] + options).status == 0)
    let capture = try Capture(wire)
    try server.tell("go")
    try server.expect("flooding")
    #expect(try (capture.count(Self.canary) > 0) == leaks)
  }

  @Test func `rules that come under traffic stop it, and no more than was sent before leaks`()
    throws
  {
    let wire = try Wire()
    try track(wire.inside)
    let server = try wire.outside.sink("7000")
    let proxy = try wire.inside.sink("15001")
    let client = try wire.inside.peer("client", Wire.outsideV4, "7000")
    try client.expect("connected")
    try client.tell("flood \(Self.canary)")
    try client.expect("flooding")
    try wire.inside.install()
    try client.expect("failed")
    let capture = try Capture(wire)
    let next = try wire.inside.peer("client", Wire.outsideV4, "7000")
    try next.expect("connected")
    try next.tell("send \(Self.canary) 1000")
    try next.expect("sent")
    #expect(try capture.count(Self.canary) == 0)
    withExtendedLifetime((server, proxy)) {}
  }

  @Test(arguments: outward)
  func `remove under live traffic leaks nothing`(_ address: String) throws {
    let wire = try Wire()
    let server = try wire.outside.sink("7000")
    let proxy = try wire.inside.sink("15001")
    try wire.inside.install()
    let capture = try Capture(wire)
    let clients = try (0..<4).map { _ in try wire.inside.peer("client", address, "7000") }
    for client in clients {
      try client.expect("connected")
      try client.tell("flood \(Self.canary)")
      try client.expect("flooding")
    }
    #expect(try wire.inside.initialize("remove").status == 0)
    for client in clients { try client.expect("failed") }
    #expect(try capture.count(Self.canary) == 0)
    #expect(try wire.inside.ruleset() == "")
    let after = try wire.inside.peer("client", address, "7000")
    try after.expect("connected")
    try server.expect("accepted 7000")
    withExtendedLifetime(proxy) {}
  }

  @Test(arguments: outward)
  func `twin: remove that keeps connections leaks`(_ address: String) throws {
    let wire = try Wire()
    let server = try wire.outside.sink("7000")
    let proxy = try wire.inside.sink("15001")
    try wire.inside.install()
    let capture = try Capture(wire)
    let client = try wire.inside.peer("client", address, "7000")
    try client.expect("connected")
    try client.tell("flood \(Self.canary)")
    try client.expect("flooding")
    #expect(try wire.inside.initialize("remove", "--keep-connections").status == 0)
    try client.expect("failed")
    #expect(try capture.count(Self.canary) > 0)
    withExtendedLifetime((server, proxy)) {}
  }

  @Test func `remove closes inbound connections that were redirected, and no others`() throws {
    let wire = try Wire()
    let proxy = try wire.inside.sink("15006", "15008")
    try wire.inside.install()
    let redirected = try wire.outside.peer("client", Wire.insideV4, "7000")
    try redirected.expect("connected")
    let direct = try wire.outside.peer("client", Wire.insideV4, "15008")
    try direct.expect("connected")
    #expect(try wire.inside.initialize("remove").status == 0)
    try proxy.expect("reset 15006")
    try direct.tell("send x 1000")
    try direct.tell("close")
    #expect(try proxy.expect("closed 15008") == "1000")
  }

  @Test func `reinstalling under live traffic neither leaks nor cuts a connection`() throws {
    let wire = try Wire()
    let server = try wire.outside.sink("7000")
    let proxy = try wire.inside.sink("15001")
    try wire.inside.install()
    let capture = try Capture(wire)
    let client = try wire.inside.peer("client", Wire.outsideV4, "7000")
    try client.expect("connected")
    try client.tell("flood \(Self.canary)")
    try client.expect("flooding")
    for round in 0..<20 {
      try wire.inside.install("--exclude-outbound-ports", "\(round + 1)")
      let next = try wire.inside.peer("client", Wire.outsideV4, "7000")
      try next.expect("connected")
      try next.tell("send \(Self.canary) 100")
      try next.expect("sent")
    }
    #expect(throws: TimedOut.self) { try client.expect("failed", seconds: 0) }
    #expect(try capture.count(Self.canary) == 0)
    // The server saw no connection at all.
    #expect(throws: TimedOut.self) { try server.expect("accepted", seconds: 0) }
    withExtendedLifetime(proxy) {}
  }

  @Test(arguments: outward, [false, true])
  func `a forged segment that belongs to no connection is stopped by the guard alone`(
    _ address: String, _ hasGuard: Bool
  ) throws {
    let wire = try Wire()
    if hasGuard { try wire.inside.install() } else { try wire.inside.install("--no-guard") }
    let capture = try Capture(wire)
    let forger = try wire.inside.peer("forge", address, "7000", Self.canary)
    let outcome = try forger.expect("")
    #expect(outcome == (hasGuard ? "refused" : "sent"))
    #expect(try (capture.count(Self.canary) > 0) == !hasGuard)
  }

  @Test func `without a proxy nothing leaks`() throws {
    let wire = try Wire()
    let server = try wire.outside.sink("7000")
    try wire.inside.install()
    let client = try wire.inside.peer("client", Wire.outsideV4, "7000")
    #expect(try client.expect("failed") == "ConnectionRefusedError")
    withExtendedLifetime(server) {}
  }
}
