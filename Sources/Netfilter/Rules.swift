package import Net

/// The table `inet culvert` as a value: what is planned and what is read back compare equal.
package struct Table: Hashable, Sendable {
  package static let name = "culvert"
  /// The table's comment, by which a later run knows its own table.
  package static let comment = "culvert-init"

  package var chains: [Chain]

  package init(chains: [Chain] = []) { self.chains = chains }

  /// The first chain of this kind at this hook.
  package func chain(_ kind: Chain.Kind, at hook: Hook) -> Chain? {
    chains.first { $0.kind == kind && $0.hook == hook }
  }
}

package enum Hook: String, Hashable, Sendable, CaseIterable {
  case prerouting, input, output, postrouting
}

/// A base chain; its policy is always accept.
package struct Chain: Hashable, Sendable {
  package enum Kind: String, Hashable, Sendable, CaseIterable {
    case nat, filter

    /// -100, before routing is decided anew; 0 lies after it and before source NAT (100), so a
    /// reply of a redirected connection still shows the proxy's port.
    package var priority: Int32 { self == .nat ? -100 : 0 }
  }

  package var name: String
  package var kind: Kind
  package var hook: Hook
  package var rules: [Rule]

  package init(_ name: String, _ kind: Kind, _ hook: Hook, _ rules: [Rule]) {
    self.name = name
    self.kind = kind
    self.hook = hook
    self.rules = rules
  }
}

/// A statement and what a packet must look like for it; no match means every packet.
package struct Rule: Hashable, Sendable {
  package var matches: [Match]
  package var statement: Statement

  package init(_ matches: [Match], _ statement: Statement) {
    self.matches = matches
    self.statement = statement
  }

  package init(_ match: Match, _ statement: Statement) { self.init([match], statement) }
}

package enum Statement: Hashable, Sendable {
  /// Leave the chain; the packet goes on.
  case pass
  case drop
  /// NAT to this port of this host.
  case redirect(UInt16)
  /// Write the mark into the low 16 bits of the connection's mark.
  case markConnection(UInt16)
}

package enum Match: Hashable, Sendable {
  package enum Transport: UInt8, Hashable, Sendable {
    case tcp = 6
    case udp = 17
  }

  /// The interface a packet came in by or goes out by.
  package enum Way: Hashable, Sendable { case incoming, outgoing }

  /// Which of the two ports of a packet; the raw value is its offset in the TCP header.
  package enum End: UInt32, Hashable, Sendable {
    case source = 0
    case destination = 2
  }

  /// Bits of the TCP header's flags.
  package enum Flag: UInt8, Hashable, Sendable {
    case rst = 0x04
    case ack = 0x10
  }

  case transport(Transport, negated: Bool = false)
  case family(IPAddress.Family)
  /// The packet's mark, low 16 bits; a packet has the mark of its socket, also when no process
  /// holds that socket any more.
  case mark(UInt16)
  /// The connection's mark, low 16 bits.
  case connectionMark(UInt16)
  case loopback(Way)
  /// The packet came in by an interface: at postrouting, it is forwarded (Linux 5.7).
  case forwarded
  case interface(Way, String)
  /// Owner of the socket; matches no packet of a socket that its process has closed.
  case user(UInt32)
  case group(UInt32)
  case destination(AddressSet, negated: Bool = false)
  case port(End, PortSet, negated: Bool = false)
  case flag(Flag)
  /// Against the direction of the connection's first packet. A packet that belongs to no
  /// connection matches neither direction.
  case replyDirection
  /// Destination port of the connection's first packet, before any NAT.
  case originalPort(UInt16)
  case localDestination
}
