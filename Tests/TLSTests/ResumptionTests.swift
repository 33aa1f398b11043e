import COpenSSL
import Identity
import Net
import Testing

@testable import TLS

/// Two proxies that connect again and again, each with what its workers share.
private final class Proxies {
  let root = TestCertificate(.authority("demo.mesh"))
  let web: TestCertificate
  let db: TestCertificate
  let address = SocketAddress(.loopbackV4, port: 3306)
  var clientShared = SharedTLSState()
  var serverShared = SharedTLSState()
  /// What each side believes.
  var clientBundles: [TrustBundle]
  var serverBundles: [TrustBundle]
  var clientEpochs = (svid: UInt64(1), trust: UInt64(1))
  var serverEpochs = (svid: UInt64(1), trust: UInt64(1))

  init() {
    web = TestCertificate(.leaf("URI:\(SPIFFEID.web)"), issuer: root)
    db = TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: root)
    clientBundles = [TrustBundle("demo.mesh", [root])]
    serverBundles = clientBundles
  }

  func material(
    _ leaf: TestCertificate, _ bundles: [TrustBundle], _ epochs: (svid: UInt64, trust: UInt64)
  ) throws -> IdentityMaterial {
    try IdentityMaterial(
      KeyPair(leaf.chain, leaf.key, from: "leaf", keyFrom: "key"), bundles: bundles,
      svidEpoch: epochs.svid, trustEpoch: epochs.trust)
  }

  /// One more connection, with contexts of its own as another worker would have them.
  func connect(
    expect: [SPIFFEID] = [], client: TestCertificate? = nil, server: TestCertificate? = nil
  ) throws -> Pair {
    // What the identity itself trusts: a proxy that distrusts its own domain could not start.
    let client = try TLSContext(
      material(client ?? web, clientBundles, clientEpochs), shared: clientShared)
    let server = try TLSContext(
      material(server ?? db, serverBundles, serverEpochs), shared: serverShared)
    return try Pair(
      End(client, .client, expect: expect, server: address), End(server, .server)
    ).connect()
  }

  func expectResumed(
    _ resumed: Bool, expect: [SPIFFEID] = [], client: TestCertificate? = nil,
    server: TestCertificate? = nil, location: SourceLocation = #_sourceLocation
  ) throws {
    let pair = try connect(expect: expect, client: client, server: server)
    #expect(pair.bothEstablished, sourceLocation: location)
    #expect(pair.client.isResumed == resumed, sourceLocation: location)
    #expect(pair.server.isResumed == resumed, sourceLocation: location)
    #expect(pair.client.session.peer == .db, sourceLocation: location)
    #expect(pair.server.session.peer == .web, sourceLocation: location)
  }
}

@Suite struct ResumptionTests {
  private let proxies = Proxies()

  @Test func `a second connection resumes the first, and both still know each other`() throws {
    try proxies.expectResumed(false)
    for _ in 0..<5 { try proxies.expectResumed(true) }
    let pair = try proxies.connect()
    pair.server.inbox += try #require(pair.client.seal([1, 2, 3]))
    pair.client.inbox += try #require(pair.server.seal([4, 5]))
    pair.run()
    #expect(pair.server.received == [1, 2, 3] && pair.client.received == [4, 5])
    #expect(pair.client.session.alpn == "culvert/1")
  }

  @Test func `a resumed handshake agrees on a fresh key and offers no early data`() throws {
    try proxies.expectResumed(false)
    let pair = try proxies.connect()
    #expect(pair.client.isResumed)
    let group = unsafe SSL_ctrl(
      pair.client.session.ssl, SSL_CTRL_GET_NEGOTIATED_GROUP, 0, nil)
    #expect(group == Int(NID_X25519))
    let early = unsafe SSL_get_early_data_status(pair.server.session.ssl)
    #expect(early == SSL_EARLY_DATA_NOT_SENT)
    let session = unsafe SSL_get_session(pair.client.session.ssl)
    let most = unsafe SSL_SESSION_get_max_early_data(session)
    #expect(most == 0)
  }

  @Test func `a full handshake sends one ticket record, a resumed one none`() throws {
    let full = try proxies.connect()
    #expect(full.server.session.ticketRecordsSent == 1)
    let resumed = try proxies.connect()
    #expect(resumed.server.session.ticketRecordsSent == 0)
  }

  @Test func `of one peer the newest sessions are remembered`() throws {
    let server = try TLSContext(
      proxies.material(proxies.db, proxies.serverBundles, (1, 1)), shared: proxies.serverShared)
    var clients: [SharedTLSState] = []
    for _ in 0...ServerSessions.maximumSessionsPerPeer {
      let shared = SharedTLSState()
      clients.append(shared)
      #expect(try !reconnect(shared, server))
    }
    #expect(proxies.serverShared.serverSessions.count == ServerSessions.maximumSessionsPerPeer)
    // The oldest has gone; coming back, it gets another, in the place of the next oldest.
    #expect(try reconnect(try #require(clients.last), server))
    #expect(try !reconnect(clients[0], server))
    #expect(try !reconnect(clients[1], server))
    #expect(try reconnect(try #require(clients.last), server))
  }

