internal import COpenSSL
internal import Glibc
internal import Net

// TLS 1.3 resumption (RFC 8446 §2.2) between mesh peers, always with a fresh key exchange and never
// with early data. A ticket, or a client's session, is good as long as the verification behind it:
// for one SVID of ours (`svidEpoch`), one set of bundles and revocation lists (`trustEpoch`), a peer
// that the registry still knows as verified, and until the first certificate of its path ends.
extension TLSContext {
  func configureResumption() throws(TLSSetupError) {
    var epochs = (identity.svidEpoch, identity.trustEpoch)
    let isSet = unsafe withUnsafeBytes(of: &epochs) { bytes in
      unsafe SSL_CTX_set_session_id_context(
        server, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt32(bytes.count)) == 1
    }
    try require(isSet, "session ID context")
    try unsafe require(SSL_CTX_set_num_tickets(server, 1) == 1, "tickets")
    unsafe SSL_CTX_set_timeout(server, Int(shared.ticketKeys.lifetimeSeconds))
    try unsafe require(
      SSL_CTX_set_tlsext_ticket_key_evp_cb(server, TLSContext.prepareTicketKey) == 1,
      "ticket keys")
    try unsafe require(
      SSL_CTX_set_session_ticket_cb(server, TLSContext.writeTicket, TLSContext.readTicket, nil)
        == 1, "ticket data")
  }

  // MARK: The server's side

  private static let prepareTicketKey:
    @convention(c) (
      OpaquePointer?, UnsafeMutablePointer<UInt8>?, UnsafeMutablePointer<UInt8>?, OpaquePointer?,
      OpaquePointer?, Int32
    ) -> Int32 = { ssl, name, iv, cipher, mac, encrypt in
    guard let ssl = unsafe ssl, let name = unsafe name, let iv = unsafe iv,
      let cipher = unsafe cipher, let mac = unsafe mac, let state = unsafe SessionState.of(ssl)
    else { return -1 }
    return unsafe state.pointee.context.shared.ticketKeys.prepare(
      name: name, iv: iv, cipher: cipher, mac: mac, isEncrypting: encrypt != 0)
  }

  /// Every ticket names the leaf whose verification it rests on.
  private static let writeTicket: SSL_CTX_generate_session_ticket_fn = { ssl, _ in
    guard let ssl = unsafe ssl, let state = unsafe SessionState.of(ssl),
      let session = unsafe SSL_get_session(ssl), let peer = unsafe state.pointee.peer
    else { return 0 }
    var words = peer.leaf.words
    return unsafe withUnsafeBytes(of: &words) { bytes in
      unsafe SSL_SESSION_set1_ticket_appdata(session, bytes.baseAddress, bytes.count)
    }
  }

  private static let readTicket: SSL_CTX_decrypt_session_ticket_fn = {
    ssl, session, _, _, status, _ in
    guard status == SSL_TICKET_SUCCESS || status == SSL_TICKET_SUCCESS_RENEW,
      let ssl = unsafe ssl, let session = unsafe session, let state = unsafe SessionState.of(ssl)
    else { return SSL_TICKET_RETURN_IGNORE_RENEW }
    var data: UnsafeMutableRawPointer?
    var count = 0
    guard unsafe SSL_SESSION_get0_ticket_appdata(session, &data, &count) == 1,
      count == LeafHash.bytes, let data = unsafe data
    else { return SSL_TICKET_RETURN_IGNORE_RENEW }
    let leaf = unsafe LeafHash(data.loadUnaligned(as: InlineArray<4, UInt64>.self))
    let context = unsafe state.pointee.context
    // Who it is now, and whether they still verify, is judged anew each time.
    guard
      let peer = context.shared.peers.find(
        leaf, trustEpoch: context.identity.trustEpoch, now: Int64(time(nil)))
    else { return SSL_TICKET_RETURN_IGNORE_RENEW }
    unsafe state.pointee.resumablePeer = peer
    // Not renewed: once in a ticket's lifetime the certificates are looked at again.
    return SSL_TICKET_RETURN_USE
  }
}

// MARK: - The client's side

extension TLSSession {
  /// Offers what was agreed with this server before, if that still stands and is with one of those
  /// who are expected now.
  func offerSession(_ server: SocketAddress) {
    let context = unsafe state.pointee.context
    let session = context.shared.clientSessions.find(
      server, context.identity, now: Int64(time(nil)))
    guard let session else { return }
    defer { unsafe SSL_SESSION_free(session.pointer) }
    let expect = unsafe state.pointee.expect
    guard expect.isEmpty || expect.contains(session.peer.id),
      unsafe SSL_set_session(ssl, session.pointer) == 1
    else { return }
    unsafe state.pointee.resumablePeer = session.peer
  }

  /// A resumed session proves that the peer is the one it was made with.
  func agreePeer() -> Bool {
    if isResumed { unsafe state.pointee.peer = state.pointee.resumablePeer }
    unsafe state.pointee.resumablePeer = nil
    return unsafe state.pointee.peer != nil
  }

  /// Keeps what a ticket made of the session. OpenSSL makes a new session of each ticket; its own
  /// callback for them would mark a session as used up once it has been resumed.
  func keepSession() {
    guard let server = unsafe state.pointee.server, let peer = unsafe state.pointee.peer,
      let session = unsafe SSL_get1_session(ssl)
    else { return }
    let context = unsafe state.pointee.context
    let isNew = unsafe session != state.pointee.keptSession
    guard isNew, unsafe SSL_SESSION_is_resumable(session) == 1,
      unsafe SSL_SESSION_has_ticket(session) == 1
    else { return unsafe SSL_SESSION_free(session) }
    unsafe state.pointee.keptSession = unsafe session
    context.shared.clientSessions.keep(
      unsafe ResumableSession(
        pointer: session, peer: peer, svidEpoch: context.identity.svidEpoch,
        trustEpoch: context.identity.trustEpoch), for: server)
  }
}
