internal import CLinux
package import Net

/// What is wrong with a namespace's interception; the text is one line.
package enum VerificationFailure: Error, Hashable, Sendable, CustomStringConvertible {
  case rulesMissing
  /// Each item in words.
  case rulesIncomplete([String])
  /// The rules are right, and nobody listens where they lead to.
  case listenerAbsent(UInt16)
  /// The rules are right, and a connection through them ended elsewhere than at this port.
  case notRedirected(SocketAddress, UInt16)

  package var description: String {
    switch self {
    case .rulesMissing:
      "rules missing: no table inet \(Table.name); run culvert-init install"
    case .rulesIncomplete(let differences):
      "rules incomplete: \(differences[0])"
        + (differences.count > 1 ? " (and \(differences.count - 1) more differences)" : "")
        + "; run culvert-init install with the same options"
    case .listenerAbsent(let port):
      "listener absent: the rules are in place, but nothing accepts on port \(port); "
        + "start culvert-proxy"
    case .notRedirected(let address, let port):
      "not redirected: the rules are in place, but a connection to \(address) did not reach "
        + "port \(port)"
    }
  }
}

extension Interceptor {
  /// Milliseconds a probe may take to connect. It never leaves this namespace.
  private static let probeTimeoutMilliseconds: Int32 = 2000

  /// Compares what is installed with the plan; nil if they agree.
  package static func verifyRules(
    _ plan: InterceptionPlan
  ) throws(NetfilterError) -> VerificationFailure? {
    guard let installed = try installed() else { return .rulesMissing }
    let differences = installed.differences(from: Table(plan))
    return differences.isEmpty ? nil : .rulesIncomplete(differences)
  }

  /// Connects through the rules, to an address that is never reached, and looks where that ends.
  ///
  /// Nothing is sent. Verify the rules first: without them the connection would go outside.
  package static func probe(
    _ plan: InterceptionPlan
  ) throws(NetfilterError) -> VerificationFailure? {
    var sockets = try SocketTable()
    if plan.interceptsInbound {
      let isHeard = try sockets.list().contains {
        $0.isListening && $0.local.port == plan.inboundPort && !$0.local.address.isLoopback
      }
      if !isHeard { return .listenerAbsent(plan.inboundPort) }
    }
    guard plan.interceptsOutbound else { return nil }
    for destination in try probeDestinations(plan) {
      do throws(Errno) {
        return try probe(destination, port: plan.outboundPort)
      } catch {
        switch error {
        // No route from here, or no such family.
        case Errno(ENETUNREACH), Errno(EHOSTUNREACH), Errno(EAFNOSUPPORT), Errno(EACCES),
          .addressNotAvailable:
          continue
        default: throw .netlink("cannot probe \(destination)", error)
        }
      }
    }
    throw .cannotProbe
  }

  private static func probe(
    _ destination: SocketAddress, port: UInt16
  ) throws(Errno) -> VerificationFailure? {
    let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let socket = try Socket.stream(destination.address.family, flags: flags)
    do throws(Errno) {
      try Socket.connect(socket.number, to: destination)
    } catch Errno.inProgress {
      var events = pollfd(fd: socket.number, events: Int16(POLLOUT), revents: 0)
      let ready = try Errno.check { unsafe poll(&events, 1, probeTimeoutMilliseconds) }
      if ready == 0 { return .notRedirected(destination, port) }
      switch Errno(try Socket.option(socket.number, level: SOL_SOCKET, SO_ERROR)) {
      case Errno(0): break
      case Errno(ECONNREFUSED): return .listenerAbsent(port)
      case .connectionReset: return nil
      case let error: throw error
      }
    }
    let local = try Socket.localAddress(socket.number)
    if isAccepted(local, at: port) || isReset(socket.number) { return nil }
    return .notRedirected(destination, port)
  }

  /// Whether a connection that was accepted has been reset since. A proxy does that at once where
  /// it cannot reach the destination; where nobody listens the connection is refused instead, and
  /// that it is redirected the rules have shown.
  private static func isReset(_ socket: Int32) -> Bool {
    Socket.pendingError(socket) == .connectionReset
  }

  /// Whether a socket of this namespace at `port` has `remote` as its other end.
  private static func isAccepted(_ remote: SocketAddress, at port: UInt16) -> Bool {
    guard var sockets = try? SocketTable(), let listed = try? sockets.list() else { return false }
    return listed.contains {
      $0.local.port == port && $0.remote.address == remote.address && $0.remote.port == remote.port
    }
  }

  /// Addresses the rules redirect: of TEST-NET-1 (RFC 5737) and of the documentation prefix
  /// (RFC 3849), then such as the namespace has a route for in any case.
  private static func probeDestinations(
    _ plan: InterceptionPlan
  ) throws(NetfilterError) -> [SocketAddress] {
    let own = try NetworkNamespace.addresses()
    var addresses = [IPAddress(v4: 0xc000_0201), IPAddress(v6: 0x2001_0db8 << 96 | 1)]
    addresses += plan.includeOutboundCIDRs.map(\.address)
    for (address, interface) in own where interface != "lo" && !address.isLinkLocalV6 {
      let neighbour = address.bits ^ 1
      addresses.append(
        address.family == .v4
          ? IPAddress(v4: UInt32(truncatingIfNeeded: neighbour)) : IPAddress(v6: neighbour))
    }
    let ports: [UInt16] = [80] + plan.includeOutboundPorts.ranges.map(\.lowerBound) + [9, 49_151]
    let table = Table(plan)
    return addresses.filter { own[$0] == nil && !$0.isLoopback }.compactMap { address in
      ports.first { port in
        let flow = Flow(.outgoing, destination: address, destinationPort: port, user: geteuid())
        return table.redirection(of: flow) != nil
      }.map { SocketAddress(address, port: $0) }
    }
  }
}

extension InstalledTable {
  /// How this differs from what is expected, each difference in words; empty if it does not.
  package func differences(from expected: Table) -> [String] {
    var result = unknown.map { "unknown: \($0)" }
    for chain in expected.chains {
      guard let found = table.chains.first(where: { $0.name == chain.name }) else {
        result.append("no chain \(chain.name)")
        continue
      }
      if found.kind != chain.kind || found.hook != chain.hook {
        result.append("chain \(chain.name) sits elsewhere")
      }
      let missing = chain.rules.filter { !found.rules.contains($0) }
      let surplus = found.rules.filter { !chain.rules.contains($0) }
      result += missing.map { "chain \(chain.name) lacks: \($0)" }
      result += surplus.map { "chain \(chain.name) has besides: \($0)" }
      if missing.isEmpty, surplus.isEmpty, found.rules != chain.rules {
        result.append("chain \(chain.name) has its rules in another order")
      }
    }
    let names = Set(expected.chains.map(\.name))
    result += table.chains.filter { !names.contains($0.name) }.map { "surplus chain \($0.name)" }
    return result
  }
}
