import COpenSSL
import Testing

@testable import TLS

/// What is captured of the key log (SSL_CTX_set_keylog_callback(3)), line by line.
@Suite struct KeyLogTests {
  private let random = String(repeating: "0f", count: 32)
  private let secret = (0..<32).map { UInt8($0 * 7 + 3) }

  private func text(_ bytes: [UInt8], uppercase: Bool = false) -> String {
    bytes.map {
      let digits = String($0, radix: 16, uppercase: uppercase)
      return digits.count == 1 ? "0" + digits : digits
    }.joined()
  }

  private func line(_ label: String, _ value: String) -> String { "\(label) \(random) \(value)" }

  private func take(_ lines: [UInt8]...) -> TrafficSecrets {
    var secrets = TrafficSecrets()
    for line in lines { unsafe line.withUnsafeBytes { unsafe secrets.take(keyLogLine: $0) } }
    return secrets
  }

  private func take(_ lines: String...) -> TrafficSecrets {
    var secrets = TrafficSecrets()
    for line in lines {
      unsafe Array(line.utf8).withUnsafeBytes { unsafe secrets.take(keyLogLine: $0) }
    }
    return secrets
  }

  private func bytes(_ secret: TrafficSecrets.Bytes, _ count: Int) -> [UInt8] {
    (0..<count).map { secret[$0] }
  }

  @Test func `each direction's first application secret is taken`() {
    let other = Array(secret.reversed())
    let secrets = take(
      line("CLIENT_TRAFFIC_SECRET_0", text(secret)), line("SERVER_TRAFFIC_SECRET_0", text(other)))
    #expect(secrets.clientCount == 32 && secrets.serverCount == 32)
    #expect(bytes(secrets.client, 32) == secret)
    #expect(bytes(secrets.server, 32) == other)
  }

  @Test(arguments: [1, 32, 48]) func `the length is that of the hash`(count: Int) {
    let secret = (0..<count).map { UInt8($0) ^ 0xa5 }
    let secrets = take(line("SERVER_TRAFFIC_SECRET_0", text(secret)))
    #expect(secrets.serverCount == count && secrets.clientCount == 0)
    #expect(bytes(secrets.server, count) == secret)
    #expect(bytes(secrets.client, 48) == [UInt8](repeating: 0, count: 48))
  }

  @Test func `digits may be of either case`() {
    let secret = [0xab, 0xcd, 0xef, 0x01] + [UInt8](repeating: 0xfe, count: 28)
    let secrets = take(line("CLIENT_TRAFFIC_SECRET_0", text(secret, uppercase: true)))
    #expect(bytes(secrets.client, 32) == secret)
  }

  @Test func `other labels change nothing`() {
    let labels = [
      "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "SERVER_HANDSHAKE_TRAFFIC_SECRET", "EXPORTER_SECRET",
      "CLIENT_EARLY_TRAFFIC_SECRET", "CLIENT_RANDOM", "CLIENT_TRAFFIC_SECRET_1",
      "SERVER_TRAFFIC_SECRET_1", "CLIENT_TRAFFIC_SECRET_00", "CLIENT_TRAFFIC_SECRET_",
      "client_traffic_secret_0", " CLIENT_TRAFFIC_SECRET_0", "CLIENT_TRAFFIC_SECRET_0X",
      "CLIENT_TRAFFIC_SECRET_0\t", "",
    ]
    for label in labels {
      let secrets = take(
        line("CLIENT_TRAFFIC_SECRET_0", text(secret)), line(label, text([9, 9, 9])))
      #expect(secrets.clientCount == 32 && secrets.serverCount == 0, "\(label)")
      #expect(bytes(secrets.client, 32) == secret)
    }
  }

  @Test func `a line cut short anywhere gives no secret, or fewer bytes than any hash has`() {
    let whole = Array(line("CLIENT_TRAFFIC_SECRET_0", text(secret)).utf8)
    for count in 0..<whole.count {
      let secrets = take(Array(whole[..<count]))
      #expect(secrets.clientCount < CipherSuite.aes128GCM.hashBytes)
      #expect(secrets.serverCount == 0)
    }
    #expect(take(whole).clientCount == 32)
  }

  @Test func `a secret that is none is not taken, and what was there does not count any more`() {
    let good = text(secret)
    var bad = ["0", " ", "\n", text([UInt8](repeating: 1, count: 17))].map { good + $0 }
    bad += ["", "/", ":", "@", "`", "g", "\0"].map { good.dropLast() + $0 }
    bad += ["g" + good.dropFirst(), "0x" + good.dropFirst(2)]
    bad += [String(repeating: "a", count: 100_000), String(repeating: "\0", count: 64)]
    for value in bad {
      let secrets = take(
        line("CLIENT_TRAFFIC_SECRET_0", good), line("CLIENT_TRAFFIC_SECRET_0", value))
      #expect(secrets.clientCount == 0, "\(value.prefix(80))")
    }
  }

