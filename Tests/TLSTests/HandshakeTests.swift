import COpenSSL
import Identity
import Testing

@testable import TLS

/// Two workloads of one trust domain.
struct DemoMesh {
  let root = TestCertificate(.authority("demo.mesh"))
  let bundles: [TrustBundle]
  let web: IdentityMaterial
  let db: IdentityMaterial

  init() {
    bundles = [TrustBundle("demo.mesh", [root])]
    web = TestCertificate(.leaf("URI:\(SPIFFEID.web)"), issuer: root).presented(trusting: bundles)
    db = TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: root).presented(trusting: bundles)
  }

  /// An identity whose chain is filled up to that many bytes (DER), or a little less.
  func longIdentity(bytes: Int) -> IdentityMaterial {
    let padding = (0..<100).map { "DNS:\(String(repeating: "a", count: 50)).\($0)" }
    let wide = TestCertificate(.leaf(padding.joined(separator: ",")), issuer: root).certificate
    let leaf = TestCertificate(Recipe(), issuer: root)
    let count = (bytes - leaf.certificate.der.count) / wide.der.count
    return IdentityMaterial(
      id: .web, chain: [leaf.certificate] + Array(repeating: wide, count: count), key: leaf.key,
      bundles: bundles)
  }

  func connected(role: TLSRole = .server) throws -> Pair {
    try Pair(client: web, server: db, role: role).connect()
  }
}

@Suite struct HandshakeTests {
  let mesh = DemoMesh()

  @Test func `two workloads prove their identities to each other over TLS 1.3`() throws {
    let pair = try mesh.connected()
    #expect(pair.bothEstablished)
    #expect(pair.client.session.peer == .db)
    #expect(pair.server.session.peer == .web)
    for end in [pair.client, pair.server] {
      #expect(end.session.protocolVersion == "TLSv1.3")
      #expect(end.session.cipher == "TLS_AES_128_GCM_SHA256")
      #expect(end.session.alpn == "culvert/1")
    }
    #expect(pair.client.session.verifiedPeer?.leafNotAfterSeconds == mesh.db.notAfterSeconds)
  }

  @Test func `bytes sealed at one end are opened at the other, both ways`() throws {
    let pair = try mesh.connected()
    let bytes = (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    pair.server.inbox += try #require(pair.client.seal(bytes))
    pair.client.inbox += try #require(pair.server.seal(Array(bytes.reversed())))
    pair.run()
    #expect(pair.server.received == bytes)
    #expect(pair.client.received == bytes.reversed())
  }

  @Test func `a peer that speaks TLS 1.2 at most is refused, in both roles`() throws {
    for limit in [TLS1_3_VERSION, TLS1_2_VERSION] {
      for limitsClient in [true, false] {
        let (web, db) = (try TLSContext(mesh.web), try TLSContext(mesh.db))
        let context = unsafe limitsClient ? web.client : db.server
        unsafe #expect(culvert_SSL_CTX_set_protocol_versions(context, TLS1_2_VERSION, limit) == 1)
        let pair = try Pair(End(web, .client), End(db, .server)).connect()
        guard limit == TLS1_2_VERSION else {
          #expect(pair.bothEstablished)
          #expect(pair.client.session.protocolVersion == "TLSv1.3")
          continue
        }
        #expect(pair.server.state.failure?.alertSent == "protocol_version")
        #expect(pair.client.state.failure?.alertReceived == "protocol_version")
      }
    }
  }

  /// What a server answers that knows no TLS 1.3: no `supported_versions` in its hello.
  @Test func `a ServerHello of TLS 1.2 is refused by the client`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    _ = pair.client.start()
    let hello = [3, 3] + [UInt8](repeating: 9, count: 32) + [0, 0xc0, 0x2f, 0, 0, 0]
    _ = pair.client.feed(record(22, [2, 0, 0, UInt8(hello.count)] + hello))
    #expect(pair.client.state.failure?.alertSent == "protocol_version")
  }

  @Test(arguments: [Recipe.KeyKind.p256, .p384, .rsa])
  func `P-256, P-384 and RSA identities work`(key: Recipe.KeyKind) throws {
    let root = TestCertificate(.authority("demo.mesh").with { $0.key = key })
    let bundles = [TrustBundle("demo.mesh", [root])]
    let peer = TestCertificate(Recipe().with { $0.key = key }, issuer: root)
      .presented(trusting: bundles)
    #expect(try Pair(client: peer, server: peer).connect().bothEstablished)
  }

  @Test func `a hello whose key share must be changed (HelloRetryRequest) is served`() throws {
    let (web, db) = (try TLSContext(mesh.web), try TLSContext(mesh.db))
    unsafe #expect(culvert_SSL_CTX_set1_groups_list(web.client, "X448:P-384") == 1)
    let pair = try Pair(End(web, .client), End(db, .server)).connect()
    #expect(pair.bothEstablished)
    // One hello more than usual.
    let usual = try mesh.connected().server.recordsFed
    #expect(pair.server.recordsFed > usual)
  }

  @Test func `a cipher suite or a group that is not ours is refused`() throws {
    let suite = try TLSContext(mesh.web)
    unsafe #expect(SSL_CTX_set_ciphersuites(suite.client, "TLS_AES_128_CCM_SHA256") == 1)
    let group = try TLSContext(mesh.web)
    unsafe #expect(culvert_SSL_CTX_set1_groups_list(group.client, "X448") == 1)
    for context in [suite, group] {
      let pair = try Pair(End(context, .client), End(TLSContext(mesh.db), .server)).connect()
      #expect(pair.server.state.failure?.alertSent == "handshake_failure")
      #expect(pair.client.state.failure?.alertReceived == "handshake_failure")
    }
  }
}