  /// Whether a client with these sessions resumes one.
  private func reconnect(_ shared: SharedTLSState, _ server: TLSContext) throws -> Bool {
    let client = try TLSContext(
      proxies.material(proxies.web, proxies.clientBundles, (1, 1)), shared: shared)
    let pair = try Pair(
      End(client, .client, server: proxies.address), End(server, .server)
    ).connect()
    try #require(pair.bothEstablished)
    return pair.client.isResumed
  }

  @Test func `without a server address nothing is resumed or kept`() throws {
    let client = try TLSContext(
      proxies.material(proxies.web, proxies.clientBundles, (1, 1)), shared: proxies.clientShared)
    let server = try TLSContext(
      proxies.material(proxies.db, proxies.serverBundles, (1, 1)), shared: proxies.serverShared)
    for _ in 0..<2 {
      let pair = try Pair(End(client, .client), End(server, .server)).connect()
      #expect(pair.bothEstablished && !pair.client.isResumed)
    }
    #expect(proxies.clientShared.clientSessions.count == 0)
  }

  @Test func `another address has another session`() throws {
    try proxies.expectResumed(false)
    let other = SocketAddress(.loopbackV4, port: 3307)
    let client = try TLSContext(
      proxies.material(proxies.web, proxies.clientBundles, (1, 1)), shared: proxies.clientShared)
    let server = try TLSContext(
      proxies.material(proxies.db, proxies.serverBundles, (1, 1)), shared: proxies.serverShared)
    let pair = try Pair(End(client, .client, server: other), End(server, .server)).connect()
    #expect(pair.bothEstablished && !pair.client.isResumed)
    #expect(proxies.clientShared.clientSessions.count == 2)
  }

  @Test func `a client that asks for short records comes back to a full handshake`() throws {
    let server = try TLSContext(
      proxies.material(proxies.db, proxies.serverBundles, (1, 1)), shared: proxies.serverShared)
    for _ in 0..<2 {
      let client = try TLSContext(
        proxies.material(proxies.web, proxies.clientBundles, (1, 1)), shared: proxies.clientShared)
      let mode = UInt8(TLSEXT_max_fragment_length_1024)
      unsafe #expect(SSL_CTX_set_tlsext_max_fragment_length(client.client, mode) == 1)
      let pair = try Pair(
        End(client, .client, server: proxies.address), End(server, .server)
      ).connect()
      #expect(pair.bothEstablished && !pair.server.isResumed)
    }
    #expect(proxies.serverShared.serverSessions.count == 0)
  }

  @Test func `an identity that has changed forgets the sessions of the one before`() throws {
    try proxies.expectResumed(false)
    #expect(proxies.serverShared.serverSessions.count == 1)
    #expect(proxies.clientShared.clientSessions.count == 1)
    let same = try proxies.material(proxies.db, proxies.serverBundles, (1, 1))
    proxies.serverShared.forgetSessions(allBut: same)
    proxies.clientShared.forgetSessions(allBut: same)
    try proxies.expectResumed(true)
    for epochs in [(svid: UInt64(2), trust: UInt64(1)), (svid: 1, trust: 2)] {
      let next = try proxies.material(proxies.db, proxies.serverBundles, epochs)
      proxies.serverShared.forgetSessions(allBut: next)
      proxies.clientShared.forgetSessions(allBut: next)
      #expect(proxies.serverShared.serverSessions.count == 0)
      #expect(proxies.clientShared.clientSessions.count == 0)
      try proxies.expectResumed(false)
    }
  }

  @Test func `a list from a clock ahead of ours revokes what it names, and nobody else`() throws {
    let list = proxies.root.revocationList([proxies.web.certificate], lastUpdate: 600)
    proxies.serverBundles[0].revocationLists = [list]
    let pair = try proxies.connect()
    #expect(pair.server.state.failure?.refusal == .certificateRevoked)
    let other = TestCertificate(.leaf("URI:\(SPIFFEID.web)"), issuer: proxies.root)
    #expect(try proxies.connect(client: other).bothEstablished)
  }

  // MARK: What ends it

