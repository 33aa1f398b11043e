internal import COpenSSL
internal import Glibc
internal import Identity
internal import Net

/// What the callbacks of one session read and write. At a fixed address for as long as its SSL
/// object lives, and only touched by the thread that is inside a call on that object.
@safe struct SessionState {
  /// First, so that the BIO's pointer and the state's are one.
  var buffers = RecordBuffers()
  let isClient: Bool
  var purpose: Purpose

  var secrets = TrafficSecrets()
  var rejection: Rejection?
  var alertReceived: UInt8?
  var alertSent: UInt8?
  /// OpenSSL's reason, or ours, once the session has failed.
  var failureDetail = ""

  /// With whom a session is. Its context is kept alive by it.
  enum Purpose {
    case mesh(MeshState)
    case origination(OriginationState)
  }

  init(isClient: Bool, _ purpose: Purpose) {
    self.isClient = isClient
    self.purpose = purpose
  }

  /// Nil where the session is with an outside server; assigning changes nothing there.
  var mesh: MeshState? {
    get {
      guard case .mesh(let mesh) = purpose else { return nil }
      return mesh
    }
    set {
      guard case .mesh = purpose, let newValue else { return }
      purpose = .mesh(newValue)
    }
  }

  /// The state of the session an SSL object belongs to.
  static func of(_ ssl: OpaquePointer) -> UnsafeMutablePointer<SessionState>? {
    unsafe SSL_get_ex_data(ssl, exDataIndex)?.assumingMemoryBound(to: SessionState.self)
  }

  /// Index 0 is the application's own, without registration (SSL_set_app_data).
  static let exDataIndex: Int32 = 0
}

/// What only sessions between mesh peers have.
@safe struct MeshState {
  let context: TLSContext
  let role: TLSRole
  let expect: [SPIFFEID]
  /// The server a client's session is with, where its tickets are to be kept.
  let server: SocketAddress?
  /// Who the peer has proved to be.
  var peer: VerifiedPeer?
  /// Whom the session that is being resumed was with.
  var resumablePeer: VerifiedPeer?
  /// The session given to `ClientSessions` last; only compared.
  var keptSession: OpaquePointer?

  init(context: TLSContext, role: TLSRole, expect: [SPIFFEID], server: SocketAddress?) {
    self.context = context
    self.role = role
    self.expect = expect
    self.server = server
  }
}

/// What only sessions with outside servers have.
struct OriginationState {
  let context: OriginationContext
  /// Whether the server's certificate was found good.
  var isServerVerified = false
}

// MARK: - Callbacks

extension SessionState {
  /// Called in both roles; the line is OpenSSL's own, which cleanses it afterwards.
  static let captureSecret: SSL_CTX_keylog_cb_func = { ssl, line in
    guard let ssl = unsafe ssl, let line = unsafe line, let state = unsafe SessionState.of(ssl)
    else { return }
    let bytes = unsafe UnsafeRawBufferPointer(start: line, count: strlen(line))
    unsafe state.pointee.secrets.take(keyLogLine: bytes)
  }

  static let noteAlert: @convention(c) (OpaquePointer?, Int32, Int32) -> Void = {
    ssl, place, value in
    guard place & SSL_CB_ALERT != 0, let ssl = unsafe ssl,
      let state = unsafe SessionState.of(ssl), unsafe !SessionState.isNotice(value, ssl)
    else { return }
    let code = UInt8(truncatingIfNeeded: value)
    if place & SSL_CB_READ != 0 {
      unsafe state.pointee.alertReceived = code
    } else {
      unsafe state.pointee.alertSent = code
    }
  }

  /// Whether an alert ends nothing, so that it must not name a failure that comes later: after the
  /// handshake these two (RFC 8446 §6.1), before TLS 1.3 all others that are warnings (RFC 5246
  /// §7.2).
  private static func isNotice(_ value: Int32, _ ssl: OpaquePointer) -> Bool {
    switch value & 0xff {
    case SSL_AD_CLOSE_NOTIFY, SSL_AD_USER_CANCELLED:
      unsafe SSL_is_init_finished(ssl) == 1
    default: unsafe value >> 8 == SSL3_AL_WARNING && SSL_version(ssl) < TLS1_3_VERSION
    }
  }
}
