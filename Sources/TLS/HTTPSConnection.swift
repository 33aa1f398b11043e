internal import COpenSSL
internal import Glibc
package import Net

/// Why an HTTPS connection is over before its end.
package enum HTTPSFailure: Error, Hashable, Sendable {
  /// The server did not prove who it is; the text says what was wrong with its certificate.
  case certificate(String)
  case tls(String)
}

/// One HTTPS connection over a non-blocking socket, in either role: TLS 1.2 or later, no client
/// certificate (SPIFFE Federation §5.2).
///
/// Not for mesh traffic: it allocates, and it leaves reading and writing the socket to OpenSSL, so
/// the process must ignore SIGPIPE. Not thread-safe.
@safe package final class HTTPSConnection {
  /// What a step came to.
  package enum Progress: Equatable {
    /// Bytes read or written; for the handshake, 0.
    case done(Int)
    /// Call again when the socket is readable.
    case needsRead
    /// Call again when the socket is writable.
    case needsWrite
    /// The peer has said that nothing more comes (close_notify).
    case ended
    case failed(HTTPSFailure)
  }

  private let ssl: OpaquePointer
  private let socket: Descriptor
  /// What the verification callback writes to; nil if OpenSSL judges alone.
  private let verifier: SVIDVerifier?

  /// The descriptor, for poll(2).
  package var descriptor: Int32 { socket.number }

  /// The client's end of a socket that is connected.
  package convenience init(
    _ socket: consuming Descriptor, expecting server: HTTPSServer
  ) throws(TLSSetupError) {
    let context = try HTTPSClientContext(server)
    try unsafe self.init(socket, context.pointer, context.verifier)
    if case .web(let url) = server { try expectName(url) }
    unsafe SSL_set_connect_state(ssl)
  }

  /// The server's end of a socket that was accepted.
  package convenience init(
    _ socket: consuming Descriptor, context: HTTPSServerContext
  ) throws(TLSSetupError) {
    try unsafe self.init(socket, context.pointer, nil)
    unsafe SSL_set_accept_state(ssl)
  }

  /// The SSL object keeps the context's own reference.
  private init(
    _ socket: consuming Descriptor, _ context: OpaquePointer, _ verifier: SVIDVerifier?
  ) throws(TLSSetupError) {
    guard let ssl = unsafe SSL_new(context) else {
      throw TLSSetupError("SSL_new: \(OpenSSLError.takeReason())")
    }
    guard unsafe SSL_set_fd(ssl, socket.number) == 1 else {
      unsafe SSL_free(ssl)
      throw TLSSetupError("SSL_set_fd: \(OpenSSLError.takeReason())")
    }
    unsafe self.ssl = unsafe ssl
    self.socket = socket
    self.verifier = verifier
  }

  deinit { unsafe SSL_free(ssl) }

  /// RFC 6125, and SNI for a name (RFC 6066 §3 has none for an address).
  private func expectName(_ url: HTTPSURL) throws(TLSSetupError) {
    if let address = url.address {
      let isSet = unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), address.description)
      return try require(isSet == 1, "expected address")
    }
    unsafe SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
    try unsafe require(SSL_set1_host(ssl, url.host) == 1, "expected name")
    try unsafe require(culvert_SSL_set_tlsext_host_name(ssl, url.host) == 1, "SNI")
  }

  // MARK: Steps

  package func handshake() -> Progress {
    ERR_clear_error()
    let result = unsafe SSL_do_handshake(ssl)
    return result == 1 ? .done(0) : obstacle(result)
  }

  package func read(into buffer: inout [UInt8]) -> Progress {
    ERR_clear_error()
    var count = 0
    let result = unsafe buffer.withUnsafeMutableBytes {
      unsafe SSL_read_ex(ssl, $0.baseAddress, $0.count, &count)
    }
    return result == 1 ? .done(count) : obstacle(result)
  }

  /// Writes some of the bytes, of which there is at least one.
  package func write(_ bytes: ArraySlice<UInt8>) -> Progress {
    ERR_clear_error()
    var count = 0
    let result = unsafe bytes.withUnsafeBytes {
      unsafe SSL_write_ex(ssl, $0.baseAddress, $0.count, &count)
    }
    return result == 1 ? .done(count) : obstacle(result)
  }

  /// Says that nothing more comes, in TLS and in TCP. Only after everything has been written.
  package func finish() {
    ERR_clear_error()
    // That the alert finds no room is the peer's loss: a complete message says so itself.
    unsafe SSL_shutdown(ssl)
    ERR_clear_error()
    _ = shutdown(socket.number, Int32(SHUT_WR))
  }

  /// Throws away what the peer still sends, without looking at it: closing with bytes unread would
  /// send RST, and with it take back what was written (RFC 9112 §9.6).
  ///
  /// - Returns: whether more may come.
  package func discardInput() -> Bool {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = unsafe recv(socket.number, &buffer, buffer.count, 0)
    return count > 0 || count < 0 && Errno.current == .tryAgain
  }

  // MARK: What went wrong

  private func obstacle(_ result: Int32) -> Progress {
    // First, before anything else changes it.
    let systemError = Errno.current
    switch unsafe SSL_get_error(ssl, result) {
    case SSL_ERROR_WANT_READ: return .needsRead
    case SSL_ERROR_WANT_WRITE: return .needsWrite
    case SSL_ERROR_ZERO_RETURN: return .ended
    case SSL_ERROR_SYSCALL:
      ERR_clear_error()
      return .failed(.tls(systemError.code == 0 ? "connection lost" : systemError.description))
    default: return .failed(failure())
    }
  }

  private func failure() -> HTTPSFailure {
    let code = ERR_peek_error()
    ERR_clear_error()
    guard OpenSSLError.isReason(code, ERR_LIB_SSL, SSL_R_CERTIFICATE_VERIFY_FAILED) else {
      return .tls(OpenSSLError.reason(code))
    }
    if let rejection = verifier?.rejection {
      let word = rejection.refusal.rawValue
      return .certificate(rejection.detail.isEmpty ? word : "\(word): \(rejection.detail)")
    }
    let error = unsafe SSL_get_verify_result(ssl)
    let text = unsafe X509_verify_cert_error_string(error).map { unsafe String(cString: $0) }
    return .certificate(text ?? "error \(error)")
  }
}
