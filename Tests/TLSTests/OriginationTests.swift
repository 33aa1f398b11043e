import COpenSSL
import DataPlane
import Net
import Testing

@testable import TLS

/// A certificate authority of the outside world, and what it vouches for.
struct Outside {
  static let versions = [TLS1_2_VERSION, TLS1_3_VERSION]
  static let name = "db.example.com"

  let files: Files
  let root = TestCertificate(.authority("outside.example").with { $0.names = nil })
  let authorities: OriginationAuthorities
  let leaf: TestCertificate

  init() throws {
    files = try Files()
    authorities = try .file(files.write("ca.pem", root.pem))
    leaf = TestCertificate(Self.recipe("DNS:\(Self.name)"), issuer: root)
  }

  static func recipe(_ names: String?) -> Recipe {
    Recipe(names: names, extendedKeyUsage: "serverAuth", commonName: "a server")
  }

  func material(
    _ name: String = Outside.name, credential: KeyPair? = nil, protocols: [String] = []
  ) throws -> OriginationMaterial {
    try OriginationMaterial(
      serverName: name, authorities: authorities, credential: credential, protocols: protocols)
  }

  func connected(_ version: Int32? = nil) throws -> OutsideConnection {
    try OutsideConnection(material(), OutsideServer(leaf, version: version)).connect()
  }

  /// What comes of a connection to a server that shows this certificate.
  func failure(
    to name: String = Outside.name, showing certificate: TestCertificate,
    version: Int32? = nil
  ) throws -> HandshakeFailure? {
    let connection = try OutsideConnection(
      material(name), OutsideServer(certificate, version: version)
    ).connect()
    #expect(connection.client.state.isEstablished == (connection.client.state.failure == nil))
    return connection.client.state.failure
  }
}

@Suite struct OriginationTests {
  let outside: Outside

  init() throws { outside = try Outside() }

