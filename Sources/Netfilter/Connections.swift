internal import Net

/// Which of a namespace's connections change sides when rules come or go.
struct Connections {
  private let sockets: [ListedSocket]
  private let interfaces: [IPAddress: String]
  private let listening: Set<UInt16>
  private let remotes: Set<SocketAddress>

  /// `interfaces` names the interface of each of the namespace's own addresses.
  init(_ sockets: [ListedSocket], interfaces: [IPAddress: String]) {
    self.sockets = sockets.filter { !$0.isListening }
    self.interfaces = interfaces
    listening = Set(sockets.filter(\.isListening).map(\.local.port))
    remotes = Set(self.sockets.map { Self.unscoped($0.remote) })
  }

  private static func unscoped(_ address: SocketAddress) -> SocketAddress {
    SocketAddress(address.address, port: address.port)
  }

  private func isLocal(_ address: IPAddress) -> Bool {
    address.isLoopback || interfaces[address] != nil
  }

  /// Whether the other end is in this namespace too. A redirect changes where a connection goes,
  /// never where it comes from, so the proxy's end names the application's as its remote.
  private func endsHere(_ socket: ListedSocket) -> Bool {
    isLocal(socket.remote.address) || remotes.contains(Self.unscoped(socket.local))
  }

  private func flow(_ socket: ListedSocket) -> Flow {
    let interface = interfaces[socket.local.address]
    // A connection to a port somebody listens on came from outside; sock_diag does not say.
    return listening.contains(socket.local.port)
      ? Flow(
        .incoming, destination: socket.local.address, destinationPort: socket.local.port,
        sourcePort: socket.remote.port, interface: interface)
      : Flow(
        .outgoing, destination: socket.remote.address, destinationPort: socket.remote.port,
        sourcePort: socket.local.port, mark: socket.mark, user: socket.user, interface: interface)
  }

  /// Those that pass the rules of `table` by, although a new one of the kind would not.
  ///
  /// An owner's group is not known here: if groups are excluded, outbound connections are left to
  /// the guard, which knows.
  func unintercepted(by table: Table) -> [ListedSocket] {
    let knowsOwners = !table.excludesGroups || table.chain(.filter, at: .postrouting) == nil
    let proxyPorts = table.redirectPorts
    return sockets.filter { socket in
      let flow = flow(socket)
      return !endsHere(socket) && !proxyPorts.contains(socket.local.port)
        && (flow.way == .incoming || knowsOwners) && table.redirection(of: flow) != nil
    }
  }

  /// Those that live by the redirects of `table`: without them their bytes would leave in
  /// plaintext, or reach nobody.
  func intercepted(by table: Table) -> [ListedSocket] {
    let proxyPorts = table.redirectPorts
    let redirected = Set(
      sockets.filter { proxyPorts.contains($0.local.port) }.map { Self.unscoped($0.remote) })
    return sockets.filter { socket in
      if isLocal(socket.remote.address) { return false }
      if proxyPorts.contains(socket.local.port) { return true }
      if redirected.contains(Self.unscoped(socket.local)) { return true }
      let flow = flow(socket)
      return flow.way == .outgoing && !socket.isConnecting && !table.excludesGroups
        && table.redirection(of: flow) != nil
    }
  }
}
