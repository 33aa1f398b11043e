internal import Identity
internal import Net
internal import Synchronization

/// Who answered at each destination last, so that a change is noticed: another workload may have
/// got its address.
final class KnownPeers: Sendable {
  /// Destinations kept; beyond, one makes room.
  static let maximumDestinations = 4096

  private let peers = Mutex<[SocketAddress: SPIFFEID]>([:])

  /// - Returns: who was there before, if that was somebody else.
  func note(_ destination: SocketAddress, _ peer: SPIFFEID) -> SPIFFEID? {
    peers.withLock { peers in
      let before = peers[destination]
      if before == peer { return nil }
      if before == nil, peers.count >= Self.maximumDestinations {
        peers.remove(at: peers.startIndex)
      }
      peers[destination] = peer
      return before
    }
  }
}
