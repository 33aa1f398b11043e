internal import COpenSSL
internal import Glibc
internal import Net
internal import Synchronization

/// What a client may resume: a session with a server, and whom it was made with.
@safe struct ResumableSession: @unchecked Sendable {
  /// This value holds one reference, which `ClientSessions` gives back.
  let pointer: OpaquePointer
  let peer: VerifiedPeer
  let svidEpoch: UInt64
  /// That a peer passes under newer bundles does not renew what was agreed under older ones.
  let trustEpoch: UInt64

  func isGood(for identity: IdentityMaterial, now: Int64) -> Bool {
    guard svidEpoch == identity.svidEpoch, trustEpoch == identity.trustEpoch,
      peer.isGood(trustEpoch: identity.trustEpoch, now: now)
    else { return false }
    return unsafe SSL_SESSION_is_resumable(pointer) == 1
  }
}

/// Sessions that servers gave us tickets for, by their address: the newest of each.
///
/// Shared by all workers. A session is used as often as its ticket's lifetime allows: between two
/// proxies with fixed addresses there is nobody to hide a repeated ticket from (RFC 8446 §C.4), and
/// without early data nothing can be replayed.
@safe package final class ClientSessions: Sendable {
  /// Addresses remembered; about 2 KiB each.
  package static let maximumSessions = 4096

  private let sessions = Mutex<[SocketAddress: ResumableSession]>([:])

  deinit {
    sessions.withLock { sessions in
      for session in sessions.values { unsafe SSL_SESSION_free(session.pointer) }
    }
  }

  var count: Int { sessions.withLock { $0.count } }

  /// Keeps a session, and takes over the caller's reference to it.
  func keep(_ session: ResumableSession, for server: SocketAddress) {
    let former = sessions.withLock { sessions -> ResumableSession? in
      if let former = sessions.updateValue(session, forKey: server) { return former }
      guard sessions.count > Self.maximumSessions else { return nil }
      // Dictionaries have no order of age; with a seed nobody knows, any one is as good.
      return sessions.keys.first { $0 != server }.flatMap { sessions.removeValue(forKey: $0) }
    }
    if let former { unsafe SSL_SESSION_free(former.pointer) }
  }

  /// The session with a server, if it may be resumed by this identity. The caller gets a reference
  /// of its own.
  func find(_ server: SocketAddress, _ identity: IdentityMaterial, now: Int64) -> ResumableSession?
  {
    sessions.withLock { sessions in
      guard let session = sessions[server] else { return nil }
      guard session.isGood(for: identity, now: now) else {
        sessions[server] = nil
        unsafe SSL_SESSION_free(session.pointer)
        return nil
      }
      unsafe SSL_SESSION_up_ref(session.pointer)
      return session
    }
  }

  /// Lets go of sessions that this identity will not resume any more.
  func forgetAllBut(_ identity: IdentityMaterial, now: Int64) {
    let gone = sessions.withLock { sessions -> [ResumableSession] in
      let gone = sessions.filter { !$0.value.isGood(for: identity, now: now) }
      for server in gone.keys { sessions[server] = nil }
      return Array(gone.values)
    }
    for session in gone { unsafe SSL_SESSION_free(session.pointer) }
  }

  /// A session that did not lead to a connection is not tried again.
  func forget(_ server: SocketAddress) {
    let former = sessions.withLock { $0.removeValue(forKey: server) }
    if let former { unsafe SSL_SESSION_free(former.pointer) }
  }
}

/// What the contexts of all workers of a namespace share.
package final class SharedTLSState: Sendable {
  package let peers = PeerRegistry()
  let serverSessions = ServerSessions()
  let clientSessions = ClientSessions()

  package init() {}

  /// Lets go of the sessions that this identity will not resume any more, and of their secrets.
  package func forgetSessions(allBut identity: IdentityMaterial) {
    let now = Int64(time(nil))
    serverSessions.forgetAllBut(identity, now: now)
    clientSessions.forgetAllBut(identity, now: now)
  }
}
