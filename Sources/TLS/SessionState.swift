internal import COpenSSL
internal import Identity
internal import Net

/// What the callbacks of one session read and write. At a fixed address for as long as its SSL
/// object lives, and only touched by the thread that is inside a call on that object.
@safe struct SessionState {
  /// First, so that the BIO's pointer and the state's are one.
  var buffers = RecordBuffers()
  let context: TLSContext
  let role: TLSRole
  let expect: [SPIFFEID]

  var secrets = TrafficSecrets()
  /// The server a client's session is with, where its tickets are to be kept.
  let server: SocketAddress?
  /// Who the peer has proved to be.
  var peer: VerifiedPeer?
  /// Whom the session that is being resumed was with.
  var resumablePeer: VerifiedPeer?
  /// The session given to `ClientSessions` last; only compared.
  var keptSession: OpaquePointer?
  var rejection: Rejection?
  var alertReceived: UInt8?
  var alertSent: UInt8?
  /// OpenSSL's reason, or ours, once the session has failed.
  var failureDetail = ""

  init(context: TLSContext, role: TLSRole, expect: [SPIFFEID], server: SocketAddress?) {
    self.context = context
    self.role = role
    self.expect = expect
    self.server = server
  }

  /// The state of the session an SSL object belongs to.
  static func of(_ ssl: OpaquePointer) -> UnsafeMutablePointer<SessionState>? {
    unsafe SSL_get_ex_data(ssl, exDataIndex)?.assumingMemoryBound(to: SessionState.self)
  }

  /// Index 0 is the application's own, without registration (SSL_set_app_data).
  static let exDataIndex: Int32 = 0
}
