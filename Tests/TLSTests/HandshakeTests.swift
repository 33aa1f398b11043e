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
    #expect(pair.client.session.peerNotAfterSeconds == mesh.db.notAfterSeconds)
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
}