  @Test func `bytes beyond ASCII are no digits`() {
    for byte in UInt8(0x80)...0xff {
      let text = Array(line("SERVER_TRAFFIC_SECRET_0", "").utf8) + [byte, byte]
      #expect(take(text).serverCount == 0)
    }
  }

  @Test func `of two lines with one label the last counts`() {
    let secrets = take(
      line("SERVER_TRAFFIC_SECRET_0", text(secret)),
      line("SERVER_TRAFFIC_SECRET_0", text(Array(secret.reversed()))))
    #expect(bytes(secrets.server, 32) == secret.reversed())
  }

  @Test func `cleansing leaves zeros`() {
    var secrets = take(
      line("CLIENT_TRAFFIC_SECRET_0", text(secret)), line("SERVER_TRAFFIC_SECRET_0", text(secret)))
    secrets.cleanse()
    let isZero = unsafe withUnsafeBytes(of: &secrets) { unsafe $0.allSatisfy { $0 == 0 } }
    #expect(isZero)
  }
}

@Suite struct HandOverTests {
  let mesh = DemoMesh()

  private func connected(_ suite: CipherSuite) throws -> Pair {
    try Pair(
      End(TLSContext(mesh.web, suites: [suite]), .client),
      End(TLSContext(mesh.db, suites: [suite]), .server)
    ).connect()
  }

  private func handOver(_ end: End) -> (send: [UInt8], receive: [UInt8]) {
    unsafe end.session.handOver { unsafe (Array($0), Array($1)) }
  }

  @Test(arguments: CipherSuite.allCases)
  func `each end sends with the secret that the other receives with`(suite: CipherSuite) throws {
    let pair = try connected(suite)
    #expect(pair.client.session.cipherSuite == suite)
    #expect(pair.client.session.handOverObstacle == nil)
    #expect(pair.server.session.handOverObstacle == nil)
    let (client, server) = (handOver(pair.client), handOver(pair.server))
    #expect(client.send == server.receive && client.receive == server.send)
    #expect(client.send.count == suite.hashBytes && client.send != client.receive)
  }

  @Test(arguments: CipherSuite.allCases)
  func `what was handed over is not kept`(suite: CipherSuite) throws {
    let pair = try connected(suite)
    let secrets = unsafe pair.client.session.state.pointee.secrets
    #expect(secrets.clientCount == suite.hashBytes)
    _ = handOver(pair.client)
    let left = unsafe pair.client.session.state.pointee.secrets
    #expect(left.clientCount == 0 && left.serverCount == 0)
    let isZero = (0..<48).allSatisfy { left.client[$0] == 0 && left.server[$0] == 0 }
    #expect(isZero)
    #expect(pair.client.session.handOverObstacle == .noSecrets)
  }

  @Test func `before the handshake there is nothing to hand over`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    #expect(pair.client.session.handOverObstacle == .cipherSuite)
    _ = pair.client.start()
    #expect(pair.client.session.handOverObstacle != nil)
  }

  @Test func `a cipher suite that is not ours stays with OpenSSL`() throws {
    let (web, db) = (try TLSContext(mesh.web), try TLSContext(mesh.db))
    unsafe #expect(SSL_CTX_set_ciphersuites(web.client, "TLS_AES_128_CCM_SHA256") == 1)
    unsafe #expect(SSL_CTX_set_ciphersuites(db.server, "TLS_AES_128_CCM_SHA256") == 1)
    let pair = try Pair(End(web, .client), End(db, .server)).connect()
    #expect(pair.bothEstablished)
    for end in [pair.client, pair.server] {
      #expect(end.session.cipherSuite == nil)
      #expect(end.session.handOverObstacle == .cipherSuite)
    }
  }

  @Test func `a peer that asked for short records stays with OpenSSL`() throws {
    let web = try TLSContext(mesh.web)
    let mode = UInt8(TLSEXT_max_fragment_length_1024)
    unsafe #expect(SSL_CTX_set_tlsext_max_fragment_length(web.client, mode) == 1)
    let pair = try Pair(End(web, .client), End(TLSContext(mesh.db), .server)).connect()
    #expect(pair.bothEstablished)
    #expect(pair.server.session.handOverObstacle == .maximumFragmentLength)
  }

  @Test func `a KeyUpdate does not change the secrets that were captured`() throws {
    let pair = try connected(.aes128GCM)
    let before = unsafe pair.client.session.state.pointee.secrets
    unsafe #expect(SSL_key_update(pair.client.session.ssl, SSL_KEY_UPDATE_REQUESTED) == 1)
    pair.server.inbox += try #require(pair.client.seal([1]))
    pair.run()
    #expect(pair.server.received == [1])
    let after = unsafe pair.client.session.state.pointee.secrets
    let isSame = (0..<48).allSatisfy {
      before.client[$0] == after.client[$0] && before.server[$0] == after.server[$0]
    }
    #expect(isSame)
    #expect(after.clientCount == 32 && after.serverCount == 32)
  }
}
