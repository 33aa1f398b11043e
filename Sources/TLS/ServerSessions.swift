internal import COpenSSL
internal import Synchronization

/// The 32 bytes that are all a ticket of ours holds: a random name, and nothing about anybody.
struct SessionName: Hashable, Sendable {
  static let bytes = 32

  private let words: InlineArray<4, UInt64>

  init?(_ bytes: UnsafeRawBufferPointer) {
    guard bytes.count == Self.bytes else { return nil }
    words = unsafe bytes.loadUnaligned(as: InlineArray<4, UInt64>.self)
  }

  static func == (left: SessionName, right: SessionName) -> Bool {
    left.words[0] == right.words[0] && left.words[1] == right.words[1]
      && left.words[2] == right.words[2] && left.words[3] == right.words[3]
  }

  /// Random already; the hasher's seed keeps whoever invents names from choosing their places.
  func hash(into hasher: inout Hasher) {
    hasher.combine(words[0])
    hasher.combine(words[1])
  }
}

/// What a server needs to resume a session: its secret, and whom it was agreed with.
@safe final class ServerSession: Sendable {
  /// Seconds for which a ticket is good (RFC 8446 §4.6.1 allows seven days). Then the certificates
  /// are looked at again.
  static let lifetimeSeconds = 3600

  private nonisolated(unsafe) let secret: UnsafeMutableRawBufferPointer
  let cipher: UInt16
  let peer: VerifiedPeer
  let svidEpoch: UInt64
  /// That a peer passes under newer bundles does not renew what was agreed under older ones.
  let trustEpoch: UInt64
  /// Unix seconds.
  let createdSeconds: Int

  init(
    secret: UnsafeRawBufferPointer, cipher: UInt16, peer: VerifiedPeer, identity: IdentityMaterial,
    createdSeconds: Int
  ) {
    unsafe self.secret = .allocate(byteCount: secret.count, alignment: 8)
    unsafe self.secret.copyMemory(from: secret)
    self.cipher = cipher
    self.peer = peer
    svidEpoch = identity.svidEpoch
    trustEpoch = identity.trustEpoch
    self.createdSeconds = createdSeconds
  }

  deinit {
    unsafe OPENSSL_cleanse(secret.baseAddress, secret.count)
    unsafe secret.deallocate()
  }

  func isGood(for identity: IdentityMaterial, now: Int64) -> Bool {
    svidEpoch == identity.svidEpoch && trustEpoch == identity.trustEpoch
      && peer.isGood(trustEpoch: identity.trustEpoch, now: now)
      && Int(now) - createdSeconds < Self.lifetimeSeconds
  }

  func withSecret<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    defer { withExtendedLifetime(self) {} }
    return unsafe body(UnsafeRawBufferPointer(secret))
  }
}

/// The sessions that clients may resume, by the names in their tickets.
///
/// Shared by all workers, so that a client may come back to any; in memory only. A ticket that
/// carried its session itself, encrypted, would carry the peer's certificate as well, and decoding
/// that is a third of a resumed handshake (Docs/PERFORMANCE.md).
final class ServerSessions: Sendable {
  /// Sessions remembered of one peer's certificate: its newest. A client that never comes back, or
  /// makes many connections at once, pushes out nobody but itself.
  static let maximumSessionsPerPeer = 8
  /// About 300 bytes each, and one or two kilobytes for each peer.
  static let maximumSessions = 16_384

  private struct State {
    var sessions: [SessionName: ServerSession] = [:]
    /// Oldest first.
    var names: [LeafHash: [SessionName]] = [:]

    mutating func forget(_ leaf: LeafHash) {
      for name in names.removeValue(forKey: leaf) ?? [] { sessions[name] = nil }
    }
  }

  private let state = Mutex(State())

  var count: Int { state.withLock { $0.sessions.count } }

  func keep(_ session: ServerSession, as name: SessionName) {
    state.withLock { state in
      let leaf = session.peer.leaf
      var names = state.names[leaf] ?? []
      if names.count >= Self.maximumSessionsPerPeer {
        state.sessions[names.removeFirst()] = nil
      } else if state.sessions.count >= Self.maximumSessions,
        let other = state.names.keys.first(where: { $0 != leaf })
      {
        // Dictionaries have no order of age; with a seed nobody knows, any one is as good.
        state.forget(other)
      }
      names.append(name)
      state.names[leaf] = names
      state.sessions[name] = session
    }
  }

  /// The session of that name, if this identity may resume it now. One that it may not is forgotten,
  /// and all others of that peer.
  func find(_ name: SessionName, _ identity: IdentityMaterial, now: Int64) -> ServerSession? {
    state.withLock { state in
      guard let session = state.sessions[name] else { return nil }
      guard session.isGood(for: identity, now: now) else {
        state.forget(session.peer.leaf)
        return nil
      }
      return session
    }
  }

  /// Lets go of sessions that this identity will not resume any more.
  func forgetAllBut(_ identity: IdentityMaterial, now: Int64) {
    state.withLock { state in
      for (leaf, names) in state.names {
        let kept = names.filter { state.sessions[$0]?.isGood(for: identity, now: now) ?? false }
        guard kept.count < names.count else { continue }
        for name in names where !kept.contains(name) { state.sessions[name] = nil }
        state.names[leaf] = kept.isEmpty ? nil : kept
      }
    }
  }
}
