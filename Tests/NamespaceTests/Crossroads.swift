import Foundation
import TestSupport

/// A mesh that is being introduced: a client with a proxy and one without, a server with a proxy and
/// one without, each in a namespace of its own behind one router.
final class Crossroads: Sendable {
  /// A namespace behind the router.
  final class Host: Sendable {
    let name: String
    let namespace: Namespace
    /// Nil where there is none, and no rules.
    let proxy: Proxy?
    private let number: Int

    fileprivate init(
      _ name: String, _ number: Int, behind router: Namespace, _ proxy: ProxyConfiguration?
    ) throws {
      (self.name, self.number) = (name, number)
      namespace = try Namespace(name)
      try Namespace.join(
        router, namespace, devices: ("eth\(number)", "eth0"),
        addresses: (
          ["10.90.\(number).1/24", "fd90:\(number)::1/64"],
          ["10.90.\(number).2/24", "fd90:\(number)::2/64"]
        ))
      try Program.check(
        ["ip", "-n", namespace.name, "-batch", "-"],
        input: "route add default via 10.90.\(number).1\nroute add default via fd90:\(number)::1\n")
      let namespace = namespace
      self.proxy = try proxy.map { try Proxy(in: namespace, $0) }
      try self.proxy?.installRules()
    }

    func address(_ family: Family) -> String {
      family == .v4 ? "10.90.\(number).2" : "fd90:\(number)::2"
    }
  }

  let meshClient: Host
  let plainClient: Host
  let meshServer: Host
  let plainServer: Host
  private let router: Namespace

  var clients: [Host] { [meshClient, plainClient] }
  var servers: [Host] { [meshServer, plainServer] }

  private init() throws {
    router = try Namespace("router")
    _ = try router.check([
      "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
    ])
    let authority = try Identities.authority.get()
    let client = ProxyConfiguration(try Identities.client.get(), trusting: authority)
    let server = ProxyConfiguration(try Identities.server.get(), trusting: authority)
    meshClient = try Host("meshclient", 1, behind: router, client)
    plainClient = try Host("plainclient", 2, behind: router, nil)
    meshServer = try Host("meshserver", 3, behind: router, server)
    plainServer = try Host("plainserver", 4, behind: router, nil)
  }

  /// Builds it, hands it to the closure, and takes it down.
  static func run(_ body: (Crossroads) throws -> Void) throws {
    let crossroads = try Crossroads()
    defer { crossroads.close() }
    do {
      try body(crossroads)
    } catch {
      let said = (crossroads.clients + crossroads.servers).compactMap { host in
        host.proxy.map { "=== \(host.name)\n\($0.program.errors.text)" }
      }
      throw Trouble("\(error)\n\(said.joined(separator: "\n"))")
    }
  }

  private func close() {
    for host in clients + servers { host.namespace.close() }
    router.close()
  }
}

/// Requests from one client to one server, one after the other: over a connection that lives, and
/// over a new connection each.
final class Traffic: Sendable {
  /// What has to become of a request.
  enum Fate: Sendable {
    case served, refused
    /// While something changes that decides it.
    case either
  }

  private struct State: Sendable {
    var live = Fate.served
    var new = Fate.served
    /// Requests served over the connection that lives.
    var rounds = 0
    var served = 0
    var refused = 0
    var isLiveOver = false
    var isOver = false
    var running = 2
    var failures: [String] = []
  }

  let name: String
  private let state = Box(State())
  /// A pause between requests: the traffic is to go on, not to fill the machine.
  private static let pauseMicroseconds: UInt32 = 3000

  init(from client: Crossroads.Host, to server: Crossroads.Host, _ family: Family, port: UInt16)
    throws
  {
    name = "\(client.name) to \(server.name), \(family)"
    let (namespace, address, state) = (client.namespace, server.address(family), state)
    let live = try namespace.connect(to: address, port: port)
    Self.start(state) {
      while !state.value.isOver, Self.useOnce(live, state) { usleep(Self.pauseMicroseconds) }
      live.close()
    }
    Self.start(state) {
      while !state.value.isOver {
        try Self.connectOnce(state) {
          try attempt("a new one", from: namespace, to: address, port: port)
        }
        usleep(Self.pauseMicroseconds)
      }
    }
  }

  deinit { state.update { $0.isOver = true } }

  /// What has to become of requests that begin from now on.
  func expect(live: Fate? = nil, new: Fate? = nil) {
    state.update {
      $0.live = live ?? $0.live
      $0.new = new ?? $0.new
    }
  }

  /// Waits for `count` requests of each kind that begin from now on, and fails if any of all so far
  /// became something else than it had to.
  func waitForRequests(_ count: Int = 3) throws {
    let before = state.value
    let isDone: Bool? = state.wait { now in
      if !now.failures.isEmpty { return true }
      let isLiveDone = now.isLiveOver || now.rounds >= before.rounds + count + 1
      let new = now.served + now.refused - before.served - before.refused
      return isLiveDone && new >= count + 1 ? true : nil
    }
    let now = state.value
    guard isDone == true, now.failures.isEmpty else {
      throw Trouble("\(name): stood still or broke: \(now.failures)")
    }
  }

  /// Waits until `count` new connections more have been refused.
  func waitForRefusals(_ count: Int) throws {
    let before = state.value.refused
    guard state.wait(until: { $0.refused >= before + count ? true : nil }) == true else {
      throw Trouble("\(name): \(state.value.refused - before) of \(count) were refused")
    }
  }

  /// Waits until the connection that lives has been reset.
  func waitForEndOfLive() throws {
    guard state.wait(until: { $0.isLiveOver ? true : nil }) == true else {
      throw Trouble("\(name): the connection still lives")
    }
  }

  var isLive: Bool { !state.value.isLiveOver }

  /// How many new connections were served so far.
  var served: Int { state.value.served }

  /// Ends it.
  ///
  /// - Returns: what went otherwise than it had to; empty if nothing did.
  func finish() -> [String] {
    state.update { $0.isOver = true }
    if state.wait(until: { $0.running == 0 ? true : nil }) == nil { return ["\(name): no end"] }
    return state.value.failures
  }

  private static func start(_ state: Box<State>, _ body: @escaping @Sendable () throws -> Void) {
    Thread.detachNewThread {
      do {
        try body()
      } catch {
        state.update { $0.failures.append("\(error)") }
      }
      state.update { $0.running -= 1 }
    }
  }

  /// - Returns: whether the connection still lives.
  private static func useOnce(_ live: TestSupport.Stream, _ state: Box<State>) -> Bool {
    do {
      guard try live.exchange("the one that lives") else { throw Trouble("another answer") }
      return state.update {
        $0.rounds += 1
        if $0.live == .refused { $0.failures.append("it was to end, and lives") }
        return true
      }
    } catch {
      return state.update {
        $0.isLiveOver = true
        if $0.live == .served { $0.failures.append("the one that lives: \(error)") }
        return false
      }
    }
  }

  private static func connectOnce(
    _ state: Box<State>, _ connect: () throws -> Attempt
  ) throws {
    let wanted = state.value.new
    let outcome = try connect()
    state.update {
      if outcome == .answered { $0.served += 1 } else { $0.refused += 1 }
      // What began under another expectation is held to none.
      guard wanted == $0.new, wanted != .either else { return }
      if (outcome == .answered) != (wanted == .served) {
        $0.failures.append("a new connection was \(outcome)")
      }
    }
  }
}