  @Test func `after the server's SVID rotation the handshake is a full one`() throws {
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
    proxies.serverEpochs.svid = 2
    let next = TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: proxies.root)
    try proxies.expectResumed(false, server: next)
    try proxies.expectResumed(true, server: next)
  }

  @Test func `after the client's SVID rotation the handshake is a full one`() throws {
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
    proxies.clientEpochs.svid = 2
    let next = TestCertificate(.leaf("URI:\(SPIFFEID.web)"), issuer: proxies.root)
    try proxies.expectResumed(false, client: next)
    try proxies.expectResumed(true, client: next)
  }

  @Test(arguments: Verifier.allCases)
  func `after a change of bundles the handshake is a full one`(verifier: Verifier) throws {
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
    let partner = TrustBundle("partner.mesh", [TestCertificate(.authority("partner.mesh"))])
    switch verifier {
    case .client:
      proxies.clientEpochs.trust = 2
      proxies.clientBundles.append(partner)
    case .server:
      proxies.serverEpochs.trust = 2
      proxies.serverBundles.append(partner)
    }
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
  }

  @Test(arguments: Verifier.allCases)
  func `after its CA left the bundle the peer is refused`(verifier: Verifier) throws {
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
    // Trust moves to a new CA: one side has a leaf of it, the other still one of the old.
    let root = TestCertificate(.authority("demo.mesh"))
    let bundle = [TrustBundle("demo.mesh", [root])]
    let pair: Pair
    switch verifier {
    case .client:
      proxies.clientBundles = bundle
      proxies.clientEpochs = (1, 2)
      pair = try proxies.connect(
        client: TestCertificate(.leaf("URI:\(SPIFFEID.web)"), issuer: root))
      #expect(pair.client.state.failure?.refusal == .untrustedChain)
    case .server:
      proxies.serverBundles = bundle
      proxies.serverEpochs = (1, 2)
      pair = try proxies.connect(
        server: TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: root))
      // The client, which has not heard of the new CA, refuses first; so let it know both.
      proxies.clientBundles = [TrustBundle("demo.mesh", [proxies.root, root])]
      proxies.clientEpochs = (1, 3)
      let again = try proxies.connect(
        server: TestCertificate(.leaf("URI:\(SPIFFEID.db)"), issuer: root))
      #expect(again.server.state.failure?.refusal == .untrustedChain)
    }
    #expect(!pair.bothEstablished)
  }

  @Test(arguments: Verifier.allCases)
  func `a revoked peer is refused, and its ticket does not help`(verifier: Verifier) throws {
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
    let pair: Pair
    switch verifier {
    case .client:
      proxies.clientBundles[0].revocationLists = [
        proxies.root.revocationList([proxies.db.certificate])
      ]
      proxies.clientEpochs.trust = 2
      pair = try proxies.connect()
      #expect(pair.client.state.failure?.refusal == .certificateRevoked)
      #expect(pair.server.state.failure?.alertReceived == "certificate_revoked")
    case .server:
      proxies.serverBundles[0].revocationLists = [
        proxies.root.revocationList([proxies.web.certificate])
      ]
      proxies.serverEpochs.trust = 2
      pair = try proxies.connect()
      #expect(pair.server.state.failure?.refusal == .certificateRevoked)
    }
    #expect(!pair.bothEstablished)
  }

  @Test func `a session with somebody who is not expected any more is not offered`() throws {
    try proxies.expectResumed(false)
    try proxies.expectResumed(true, expect: [.db])
    let pair = try proxies.connect(expect: [.web])
    #expect(pair.client.state.failure?.refusal == .unexpectedIdentity)
    // The failure has dropped the session; whoever may be there again is verified anew.
    try proxies.expectResumed(false)
  }

  @Test func `a ticket of another process is a full handshake`() throws {
    try proxies.expectResumed(false)
    proxies.serverShared = SharedTLSState()
    try proxies.expectResumed(false)
    try proxies.expectResumed(true)
  }

  @Test func `a verification is good until the first certificate of its path ends`() throws {
    let root = TestCertificate(.authority("demo.mesh").with { $0.ends = 1000 })
    let middle = TestCertificate(
      .authority("demo.mesh").with {
        $0.ends = 500
        $0.commonName = "middle"
      }, issuer: root)
    let leaf = TestCertificate(.leaf("URI:\(SPIFFEID.db)").with { $0.ends = 2000 }, issuer: middle)
    let stack = unsafe culvert_X509_stack_new()
    defer { unsafe culvert_X509_stack_free(stack) }
    for certificate in leaf.chain {
      unsafe culvert_X509_stack_push(stack, certificate.pointer)
    }
    let path = try unsafe PeerVerification([TrustBundle("demo.mesh", [root])]).verify(
      leaf.certificate.pointer, untrusted: stack, expect: [])
    #expect(path.notAfterSeconds == middle.certificate.notAfterSeconds)
    #expect(path.leafNotAfterSeconds == leaf.certificate.notAfterSeconds)
    let hash = try #require(unsafe LeafHash(leaf.certificate.pointer))
    let registry = PeerRegistry()
    let peer = registry.keep(
      VerifiedPeer(path, leaf: hash, chain: leaf.certificate.der, trustEpoch: 1))
    let end = path.notAfterSeconds
    #expect(registry.find(hash, trustEpoch: 1, now: end - 1) === peer)
    #expect(registry.find(hash, trustEpoch: 1, now: end) == nil)
    #expect(registry.find(hash, trustEpoch: 1, now: path.notBeforeSeconds - 1) == nil)
    #expect(registry.find(hash, trustEpoch: 2, now: end - 1) == nil)
    peer.revoke(.certificateRevoked)
    #expect(registry.find(hash, trustEpoch: 1, now: end - 1) == nil)
  }
}
