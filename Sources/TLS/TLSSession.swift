internal import COpenSSL
package import Identity
package import Net

/// Which end of a connection a session is, and of which kind.
package enum TLSRole: Sendable {
  /// Intercepted inbound connections: selects `culvert/1`, else `istio`.
  case server
  /// The mesh port: selects `culvert/1` only.
  case meshServer
  /// Offers `culvert/1` and `istio`; accepts that none is selected.
  case client
  /// To a mesh port: offers `culvert/1` only.
  case meshClient

  package var isClient: Bool { self == .client || self == .meshClient }
}

/// One TLS connection, fed record by record: TLS 1.3 between mesh peers, 1.2 or 1.3 with an outside
/// server.
///
/// The caller does the framing: every record it passes is exactly one, header included, so that
/// nothing is ever read beyond a record's end and another engine can take over at any boundary.
/// Nothing here allocates per record. Not thread-safe; used by its context's worker only.
///
/// A session that has failed stays failed: each further step gives the same failure.
@safe package struct TLSSession: ~Copyable {
  /// 5 bytes of header, 2^14 of plaintext, 256 of expansion (RFC 8446 §5.2). TLS 1.2 allows for 2048
  /// (RFC 5246 §6.2.3), but its suites that we offer make no use of it: 8 bytes of nonce and 16 of
  /// tag (RFC 5288 §3), with ChaCha20 only the tag (RFC 7905 §2).
  package static let maximumRecordBytes = 5 + 16 * 1024 + 256
  /// What `open` needs room for (RFC 8446 §5.1).
  package static let maximumPlaintextBytes = 16 * 1024
  /// Records without data that may follow each other: tickets, key updates, empty records.
  package static let maximumIdleRecords = 64
  /// Header, nonce and tag around each record's plaintext in TLS 1.2 (RFC 5288 §3); TLS 1.3 needs
  /// less, a content type in place of the nonce.
  static let recordOverheadBytes = 5 + 8 + 16
  /// A KeyUpdate that goes out before the data (RFC 8446 §4.6.3), with its record.
  static let keyUpdateBytes = 5 + recordOverheadBytes

  let ssl: OpaquePointer
  let state: UnsafeMutablePointer<SessionState>
  private var phase = Phase.handshaking
  /// Records that a server has sent under its traffic secret already: its session tickets.
  package private(set) var ticketRecordsSent = 0
  private var idleRecords = 0

  private enum Phase { case handshaking, established, closed, failed }

  /// - Parameters:
  ///   - expect: the IDs of which the peer's must be one; empty: any ID of a trust domain with a
  ///     bundle.
  ///   - server: of a client, whose sessions it resumes and adds to; nil resumes nothing.
  package init(
    _ context: TLSContext, role: TLSRole, expect: [SPIFFEID], server: SocketAddress? = nil
  ) throws(TLSSetupError) {
    let mesh = MeshState(context: context, role: role, expect: expect, server: server)
    let ssl = try unsafe context.makeSSL(role)
    try unsafe self.init(ssl, SessionState(isClient: role.isClient, .mesh(mesh)))
    if let server { offerSession(server) }
  }

  /// The client's end of a connection to an outside server, over TLS 1.2 or 1.3.
  package init(origination context: OriginationContext) throws(TLSSetupError) {
    let origination = OriginationState(context: context)
    let ssl = try unsafe context.makeSSL()
    try unsafe self.init(ssl, SessionState(isClient: true, .origination(origination)))
  }

  /// Takes over the SSL object.
  private init(_ ssl: OpaquePointer?, _ initial: SessionState) throws(TLSSetupError) {
    guard let ssl = unsafe ssl else {
      throw TLSSetupError("SSL_new: \(OpenSSLError.takeReason())")
    }
    let state = UnsafeMutablePointer<SessionState>.allocate(capacity: 1)
    unsafe state.initialize(to: initial)
    let buffers = unsafe UnsafeMutableRawPointer(state).assumingMemoryBound(to: RecordBuffers.self)
    guard unsafe SSL_set_ex_data(ssl, SessionState.exDataIndex, state) == 1,
      let bio = unsafe RecordBIO.make(buffers)
    else {
      unsafe SSL_free(ssl)
      unsafe state.deinitialize(count: 1)
      unsafe state.deallocate()
      throw TLSSetupError("BIO: \(OpenSSLError.takeReason())")
    }
    unsafe SSL_set_bio(ssl, bio, bio)
    if initial.isClient {
      unsafe SSL_set_connect_state(ssl)
    } else {
      unsafe SSL_set_accept_state(ssl)
    }
    unsafe self.ssl = unsafe ssl
    unsafe self.state = unsafe state
  }

  deinit {
    // Without this OpenSSL takes the session for broken and marks it not resumable.
    unsafe SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN)
    unsafe SSL_free(ssl)
    unsafe state.pointee.buffers.discardOverflow()
    unsafe state.pointee.secrets.cleanse()
    unsafe state.deinitialize(count: 1)
    unsafe state.deallocate()
  }

  // MARK: Handshake

  /// Takes the handshake one record further.
  ///
  /// - Parameters:
  ///   - record: one whole record; empty to start as a client.
  ///   - output: gets what must be sent, also when the step failed.
  package mutating func handshake(
    record: UnsafeRawBufferPointer, output: inout OutputWindow
  ) -> HandshakeStep {
    guard phase == .handshaking else { return phase == .failed ? .failed(failure()) : .finished }
    unsafe begin(record, output)
    defer { end(&output) }
    guard unsafe record.isEmpty || Self.isOneRecord(record) else {
      return .failed(fail(SSL_ERROR_SSL, "not one whole record"))
    }
    let result = unsafe SSL_do_handshake(ssl)
    guard result == 1 else {
      let error = unsafe SSL_get_error(ssl, result)
      if error == SSL_ERROR_WANT_READ, unsafe state.pointee.buffers.inputRemaining == 0 {
        return .needsRecord
      }
      return .failed(fail(error))
    }
    guard unsafe !state.pointee.isClient || acceptsSelectedProtocol else {
      return .failed(fail(SSL_ERROR_SSL, "the server selected a protocol that was not offered"))
    }
    guard hasVerifiedPeer() else {
      return .failed(fail(SSL_ERROR_SSL, "finished with nobody"))
    }
    phase = .established
    // Kept during the handshake, where each message would allocate them anew.
    unsafe SSL_free_buffers(ssl)
    unsafe SSL_ctrl(ssl, SSL_CTRL_MODE, Int(SSL_MODE_RELEASE_BUFFERS), nil)
    // What a server says after the client's Finished can be nothing else (RFC 8446 §4.6.1).
    if unsafe !state.pointee.isClient {
      ticketRecordsSent = unsafe state.pointee.buffers.recordsWritten
    }
    return .finished
  }

  /// Not every OpenSSL 3 checks that a server selects what was offered (RFC 7301 §3.2).
  private var acceptsSelectedProtocol: Bool {
    guard let alpn else { return true }
    return switch unsafe state.pointee.purpose {
    case .mesh: alpn == TLSContext.culvertProtocol || alpn == TLSContext.istioProtocol
    case .origination(let origination): origination.context.material.protocols.contains(alpn)
    }
  }

  /// Whether the peer has proved who it is; a handshake that does without is none of ours.
  private func hasVerifiedPeer() -> Bool {
    switch unsafe state.pointee.purpose {
    case .mesh: agreePeer()
    case .origination(let origination): origination.isServerVerified
    }
  }

  // MARK: Records

  /// Decrypts one record.
  ///
  /// - Parameters:
  ///   - record: one whole record.
  ///   - plaintext: room for at least `maximumPlaintextBytes`.
  ///   - output: gets answers to the record: a KeyUpdate, an alert.
  package mutating func open(
    record: UnsafeRawBufferPointer, into plaintext: UnsafeMutableRawBufferPointer,
    output: inout OutputWindow
  ) -> OpenStep {
    precondition(plaintext.count >= Self.maximumPlaintextBytes, "too little room for a record")
    guard phase == .established || phase == .closed else { return .failed(failure()) }
    unsafe begin(record, output)
    defer { end(&output) }
    guard unsafe Self.isOneRecord(record) else {
      return .failed(fail(SSL_ERROR_SSL, "not one whole record"))
    }
    var total = 0
    while true {
      var count = 0
      let room = unsafe plaintext.baseAddress.map { unsafe $0 + total }
      let result = unsafe SSL_read_ex(ssl, room, plaintext.count - total, &count)
      if result == 1 {
        total += count
        if unsafe state.pointee.buffers.inputRemaining == 0, unsafe SSL_pending(ssl) == 0 { break }
        guard total < plaintext.count else { return .failed(fail(SSL_ERROR_SSL, "record size")) }
        continue
      }
      let error = unsafe SSL_get_error(ssl, result)
      if error == SSL_ERROR_WANT_READ, unsafe state.pointee.buffers.inputRemaining == 0 { break }
      if error == SSL_ERROR_ZERO_RETURN { return .closeNotify }
      return .failed(fail(error))
    }
    if total == 0 { keepSession() }
    idleRecords = total == 0 ? idleRecords + 1 : 0
    guard idleRecords <= Self.maximumIdleRecords else {
      return .failed(fail(SSL_ERROR_SSL, "too many records without data"))
    }
    return .data(total)
  }

  /// The most room that `seal` may ask for.
  package static func sealedBytes(plaintext count: Int) -> Int {
    let records = (count + maximumPlaintextBytes - 1) / maximumPlaintextBytes
    return count + records * recordOverheadBytes + keyUpdateBytes
  }

  /// Encrypts bytes, as several records if need be.
  ///
  /// - Returns: false if the window has less room than `sealedBytes(plaintext:)` and what is
  ///   pending together, in which case nothing was taken; or if the session cannot send.
  package mutating func seal(
    _ plaintext: UnsafeRawBufferPointer, output: inout OutputWindow
  ) -> Bool {
    guard phase == .established else { return false }
    guard plaintext.count > 0 else { return true }
    let pending = unsafe state.pointee.buffers.overflowCount
    guard output.available >= Self.sealedBytes(plaintext: plaintext.count) + pending else {
      return false
    }
    unsafe begin(UnsafeRawBufferPointer(start: nil, count: 0), output)
    defer { end(&output) }
    var total = 0
    while total < plaintext.count {
      var count = 0
      let source = unsafe plaintext.baseAddress.map { unsafe $0 + total }
      let result = unsafe SSL_write_ex(ssl, source, plaintext.count - total, &count)
      guard result == 1 else {
        _ = unsafe fail(SSL_get_error(ssl, result))
        return false
      }
      total += count
    }
    return true
  }

  /// Says that we will send nothing more; what the peer sends can still be opened.
  /// Does nothing before the handshake has finished, or the second time.
  package mutating func sealCloseNotify(output: inout OutputWindow) {
    guard phase == .established else { return }
    unsafe begin(UnsafeRawBufferPointer(start: nil, count: 0), output)
    unsafe SSL_shutdown(ssl)
    end(&output)
    phase = .closed
  }

  /// Whether something waits to be sent that found no room; any call with a window takes it along.
  package var hasPendingOutput: Bool { unsafe state.pointee.buffers.overflowCount > 0 }

  /// Moves what waits into a window.
  package mutating func flush(output: inout OutputWindow) {
    unsafe begin(UnsafeRawBufferPointer(start: nil, count: 0), output)
    end(&output)
  }

  // MARK: One call

  /// Whether the bytes are as many as the record's header says (RFC 8446 §5.1). Part of a record
  /// would stay in OpenSSL, out of reach of whoever takes over at this boundary.
  private static func isOneRecord(_ bytes: UnsafeRawBufferPointer) -> Bool {
    unsafe bytes.count >= 5 && bytes.count == 5 + (Int(bytes[3]) << 8 | Int(bytes[4]))
  }

  /// Lends a call's memory to the BIO.
  private func begin(_ record: UnsafeRawBufferPointer, _ output: OutputWindow) {
    ERR_clear_error()
    unsafe state.pointee.buffers.input = record.baseAddress
    unsafe state.pointee.buffers.inputRemaining = record.count
    unsafe state.pointee.buffers.window = output
    unsafe state.pointee.buffers.recordsWritten = 0
    unsafe state.pointee.buffers.drain()
  }

  private func end(_ output: inout OutputWindow) {
    if let window = unsafe state.pointee.buffers.window { output.count = window.count }
    unsafe state.pointee.buffers.window = nil
    unsafe state.pointee.buffers.input = nil
    unsafe state.pointee.buffers.inputRemaining = 0
  }

  // MARK: Failure

  private mutating func fail(_ error: Int32, _ reason: String? = nil) -> HandshakeFailure {
    if phase == .handshaking, let mesh = unsafe state.pointee.mesh, let server = mesh.server {
      mesh.context.shared.clientSessions.forget(server)
    }
    phase = .failed
    let code = reason == nil ? ERR_peek_error() : 0
    ERR_clear_error()
    if OpenSSLError.isReason(code, ERR_LIB_SSL, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
      unsafe state.pointee.rejection = Rejection(.noCertificate)
    }
    unsafe state.pointee.failureDetail = reason ?? detail(error, code)
    return failure()
  }

  private func detail(_ error: Int32, _ code: UInt) -> String {
    if unsafe state.pointee.buffers.failed { return "more output than a session holds back" }
    if code != 0 { return OpenSSLError.reason(code) }
    return error == SSL_ERROR_WANT_READ ? "not one whole record" : "SSL error \(error)"
  }

  private func failure() -> HandshakeFailure {
    let rejection = unsafe state.pointee.rejection
    let detail = unsafe state.pointee.failureDetail
    return unsafe HandshakeFailure(
      refusal: rejection?.refusal,
      alertReceived: state.pointee.alertReceived.map { Alert(rawValue: $0).name },
      alertSent: state.pointee.alertSent.map { Alert(rawValue: $0).name },
      detail: rejection.map { $0.detail } ?? detail)
  }
}

