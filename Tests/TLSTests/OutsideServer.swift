import COpenSSL

@testable import TLS

/// A server by OpenSSL alone, in memory, over bytes instead of records.
///
/// What is unusual about it is set on its context, before the first bytes.
@safe final class OutsideServer {
  let context: OpaquePointer
  private(set) lazy var ssl = unsafe makeSSL()
  private let input: OpaquePointer
  private let output: OpaquePointer
  private(set) var isEstablished = false
  private(set) var received: [UInt8] = []
  /// The client has said that it sends nothing more.
  private(set) var hasEnded = false
  /// OpenSSL's reason.
  private(set) var failure: String?

  init(_ certificate: TestCertificate, version: Int32? = nil) {
    unsafe context = SSL_CTX_new(TLS_server_method())!
    if let version {
      unsafe precondition(culvert_SSL_CTX_set_protocol_versions(context, version, version) == 1)
    }
    // So that the test can have it offer what nobody should.
    unsafe SSL_CTX_set_security_level(context, 0)
    unsafe precondition(
      SSL_CTX_use_certificate(context, certificate.certificate.pointer) == 1
        && SSL_CTX_use_PrivateKey(context, certificate.key.pointer) == 1)
    for intermediate in certificate.intermediates {
      unsafe precondition(culvert_SSL_CTX_add1_chain_cert(context, intermediate.pointer) == 1)
    }
    unsafe input = BIO_new(BIO_s_mem())!
    unsafe output = BIO_new(BIO_s_mem())!
  }

  deinit {
    unsafe SSL_free(ssl)
    unsafe SSL_CTX_free(context)
  }

  private func makeSSL() -> OpaquePointer {
    let ssl = unsafe SSL_new(context)!
    unsafe SSL_set_bio(ssl, input, output)
    unsafe SSL_set_accept_state(ssl)
    return unsafe ssl
  }

  /// What the client has sent as SNI.
  var serverName: String? {
    unsafe SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name).map { unsafe String(cString: $0) }
  }

  /// The certificate that the client has shown (DER).
  var clientCertificate: [UInt8]? {
    guard let shown = unsafe SSL_get1_peer_certificate(ssl) else { return nil }
    return unsafe Certificate(owning: shown).der
  }

  /// Takes bytes from the client, and gives the answer to them.
  func take(_ bytes: [UInt8]) -> [UInt8] {
    if !bytes.isEmpty {
      unsafe precondition(BIO_write(input, bytes, Int32(bytes.count)) == bytes.count)
    }
    ERR_clear_error()
    if !isEstablished {
      let result = unsafe SSL_do_handshake(ssl)
      isEstablished = result == 1
      note(result)
    }
    if isEstablished { read() }
    return drain()
  }

  private func read() {
    var room = [UInt8](repeating: 0, count: 16 * 1024)
    while true {
      let count = unsafe SSL_read(ssl, &room, Int32(room.count))
      guard count > 0 else { return note(count) }
      received += room[..<Int(count)]
    }
  }

  private func note(_ result: Int32) {
    guard result <= 0 else { return }
    switch unsafe SSL_get_error(ssl, result) {
    case SSL_ERROR_WANT_READ: break
    case SSL_ERROR_ZERO_RETURN: hasEnded = true
    default: failure = failure ?? OpenSSLError.takeReason()
    }
  }

  func send(_ bytes: [UInt8]) -> [UInt8] {
    unsafe precondition(SSL_write(ssl, bytes, Int32(bytes.count)) == bytes.count)
    return drain()
  }

  func closeNotify() -> [UInt8] {
    unsafe SSL_shutdown(ssl)
    return drain()
  }

  /// Asks for another handshake (HelloRequest, RFC 5246 §7.4.1.1).
  func renegotiate() -> [UInt8] {
    unsafe precondition(SSL_renegotiate(ssl) == 1)
    unsafe SSL_do_handshake(ssl)
    return drain()
  }

  func drain() -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: unsafe Int(BIO_ctrl_pending(output)))
    let count = unsafe bytes.isEmpty ? 0 : BIO_read(output, &bytes, Int32(bytes.count))
    return Array(bytes[..<Int(max(count, 0))])
  }
}

/// A connection in memory between our client's end and an outside server.
final class OutsideConnection {
  let client: End
  let server: OutsideServer
  /// How many records the server has sent, by their type.
  private(set) var recordTypes: [UInt8: Int] = [:]

  init(_ material: OriginationMaterial, _ server: OutsideServer) throws {
    client = try End(origination: OriginationContext(material))
    self.server = server
  }

  @discardableResult
  func connect() -> OutsideConnection {
    deliver(toServer: client.start())
    return self
  }

  func deliver(toServer bytes: [UInt8]) { deliver(toClient: server.take(bytes)) }

  func deliver(toClient bytes: [UInt8]) {
    client.inbox += bytes
    while let record = client.popRecord() {
      recordTypes[record[0], default: 0] += 1
      let answer = client.feed(record)
      if !answer.isEmpty { client.inbox += server.take(answer) }
    }
  }

  var bothEstablished: Bool { client.state.isEstablished && server.isEstablished }
}
