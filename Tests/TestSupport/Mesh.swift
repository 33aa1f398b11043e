internal import Foundation

/// IPv4 or IPv6, for tests that hold for both.
package enum Family: String, CaseIterable, Sendable, CustomStringConvertible {
  case v4 = "IPv4"
  case v6 = "IPv6"

  package var description: String { rawValue }

  /// The client namespace's address.
  package var client: String { self == .v4 ? "10.90.0.1" : "fd90::1" }
  /// The server namespace's address, seen from the client.
  package var server: String { self == .v4 ? "10.90.0.2" : "fd90::2" }
  /// A second address of the server namespace.
  package var otherServer: String { self == .v4 ? "10.90.0.20" : "fd90::20" }
  /// The address of a third namespace that has no proxy.
  package var outsider: String { self == .v4 ? "10.90.1.3" : "fd90:1::3" }
  /// The server namespace's address, seen from the third namespace.
  package var serverForOutsider: String { self == .v4 ? "10.90.1.2" : "fd90:1::2" }
  package var loopback: String { self == .v4 ? "127.0.0.1" : "::1" }

  /// `address:port`, in brackets where IPv6 needs them.
  package func endpoint(_ address: String, _ port: UInt16) -> String {
    self == .v4 ? "\(address):\(port)" : "[\(address)]:\(port)"
  }

  package func range(_ address: String) -> String { address + (self == .v4 ? "/32" : "/128") }
}

/// Two namespaces joined by a veth pair, each with or without a proxy and its rules; and, where a
/// test asks for it, a third one without a proxy that reaches the server namespace.
package final class Mesh: Sendable {
  package let client: Namespace
  package let server: Namespace
  package let outsider: Namespace?
  /// Nil where the mesh was made without one.
  package let clientProxy: Proxy?
  package let serverProxy: Proxy?

  /// What a test wants to be different from the standard mesh.
  package struct Plan: Sendable {
    /// nil: no proxy and no rules there.
    package var client: ProxyConfiguration?
    package var server: ProxyConfiguration?
    package var hasOutsider = false
    /// Extra options of `culvert-init install`.
    package var clientRules: [String] = []
    package var serverRules: [String] = []
    /// False: the proxies run, but nothing is redirected to them yet.
    package var installsRules = true

    /// Both sides have a proxy, and the client's knows the server's addresses as mesh.
    package static func standard(_ change: (inout Plan) throws -> Void = { _ in }) throws -> Plan {
      let authority = try Identities.authority.get()
      var client = ProxyConfiguration(try Identities.client.get(), trusting: authority)
      client.peers = Family.allCases.map { ($0.range($0.server), Identities.serverID) }
      let server = ProxyConfiguration(try Identities.server.get(), trusting: authority)
      var plan = Plan(client: client, server: server)
      try change(&plan)
      return plan
    }
  }

  private init(_ plan: Plan) throws {
    Machine.raiseDescriptorLimit
    client = try Namespace("client")
    server = try Namespace("server")
    try Namespace.join(
      client, server, addresses: (["10.90.0.1/24", "fd90::1/64"], Self.serverAddresses))
    outsider = plan.hasOutsider ? try Namespace("outsider") : nil
    if let outsider {
      try Namespace.join(
        outsider, server, devices: ("eth0", "eth1"),
        addresses: (["10.90.1.3/24", "fd90:1::3/64"], ["10.90.1.2/24", "fd90:1::2/64"]))
    }
    // As in operation: listeners first, rules second.
    let (client, server) = (client, server)
    clientProxy = try plan.client.map { try Proxy(in: client, $0) }
    serverProxy = try plan.server.map { try Proxy(in: server, $0) }
    if plan.installsRules {
      try clientProxy?.installRules(plan.clientRules)
      try serverProxy?.installRules(plan.serverRules)
    }
  }

  private static let serverAddresses = [
    "10.90.0.2/24", "fd90::2/64", "10.90.0.20/24", "fd90::20/64",
  ]

  /// Builds a mesh, hands it to the closure, and takes it down.
  package static func run(_ plan: Plan? = nil, _ body: (Mesh) throws -> Void) throws {
    let mesh = try Mesh(plan ?? .standard())
    defer { mesh.close() }
    do {
      try body(mesh)
    } catch {
      throw Trouble("\(error)\n\(mesh.transcript)")
    }
  }

  private func close() {
    client.close()
    server.close()
    outsider?.close()
  }

  /// What the proxies said, for failure messages.
  package var transcript: String {
    [("client", clientProxy), ("server", serverProxy)].compactMap { side, proxy in
      proxy.map { "=== \(side) proxy\n\($0.program.transcript)" }
    }.joined(separator: "\n")
  }

  /// Records what passes between client and server while the closure runs.
  package func captured(_ body: () throws -> Void) throws -> Recording {
    let capture = try Capture(in: server)
    try body()
    return try capture.finish(markFrom: client, to: Family.v4.server)
  }
}
