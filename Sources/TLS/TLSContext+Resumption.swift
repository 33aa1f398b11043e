internal import COpenSSL
internal import Glibc
internal import Net

// TLS 1.3 resumption (RFC 8446 §2.2) between mesh peers, always with a fresh key exchange and never
// with early data. A session is good as long as the verification behind it: for one SVID of ours
// (`svidEpoch`), one set of bundles and revocation lists (`trustEpoch`), a peer who has not been
// revoked, until the first certificate of its path ends.
extension TLSContext {
  func configureResumption() throws(TLSSetupError) {
    // The real check is by epochs, when a session is looked up; OpenSSL insists on a context.
    let isSet = unsafe Self.culvertProtocol.utf8.withContiguousStorageIfAvailable { bytes in
      unsafe SSL_CTX_set_session_id_context(server, bytes.baseAddress, UInt32(bytes.count)) == 1
    }
    try require(isSet == true, "session ID context")
    try unsafe require(SSL_CTX_set_num_tickets(server, 1) == 1, "tickets")
    // A ticket holds a session's name only.
    unsafe SSL_CTX_set_options(server, culvert_SSL_OP_NO_TICKET)
    unsafe SSL_CTX_set_timeout(server, ServerSession.lifetimeSeconds)
    unsafe culvert_SSL_CTX_set_session_cache_mode(
      server, Int(SSL_SESS_CACHE_SERVER | SSL_SESS_CACHE_NO_INTERNAL))
    unsafe SSL_CTX_sess_set_new_cb(server, TLSContext.keepServerSession)
    unsafe SSL_CTX_sess_set_get_cb(server, TLSContext.findServerSession)
  }

  // MARK: The server's side

  /// Called for each ticket that is made.
  private static let keepServerSession: @convention(c) (OpaquePointer?, OpaquePointer?) -> Int32 = {
    ssl, session in
    guard let ssl = unsafe ssl, let session = unsafe session,
      let mesh = unsafe SessionState.of(ssl)?.pointee.mesh, let peer = mesh.peer,
      let cipher = unsafe SSL_SESSION_get0_cipher(session),
      // What a client asked for beside the usual is not remembered: it comes back to a full
      // handshake.
      unsafe SSL_SESSION_get_max_fragment_length(session) == TLSEXT_max_fragment_length_DISABLED
    else { return 0 }
    var count: UInt32 = 0
    let bytes = unsafe SSL_SESSION_get_id(session, &count)
    guard let name = unsafe SessionName(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
    else { return 0 }
    let context = mesh.context
    unsafe withUnsafeTemporaryAllocation(byteCount: Int(SSL_MAX_MASTER_KEY_LENGTH), alignment: 8) {
      room in
      let start = unsafe room.baseAddress?.assumingMemoryBound(to: UInt8.self)
      let filled = unsafe SSL_SESSION_get_master_key(session, start, room.count)
      context.shared.serverSessions.keep(
        unsafe ServerSession(
          secret: UnsafeRawBufferPointer(rebasing: room[..<filled]),
          cipher: SSL_CIPHER_get_protocol_id(cipher), peer: peer,
          identity: context.identity, createdSeconds: time(nil)), as: name)
      unsafe OPENSSL_cleanse(room.baseAddress, room.count)
    }
    return 0
  }

  /// Called for a client that comes with a ticket; nil is a full handshake. Whether the peer is who
  /// it was, and still trusted, is judged anew each time.
  private static let findServerSession:
    @convention(c) (
      OpaquePointer?, UnsafePointer<UInt8>?, Int32, UnsafeMutablePointer<Int32>?
    ) -> OpaquePointer? = { ssl, bytes, count, isShared in
      guard let ssl = unsafe ssl, let state = unsafe SessionState.of(ssl),
        let context = unsafe state.pointee.mesh?.context,
        let name = unsafe SessionName(UnsafeRawBufferPointer(start: bytes, count: Int(count)))
      else { return nil }
      let found = context.shared.serverSessions.find(
        name, context.identity, now: Int64(time(nil)))
      guard let found, let session = unsafe found.make(for: ssl) else { return nil }
      // Its one reference is OpenSSL's from here on.
      unsafe isShared?.pointee = 0
      unsafe state.pointee.mesh?.resumablePeer = found.peer
      // The ticket stays good; another would cost both ends a record.
      unsafe SSL_set_num_tickets(ssl, 0)
      return unsafe session
    }
}

extension ServerSession {
  /// The session as OpenSSL knows it.
  fileprivate func make(for ssl: OpaquePointer) -> OpaquePointer? {
    guard let session = unsafe SSL_SESSION_new() else { return nil }
    let code = [UInt8(cipher >> 8), UInt8(truncatingIfNeeded: cipher)]
    let context = Array(TLSContext.culvertProtocol.utf8)
    let isMade =
      unsafe SSL_SESSION_set_cipher(session, SSL_CIPHER_find(ssl, code)) == 1
      && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1
      && SSL_SESSION_set1_id_context(session, context, UInt32(context.count)) == 1
      && withSecret {
        unsafe SSL_SESSION_set1_master_key(
          session, $0.baseAddress?.assumingMemoryBound(to: UInt8.self), $0.count) == 1
      }
    guard isMade else {
      unsafe SSL_SESSION_free(session)
      return nil
    }
    unsafe SSL_SESSION_set_time(session, createdSeconds)
    unsafe SSL_SESSION_set_timeout(session, Self.lifetimeSeconds)
    return unsafe session
  }
}

// MARK: - The client's side

extension TLSSession {
  /// Offers what was agreed with this server before, if that still stands and is with one of those
  /// who are expected now.
  func offerSession(_ server: SocketAddress) {
    guard let mesh = unsafe state.pointee.mesh else { return }
    let session = mesh.context.shared.clientSessions.find(
      server, mesh.context.identity, now: Int64(time(nil)))
    guard let session else { return }
    defer { unsafe SSL_SESSION_free(session.pointer) }
    guard mesh.expect.isEmpty || mesh.expect.contains(session.peer.id),
      unsafe SSL_set_session(ssl, session.pointer) == 1
    else { return }
    unsafe state.pointee.mesh?.resumablePeer = session.peer
  }

  /// A resumed session proves that the peer is the one it was made with.
  func agreePeer() -> Bool {
    if isResumed { unsafe state.pointee.mesh?.peer = state.pointee.mesh?.resumablePeer }
    unsafe state.pointee.mesh?.resumablePeer = nil
    return verifiedPeer != nil
  }

  /// Keeps what a ticket made of the session. OpenSSL makes a new session of each ticket; its own
  /// callback for them would mark a session as used up once it has been resumed.
  func keepSession() {
    guard let mesh = unsafe state.pointee.mesh, let server = mesh.server, let peer = mesh.peer,
      let session = unsafe SSL_get1_session(ssl)
    else { return }
    let identity = mesh.context.identity
    guard unsafe session != mesh.keptSession, unsafe SSL_SESSION_is_resumable(session) == 1,
      unsafe SSL_SESSION_has_ticket(session) == 1
    else { return unsafe SSL_SESSION_free(session) }
    unsafe state.pointee.mesh?.keptSession = unsafe session
    mesh.context.shared.clientSessions.keep(
      unsafe ResumableSession(
        pointer: session, peer: peer, svidEpoch: identity.svidEpoch,
        trustEpoch: identity.trustEpoch), for: server)
  }
}