  @Test(arguments: Outside.versions)
  func `a server that is who it should be is served over either version`(version: Int32) throws {
    let connection = try outside.connected(version)
    #expect(connection.bothEstablished)
    let client = connection.client
    let isNew = version == TLS1_3_VERSION
    #expect(client.session.protocolVersion == (isNew ? "TLSv1.3" : "TLSv1.2"))
    let suite = isNew ? "TLS_AES_128_GCM_SHA256" : "ECDHE-ECDSA-AES256-GCM-SHA384"
    #expect(client.session.cipher == suite)
    #expect(connection.server.serverName == Outside.name)
    #expect(
      client.session.verifiedPeer == nil && client.session.peer == nil && client.session.alpn == nil
    )
    #expect(!client.session.isResumed && client.session.ownNotAfterSeconds == .max)
  }

  @Test func `of both versions the newer is agreed on`() throws {
    #expect(try outside.connected().client.session.protocolVersion == "TLSv1.3")
  }

  @Test(arguments: Outside.versions)
  func `bytes go both ways`(version: Int32) throws {
    let connection = try outside.connected(version)
    let bytes = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    connection.deliver(toServer: try #require(connection.client.seal(bytes)))
    connection.deliver(toClient: connection.server.send(bytes.reversed()))
    #expect(connection.server.received == bytes)
    #expect(connection.client.received == bytes.reversed())
  }

  @Test(arguments: [
    ("AESGCM+AES128", "AES128-GCM"), ("AESGCM+AES256", "AES256-GCM"), ("CHACHA20", "CHACHA20"),
  ])
  func `every suite of TLS 1.2 fits in the room that is asked for`(list: String, suite: String)
    throws
  {
    let server = OutsideServer(outside.leaf, version: TLS1_2_VERSION)
    unsafe #expect(SSL_CTX_set_cipher_list(server.context, "ECDHE+\(list)") == 1)
    let connection = try OutsideConnection(outside.material(), server).connect()
    #expect(connection.client.session.cipher?.contains(suite) == true)
    for count in [1, TLSSession.maximumPlaintextBytes, 64 * 1024] {
      let bytes = [UInt8](repeating: 9, count: count)
      connection.client.windowBytes = TLSSession.sealedBytes(plaintext: count)
      let before = connection.server.received.count
      connection.deliver(toServer: try #require(connection.client.seal(bytes)))
      #expect(!connection.client.hasPending)
      #expect(connection.server.received.count == before + count)
      let sent = connection.server.send(bytes)
      #expect(sent.count > count)
      connection.deliver(toClient: sent)
    }
    #expect(connection.client.received.count == 1 + 16 * 1024 + 64 * 1024)
  }

  @Test(arguments: Outside.versions)
  func `close_notify ends one direction and leaves the other open`(version: Int32) throws {
    let connection = try outside.connected(version)
    connection.deliver(toClient: connection.server.closeNotify())
    #expect(connection.client.state.isClosed)
    connection.deliver(toServer: try #require(connection.client.seal(Array("later".utf8))))
    #expect(connection.server.received == Array("later".utf8))
    #expect(!connection.server.hasEnded)
    connection.deliver(toServer: connection.client.step { $0.sealCloseNotify(output: &$1) })
    #expect(connection.server.hasEnded && connection.server.failure == nil)
  }

  @Test(arguments: Outside.versions)
  func `after our close_notify the rest of the answer is still opened`(version: Int32) throws {
    let connection = try outside.connected(version)
    connection.deliver(toServer: connection.client.step { $0.sealCloseNotify(output: &$1) })
    #expect(connection.server.hasEnded)
    connection.deliver(toClient: connection.server.send(Array("the rest".utf8)))
    #expect(connection.client.received == Array("the rest".utf8))
    connection.deliver(toClient: connection.server.closeNotify())
    #expect(connection.client.state.isClosed)
  }

  // MARK: What is refused by name

  @Test func `a server of TLS 1.1 at most is refused`() throws {
    let failure = try outside.failure(showing: outside.leaf, version: TLS1_1_VERSION)
    #expect(failure?.word == "alert_received_protocol_version")
  }

  /// The same server with another suite is served: it is the suite that is refused.
  @Test func `a server that can only exchange keys by RSA is refused`() throws {
    let rsa = TestCertificate(
      Outside.recipe("DNS:\(Outside.name)").with {
        $0.key = .rsa
        $0.keyUsage = "critical,digitalSignature,keyEncipherment"
      }, issuer: outside.root)
    for (suite, word) in [
      ("AES128-GCM-SHA256", "alert_received_handshake_failure"),
      ("DHE-RSA-AES128-GCM-SHA256", "alert_received_handshake_failure"),
      ("ECDHE-RSA-AES128-SHA", "alert_received_handshake_failure"),
      ("ECDHE-RSA-AES128-GCM-SHA256", nil),
    ] {
      let server = OutsideServer(rsa, version: TLS1_2_VERSION)
      unsafe #expect(SSL_CTX_set_cipher_list(server.context, suite) == 1)
      let connection = try OutsideConnection(outside.material(), server).connect()
      #expect(connection.client.state.failure?.word == word, "\(suite)")
      #expect(connection.bothEstablished == (word == nil))
    }
  }

  @Test func `a server that answers in plaintext is refused, at once`() throws {
    let client = try End(origination: OriginationContext(outside.material()))
    _ = client.start()
    _ = client.feed(Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8))
    #expect(client.state.failure != nil)
  }

  // MARK: What is agreed on

  @Test func `protocols are offered where they are given, and none has to be selected`() throws {
    let select: SSL_CTX_alpn_select_cb_func = { _, selected, count, offered, _, _ in
      unsafe selected?.pointee = offered.map { unsafe $0 + 1 }
      unsafe count?.pointee = offered.map { unsafe $0.pointee } ?? 0
      return SSL_TLSEXT_ERR_OK
    }
    for (protocols, selects, agreed) in [
      (["h2", "http/1.1"], true, "h2"), (["h2"], false, nil), ([], true, nil),
    ] {
      let server = OutsideServer(outside.leaf)
      if selects { unsafe SSL_CTX_set_alpn_select_cb(server.context, select, nil) }
      let connection = try OutsideConnection(outside.material(protocols: protocols), server)
        .connect()
      #expect(connection.bothEstablished)
      #expect(connection.client.session.alpn == agreed)
    }
  }

  @Test func `a protocol that was not offered is refused`() throws {
    let server = OutsideServer(outside.leaf)
    // One byte less than was offered.
    let select: SSL_CTX_alpn_select_cb_func = { _, selected, count, offered, _, _ in
      unsafe selected?.pointee = offered.map { unsafe $0 + 1 }
      unsafe count?.pointee = offered.map { unsafe $0.pointee - 1 } ?? 0
      return SSL_TLSEXT_ERR_OK
    }
    unsafe SSL_CTX_set_alpn_select_cb(server.context, select, nil)
    let connection = try OutsideConnection(outside.material(protocols: ["h2"]), server).connect()
    #expect(connection.client.state.failure != nil)
    #expect(connection.client.seal([1]) == nil)
  }

  @Test func `a session keeps its context alive`() throws {
    var context: OriginationContext? = try OriginationContext(outside.material())
    weak let gone = context
    var client: End? = try End(origination: try #require(context))
    context = nil
    #expect(gone != nil)
    #expect(client?.start().isEmpty == false)
    client = nil
    #expect(gone == nil)
  }

  // MARK: Hand-over

  /// The record layer takes over with the secrets, and the server notices nothing.
  @Test(arguments: CipherSuite.allCases)
  func `of TLS 1.3 another record layer takes over`(suite: CipherSuite) throws {
    let server = OutsideServer(outside.leaf, version: TLS1_3_VERSION)
    unsafe #expect(SSL_CTX_set_ciphersuites(server.context, suite.name) == 1)
    let connection = try OutsideConnection(outside.material(), server)
    let layer = try RecordHolder(connection)
    let bytes = (0..<40_000).map { UInt8(truncatingIfNeeded: $0 &* 11) }
    #expect(server.take(layer.seal(bytes)).isEmpty)
    #expect(server.received == bytes)
    layer.open(server.send(bytes.reversed()))
    layer.open(server.closeNotify())
    #expect(layer.received == bytes.reversed())
    #expect(layer.steps.last == .closeNotify)
    // What a server sends by itself after the handshake.
    #expect(layer.steps.contains(.tickets))
  }

  @Test func `TLS 1.2 stays with OpenSSL, and says so`() throws {
    let connection = try outside.connected(TLS1_2_VERSION)
    #expect(connection.client.session.handOverObstacle == .tls12)
    #expect(connection.client.session.cipherSuite == nil)
    connection.client.session.forgetSecrets()
    connection.deliver(toServer: try #require(connection.client.seal([1, 2])))
    #expect(connection.server.received == [1, 2])
  }
}

/// The record layer of a client whose session has been handed over.
private final class RecordHolder {
  private var layer: RecordLayer
  private var ciphers: CipherContexts
  private(set) var received: [UInt8] = []
  private(set) var steps: [Opened] = []

  /// Feeds the session no record beyond its last of the handshake.
  init(_ connection: OutsideConnection) throws {
    let (client, server) = (connection.client, connection.server)
    client.inbox += server.take(client.start())
    var toServer: [UInt8] = []
    while !client.state.isEstablished, let record = client.popRecord() {
      toServer += client.feed(record)
    }
    #expect(client.session.handOverObstacle == nil)
    let negotiated = client.session.cipherSuite
    let suite = try #require(negotiated)
    ciphers = try CipherContexts()
    layer = RecordLayer(suite, isClient: true)
    let isInstalled = unsafe client.session.handOver { send, receive in
      unsafe layer.install(send: send, receive: receive, recordsSent: 0, with: &ciphers)
    }
    #expect(isInstalled)
    open(client.inbox + server.take(toServer))
  }

  func seal(_ bytes: [UInt8]) -> [UInt8] {
    var room = [UInt8](repeating: 0, count: RecordLayer.sealedBytes(plaintext: bytes.count))
    return unsafe room.withUnsafeMutableBytes { room in
      var window = unsafe OutputWindow(base: room.baseAddress!, capacity: room.count)
      let isSealed = unsafe bytes.withUnsafeBytes {
        unsafe layer.seal($0, to: &window, with: &ciphers)
      }
      #expect(isSealed)
      return unsafe Array(room[..<window.count])
    }
  }

  func open(_ stream: [UInt8]) {
    var rest = stream[...]
    while rest.count >= 5 {
      let count = 5 + Int(rest[rest.startIndex + 3]) << 8 + Int(rest[rest.startIndex + 4])
      var record = Array(rest.prefix(count))
      rest = rest.dropFirst(count)
      let step = unsafe record.withUnsafeMutableBytes { unsafe layer.open($0, with: &ciphers) }
      if case .data(let bytes) = step { received += record[5..<5 + bytes] }
      steps.append(step)
    }
    #expect(rest.isEmpty)
  }
}
