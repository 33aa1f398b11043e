package import Net

/// A connection as its first packet would show it.
package struct Flow: Hashable, Sendable {
  package var way: Match.Way
  package var destination: IPAddress
  package var destinationPort: UInt16
  package var sourcePort: UInt16
  package var mark: UInt32
  /// Owner of the socket; nil for an inbound connection.
  package var user: UInt32?
  /// The interface it goes out by or came in by; nil if that is not known.
  package var interface: String?

  package init(
    _ way: Match.Way, destination: IPAddress, destinationPort: UInt16, sourcePort: UInt16 = 0,
    mark: UInt32 = 0, user: UInt32? = nil, interface: String? = nil
  ) {
    self.way = way
    self.destination = destination
    self.destinationPort = destinationPort
    self.sourcePort = sourcePort
    self.mark = mark
    self.user = user
    self.interface = interface
  }
}

extension Table {
  /// The port a new connection would be redirected to; nil if it would be left alone.
  ///
  /// The owner's group is unknown and taken not to be excluded.
  package func redirection(of flow: Flow) -> UInt16? {
    let chain = chain(.nat, at: flow.way == .outgoing ? .output : .prerouting)
    for rule in chain?.rules ?? [] where rule.matches.allSatisfy({ $0.holds(for: flow) }) {
      if case .redirect(let port) = rule.statement { return port }
      return nil
    }
    return nil
  }

  /// Whether some group's connections are left alone.
  package var excludesGroups: Bool {
    chain(.nat, at: .output)?.rules.contains { rule in
      rule.matches.contains { if case .group = $0 { true } else { false } }
    } ?? false
  }

  /// The ports connections are redirected to.
  package var redirectPorts: PortSet {
    PortSet(
      chains.flatMap(\.rules).compactMap { rule in
        if case .redirect(let port) = rule.statement { port...port } else { nil }
      })
  }
}

extension Match {
  fileprivate func holds(for flow: Flow) -> Bool {
    switch self {
    case .transport(let transport, let negated): (transport == .tcp) != negated
    case .family(let family): flow.destination.family == family
    case .mark(let mark): flow.mark & Mark.mask == UInt32(mark)
    case .loopback(let way): way == flow.way && flow.interface == "lo"
    case .interface(let way, let name): way == flow.way && flow.interface == name
    case .user(let user): flow.user == user
    case .destination(let set, let negated):
      flow.destination.family == set.family && set.contains(flow.destination) != negated
    case .port(.destination, let ports, let negated):
      ports.contains(flow.destinationPort) != negated
    case .port(.source, let ports, let negated): ports.contains(flow.sourcePort) != negated
    case .localDestination: flow.way == .incoming
    case .connectionMark, .forwarded, .group, .flag, .replyDirection, .originalPort: false
    }
  }
}
