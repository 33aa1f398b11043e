package import Net

/// What the rules of one network namespace send to the proxy, and what they leave alone.
///
/// An empty include list means everything. An exclusion wins over an inclusion.
package struct InterceptionPlan: Hashable, Sendable {
  /// Where outbound connections are redirected to; the proxy listens there on loopback.
  package var outboundPort: UInt16 = 15001
  /// Where inbound connections are redirected to.
  package var inboundPort: UInt16 = 15006
  /// Reached directly by mesh peers, never redirected.
  package var meshPort: UInt16 = 15008
  package var interceptsInbound = true
  package var interceptsOutbound = true

  package var includeInboundPorts = PortSet()
  package var excludeInboundPorts = PortSet()
  package var includeOutboundPorts = PortSet()
  package var excludeOutboundPorts = PortSet()
  package var includeOutboundCIDRs: [CIDR] = []
  package var excludeOutboundCIDRs: [CIDR] = []
  /// Sockets of these users and groups connect outwards untouched.
  package var excludedUsers: [UInt32] = []
  package var excludedGroups: [UInt32] = []
  /// Interfaces whose traffic is left alone in both directions; each passes
  /// `isInterfaceName`.
  package var excludedInterfaces: [String] = []

  /// The low 16 bits by which the rules know the proxy's own sockets; never zero.
  package var mark: UInt16 = UInt16(Mark.proxy)
  /// Whether what should have been intercepted and was not is dropped.
  package var guardsLeaks = true
  /// Whether UDP other than DNS is dropped in both directions.
  package var blocksUDP = false

  package init() {}

  /// Whether the kernel could name an interface so (net/core/dev.c `dev_valid_name`), and nft
  /// text can quote it.
  package static func isInterfaceName(_ name: String) -> Bool {
    (1...15).contains(name.utf8.count) && name != "." && name != ".."
      && name.utf8.allSatisfy { (0x21...0x7e).contains($0) && !#"/:"*\"#.utf8.contains($0) }
  }
}