// MARK: - What was agreed

extension TLSSession {
  /// Who the peer proved to be; nil until its certificate was verified, and for outside servers,
  /// which are no workloads.
  package var peer: SPIFFEID? { verifiedPeer?.id }

  /// The same, with what it takes to judge the peer again.
  package var verifiedPeer: VerifiedPeer? { unsafe state.pointee.mesh?.peer }

  /// When our own certificate ends, in Unix seconds; `Int64.max` if we have none to present.
  package var ownNotAfterSeconds: Int64 {
    switch unsafe state.pointee.purpose {
    case .mesh(let mesh): mesh.context.identity.notAfterSeconds
    case .origination(let origination):
      origination.context.material.credential?.notAfterSeconds ?? .max
    }
  }

  /// Whether an earlier session was resumed, in place of certificates.
  package var isResumed: Bool { unsafe SSL_session_reused(ssl) == 1 }

  /// The protocol selected by ALPN.
  package var alpn: String? {
    var bytes: UnsafePointer<UInt8>?
    var count: UInt32 = 0
    unsafe SSL_get0_alpn_selected(ssl, &bytes, &count)
    guard let bytes = unsafe bytes, count > 0 else { return nil }
    return unsafe String(
      decoding: UnsafeBufferPointer(start: bytes, count: Int(count)), as: UTF8.self)
  }

  /// The cipher suite by its RFC 8446 name, for example `TLS_AES_128_GCM_SHA256`; of TLS 1.2 by
  /// OpenSSL's, for example `ECDHE-RSA-AES128-GCM-SHA256`.
  package var cipher: String? {
    guard let cipher = unsafe SSL_get_current_cipher(ssl),
      let name = unsafe SSL_CIPHER_get_name(cipher)
    else { return nil }
    return unsafe String(cString: name)
  }

  /// `TLSv1.3`, or `TLSv1.2` with an outside server.
  package var protocolVersion: String { unsafe String(cString: SSL_get_version(ssl)) }
}
