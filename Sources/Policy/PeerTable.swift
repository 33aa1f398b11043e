package import Identity
package import Net

/// One entry of `outbound.peers`: addresses known to be one mesh workload, or known not to be.
package struct Peer: Hashable, Sendable {
  package enum Kind: Hashable, Sendable {
    /// A mesh workload with this identity; nil: with any that verifies.
    case mesh(SPIFFEID?)
    case notMesh
  }

  package var address: CIDR
  package var kind: Kind

  package init(address: CIDR, kind: Kind) {
    self.address = address
    self.kind = kind
  }

  package init(address: CIDR, identity: SPIFFEID) {
    self.init(address: address, kind: .mesh(identity))
  }
}

/// Peers by address, the longest matching prefix first. A look-up hashes the address once for each
/// prefix length that occurs, and allocates nothing.
package struct PeerTable: Hashable, Sendable {
  private struct Prefixes: Hashable, Sendable {
    let family: IPAddress.Family
    let length: Int
    let mask: UInt128
    var kinds: [UInt128: Peer.Kind]
  }

  private var lengths: [Prefixes] = []

  /// Of two entries for the same range, the later counts.
  package init(_ peers: [Peer] = []) {
    for peer in peers { insert(peer) }
    lengths.sort { $0.length > $1.length }
  }

  private mutating func insert(_ peer: Peer) {
    let (family, length) = (peer.address.address.family, peer.address.prefixLength)
    let index = lengths.firstIndex { $0.family == family && $0.length == length }
    if let index {
      lengths[index].kinds[peer.address.address.bits] = peer.kind
    } else {
      lengths.append(
        Prefixes(
          family: family, length: length, mask: CIDR.mask(family, length),
          kinds: [peer.address.address.bits: peer.kind]))
    }
  }

  package var count: Int { lengths.reduce(0) { $0 + $1.kinds.count } }

  package func find(_ address: IPAddress) -> Peer.Kind? {
    for prefixes in lengths where prefixes.family == address.family {
      if let kind = prefixes.kinds[address.bits & prefixes.mask] { return kind }
    }
    return nil
  }
}
