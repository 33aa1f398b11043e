internal import COpenSSL
internal import Identity

/// What the callbacks of one session read and write. At a fixed address for as long as its SSL
/// object lives, and only touched by the thread that is inside a call on that object.
struct SessionState {
  /// First, so that the BIO's pointer and the state's are one.
  var buffers = RecordBuffers()
  let context: TLSContext
  let role: TLSRole
  let expect: [SPIFFEID]

  var secrets = TrafficSecrets()
  var peer: SPIFFEID?
  var peerNotAfterSeconds: Int64 = 0
  var rejection: Rejection?
  var alertReceived: UInt8?
  var alertSent: UInt8?
  /// OpenSSL's reason, or ours, once the session has failed.
  var failureDetail = ""

  init(context: TLSContext, role: TLSRole, expect: [SPIFFEID]) {
    self.context = context
    self.role = role
    self.expect = expect
  }

  /// The state of the session an SSL object belongs to.
  static func of(_ ssl: OpaquePointer) -> UnsafeMutablePointer<SessionState>? {
    unsafe SSL_get_ex_data(ssl, exDataIndex)?.assumingMemoryBound(to: SessionState.self)
  }

  /// Index 0 is the application's own, without registration (SSL_set_app_data).
  static let exDataIndex: Int32 = 0
}
