internal import COpenSSL
package import Identity
internal import Synchronization

/// SHA-256 of a leaf certificate (DER).
struct LeafHash: Hashable, Sendable {
  static let bytes = 32

  let words: InlineArray<4, UInt64>

  init(_ words: InlineArray<4, UInt64>) { self.words = words }

  /// - Returns: nil if OpenSSL cannot, for want of memory.
  init?(_ leaf: OpaquePointer) {
    var words = InlineArray<4, UInt64>(repeating: 0)
    var count: UInt32 = 0
    let isMade = unsafe withUnsafeMutableBytes(of: &words) { bytes in
      let output = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
      return unsafe X509_digest(leaf, EVP_sha256(), output, &count) == 1
    }
    guard isMade, Int(count) == Self.bytes else { return nil }
    self.words = words
  }

  static func == (left: LeafHash, right: LeafHash) -> Bool {
    left.words[0] == right.words[0] && left.words[1] == right.words[1]
      && left.words[2] == right.words[2] && left.words[3] == right.words[3]
  }

  /// A hash already, of a certificate that was verified: nobody chooses its bits.
  func hash(into hasher: inout Hasher) { hasher.combine(words[0]) }
}

/// A peer whose certificate was verified: what must be known to judge it again without the peer.
///
/// Shared by all connections of that certificate, on whichever worker.
package final class VerifiedPeer: Sendable {
  package let id: SPIFFEID
  /// When the leaf ends, in Unix seconds.
  package let leafNotAfterSeconds: Int64
  /// The earliest end, and the latest beginning, of any certificate of the path, its anchor
  /// included, in Unix seconds.
  package let notAfterSeconds: Int64
  package let notBeforeSeconds: Int64
  let leaf: LeafHash
  /// The certificates as the peer sent them, the leaf first (DER, one behind the other).
  let chain: [UInt8]
  /// The newest trust epoch under which the path was found valid.
  private let epoch: Atomic<UInt64>
  /// Set once, when the path is no longer valid.
  private let revocation = Mutex<PeerRefusal?>(nil)
  private let revoked = Atomic(false)

  init(_ path: VerifiedPath, leaf: LeafHash, chain: [UInt8], trustEpoch: UInt64) {
    id = path.id
    leafNotAfterSeconds = path.leafNotAfterSeconds
    notAfterSeconds = path.notAfterSeconds
    notBeforeSeconds = path.notBeforeSeconds
    self.leaf = leaf
    self.chain = chain
    epoch = Atomic(trustEpoch)
  }

  package var trustEpoch: UInt64 { epoch.load(ordering: .acquiring) }

  /// Why the peer is no longer trusted; nil as long as it is. Never goes back to nil.
  package var refusal: PeerRefusal? {
    revoked.load(ordering: .acquiring) ? revocation.withLock { $0 } : nil
  }

  func confirm(trustEpoch: UInt64) { epoch.max(trustEpoch, ordering: .acquiringAndReleasing) }

  func revoke(_ refusal: PeerRefusal) {
    revocation.withLock { $0 = $0 ?? refusal }
    revoked.store(true, ordering: .releasing)
  }

  /// Whether a handshake may rest on the verification now.
  func isGood(trustEpoch: UInt64, now: Int64) -> Bool {
    self.trustEpoch == trustEpoch && refusal == nil && now >= notBeforeSeconds
      && now < notAfterSeconds
  }
}

/// The peers that were verified, by leaf: the cache of verifications, and the list of those whose
/// live connections must end when trust is withdrawn.
///
/// Shared by all workers of a namespace and the control thread; used once per handshake.
package final class PeerRegistry: Sendable {
  /// Peers remembered that have no connection; those with one come on top of it, and are bounded by
  /// `limits.maximumConnections`.
  package static let maximumIdlePeers = 4096

  private struct State {
    var peers: [LeafHash: VerifiedPeer] = [:]
    /// Peers with connections whose place another path of the same leaf has taken.
    var replaced: [VerifiedPeer] = []
    /// Peers at which idle ones are looked for next: not with each new peer where there are none.
    var forgetIdleAt = PeerRegistry.maximumIdlePeers
  }

  private let state = Mutex(State())

  package init() {}

  package var count: Int { state.withLock { $0.peers.count } }

  /// The peer with this leaf, if its verification is good under this epoch and at this time.
  func find(_ leaf: LeafHash, trustEpoch: UInt64, now: Int64) -> VerifiedPeer? {
    guard let peer = state.withLock({ $0.peers[leaf] }),
      peer.isGood(trustEpoch: trustEpoch, now: now)
    else { return nil }
    return peer
  }

  /// Keeps a peer that was verified just now.
  ///
  /// - Returns: the one to use. Connections of the same leaf and path share one object, whichever
  ///   worker verified it first.
  func keep(_ peer: VerifiedPeer) -> VerifiedPeer {
    state.withLock { state in
      if let known = state.peers[peer.leaf], known.refusal == nil {
        if known.notAfterSeconds == peer.notAfterSeconds {
          if known.trustEpoch < peer.trustEpoch { known.confirm(trustEpoch: peer.trustEpoch) }
          return known
        }
        state.replaced.append(known)
      }
      if state.peers.count + state.replaced.count >= state.forgetIdleAt {
        Self.forgetIdle(&state)
      }
      state.peers[peer.leaf] = peer
      return peer
    }
  }

  /// Makes room: peers that only this registry knows go, until a quarter of the places are free.
  private static func forgetIdle(_ state: inout State) {
    var index = state.peers.values.startIndex
    var idle: [LeafHash] = []
    let wanted = maximumIdlePeers / 4
    while index != state.peers.values.endIndex, idle.count < wanted {
      if isKnownUniquelyReferenced(&state.peers.values[index]) {
        idle.append(state.peers.keys[index])
      }
      state.peers.values.formIndex(after: &index)
    }
    for leaf in idle { state.peers[leaf] = nil }
    for index in state.replaced.indices.reversed()
    where isKnownUniquelyReferenced(&state.replaced[index]) {
      state.replaced.remove(at: index)
    }
    let left = state.peers.count + state.replaced.count
    state.forgetIdleAt = max(maximumIdlePeers, left + maximumIdlePeers / 16)
  }

  /// Verifies everyone again under changed bundles or revocation lists. Who fails is marked, and
  /// forgotten; who passes counts as verified under the new epoch.
  ///
  /// Takes about 0.1 ms per peer; for the control thread.
  package func verifyAgain(
    under bundles: [TrustBundle], trustEpoch: UInt64
  ) throws(TLSSetupError) -> [(peer: SPIFFEID, refusal: PeerRefusal)] {
    let verification = try PeerVerification(bundles)
    var refused: [(peer: SPIFFEID, refusal: PeerRefusal)] = []
    for peer in state.withLock({ Array($0.peers.values) + $0.replaced }) {
      guard let refusal = verification.verifyAgain(peer, trustEpoch: trustEpoch) else { continue }
      refused.append((peer.id, refusal))
      state.withLock { state in
        if state.peers[peer.leaf] === peer { state.peers[peer.leaf] = nil }
        state.replaced.removeAll { $0 === peer }
      }
    }
    return refused
  }
}
