package import Net

/// `discovery`: how the proxy finds out whether a mesh proxy owns the other end, where no rule and
/// no peer entry says so.
package struct DiscoverySettings: Hashable, Sendable {
  package enum Announce: String, Hashable, Sendable, CaseIterable {
    /// In the TCP handshake, where the kernel allows it.
    case auto
    case off
  }

  package enum Probe: String, Hashable, Sendable, CaseIterable {
    /// By a handshake on the mesh port, where the TCP handshake has not told.
    case on
    case off
  }

  package var announce = Announce.auto
  package var probe = Probe.on
  /// The addresses that may be asked: unknown SYN options are dropped by some firewalls on the open
  /// internet. The default is RFC 1918 and RFC 4193.
  package var meshRanges = [
    CIDR(IPAddress(v4: 0x0a00_0000), prefixLength: 8),
    CIDR(IPAddress(v4: 0xac10_0000), prefixLength: 12),
    CIDR(IPAddress(v4: 0xc0a8_0000), prefixLength: 16),
    CIDR(IPAddress(v6: 0xfc << 120), prefixLength: 7),
  ].compactMap(\.self)

  package init() {}

  package func mayAsk(_ address: IPAddress) -> Bool {
    meshRanges.contains { $0.contains(address) }
  }
}

/// What discovery has found out about a destination.
package enum DiscoveryAnswer: Hashable, Sendable {
  case mesh
  /// The TCP handshake was answered in silence, and nothing else was asked.
  case silent
  /// The mesh port does not answer as mesh.
  case noMeshPort
  case notAsked
}

/// How a destination was found to be mesh; the raw value is the word in logs.
package enum MeshEvidence: String, Hashable, Sendable, CaseIterable {
  /// It answered in the TCP handshake.
  case announced
  /// A mesh proxy answered on the mesh port of its address.
  case meshPort = "mesh_port"
}

/// `outbound.pins`: destinations that proved mesh are not spoken to in plaintext for a while.
package struct PinSettings: Hashable, Sendable {
  package var ttlSeconds: Int
  /// Absolute path of the file that keeps them across restarts; nil: in `/var/lib/culvert`, named
  /// after the configuration.
  package var file: String?

  package init(ttlSeconds: Int, file: String? = nil) {
    self.ttlSeconds = ttlSeconds
    self.file = file
  }
}
