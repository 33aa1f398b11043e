import COpenSSL
import Glibc
import Net
import Testing

@testable import TLS

/// Whom a client takes an outside server for (RFC 5280 §6, RFC 6125 §6).
@Suite struct OriginationPeerTests {
  let outside: Outside

  init() throws { outside = try Outside() }

  private func leaf(_ names: String?, _ change: (inout Recipe) -> Void = { _ in })
    -> TestCertificate
  {
    TestCertificate(Outside.recipe(names).with(change), issuer: outside.root)
  }

  @Test(arguments: Outside.versions)
  func `a certificate for another name is refused`(version: Int32) throws {
    let failure = try outside.failure(showing: leaf("DNS:other.example.com"), version: version)
    #expect(failure?.refusal == .serverNameMismatch)
    #expect(failure?.alertSent == "bad_certificate" || failure?.alertSent == "certificate_unknown")
    #expect(failure?.word == "server_name_mismatch")
  }

  @Test(arguments: [
    ("a.example.com", "DNS:*.example.com", true), ("A.Example.COM", "DNS:*.example.com", true),
    ("a.example.com", "DNS:A.EXAMPLE.com", true),
    ("a.example.com", "DNS:x.example.com,DNS:a.example.com", true),
    ("a.b.example.com", "DNS:*.example.com", false), ("example.com", "DNS:*.example.com", false),
    ("a.example.com", "DNS:*.com", false), ("abc.example.com", "DNS:a*.example.com", false),
    ("abc.example.com", "DNS:*c.example.com", false), ("a.example.com", "DNS:a.*.com", false),
    ("a.example.com", "DNS:*.*.com", false), ("a.example.com", "DNS:*", false),
    ("a.example.com", "DNS:.example.com", false),
    ("a.example.com", "DNS:a.example.com.evil.com", false),
    ("a.example.com", "URI:https://a.example.com,email:root@a.example.com", false),
  ])
  func `a wildcard stands for one whole label`(name: String, names: String, fits: Bool) throws {
    let failure = try outside.failure(to: name, showing: leaf(names))
    #expect(failure?.refusal == (fits ? nil : .serverNameMismatch))
  }

  @Test func `the subject's common name is no name`() throws {
    for names in [nil, "DNS:other.example.com", "URI:https://\(Outside.name)"] {
      let certificate = leaf(names) { $0.commonName = Outside.name }
      #expect(try outside.failure(showing: certificate)?.refusal == .serverNameMismatch)
    }
  }

  @Test(arguments: [
    ("192.0.2.7", "IP:192.0.2.7", true), ("2001:db8::7", "IP:2001:DB8:0:0:0:0:0:7", true),
    ("::ffff:192.0.2.7", "IP:192.0.2.7", true), ("192.0.2.7", "IP:192.0.2.8", false),
    ("192.0.2.7", "DNS:192.0.2.7", false), ("192.0.2.7", "IP:2001:db8::7", false),
    ("2001:db8::7", "DNS:db.example.com", false),
  ])
  func `an address must be among the addresses`(name: String, names: String, fits: Bool) throws {
    let server = OutsideServer(leaf(names) { $0.commonName = name })
    let connection = try OutsideConnection(outside.material(name), server).connect()
    #expect(connection.client.state.failure?.refusal == (fits ? nil : .serverNameMismatch))
    #expect(connection.bothEstablished == fits)
    #expect(connection.server.serverName == nil)
  }

  @Test(arguments: Outside.versions)
  func `a certificate that has ended, or not begun, is refused`(version: Int32) throws {
    for (begins, ends, refusal) in [
      (-7200, -3600, PeerRefusal.certificateExpired), (3600, 7200, .certificateNotYetValid),
      (-3600, 3600, nil),
    ] {
      let certificate = leaf("DNS:\(Outside.name)") { ($0.begins, $0.ends) = (begins, ends) }
      let failure = try outside.failure(showing: certificate, version: version)
      #expect(failure?.refusal == refusal)
    }
  }

  @Test(arguments: Outside.versions)
  func `a certificate of an authority that is not ours is refused`(version: Int32) throws {
    let stranger = TestCertificate(.authority("stranger.example").with { $0.names = nil })
    let recipe = Outside.recipe("DNS:\(Outside.name)")
    for certificate in [TestCertificate(recipe, issuer: stranger), TestCertificate(recipe)] {
      let failure = try outside.failure(showing: certificate, version: version)
      #expect(failure?.refusal == .untrustedChain)
      #expect(failure?.alertSent == "unknown_ca")
    }
  }

  /// It has the authority's name, but another key.
  @Test func `a certificate of an authority's namesake is refused`() throws {
    let namesake = TestCertificate(.authority("outside.example").with { $0.names = nil })
    let certificate = TestCertificate(Outside.recipe("DNS:\(Outside.name)"), issuer: namesake)
    let refusal = try outside.failure(showing: certificate)?.refusal
    #expect(refusal == .untrustedChain || refusal == .pathInvalid)
  }

  @Test func `a certificate that must not serve, or is too weak, is refused`() throws {
    for change: (inout Recipe) -> Void in [
      { $0.extendedKeyUsage = "clientAuth" }, { $0.key = .weakRSA },
    ] {
      let certificate = leaf("DNS:\(Outside.name)", change)
      #expect(try outside.failure(showing: certificate)?.refusal == .pathInvalid)
    }
    #expect(try outside.failure(showing: leaf("DNS:\(Outside.name)") { $0.key = .rsa }) == nil)
  }

  @Test func `intermediates are followed, and too many refused before they are looked at`() throws {
    let intermediate = TestCertificate(
      .authority("outside.example").with { ($0.names, $0.commonName) = (nil, "between") },
      issuer: outside.root)
    let certificate = TestCertificate(
      Outside.recipe("DNS:\(Outside.name)"), issuer: intermediate)
    #expect(certificate.intermediates.count == 1)
    #expect(try outside.failure(showing: certificate) == nil)
    for extra in [7, 8] {
      let server = OutsideServer(certificate)
      for _ in 0..<extra {
        unsafe culvert_SSL_CTX_add1_chain_cert(
          server.context, intermediate.certificate.pointer)
      }
      let connection = try OutsideConnection(outside.material(), server).connect()
      let sent = 2 + extra
      let refusal: PeerRefusal? =
        sent > PeerVerification.maximumPeerCertificates ? .chainTooLong : nil
      #expect(connection.client.state.failure?.refusal == refusal)
    }
  }

  // MARK: Who we are

  private func credential(_ certificate: TestCertificate) throws -> KeyPair {
    try KeyPair(
      certificate: outside.files.write("client.pem", certificate.pem),
      privateKey: outside.files.write("client.key", certificate.keyPEM))
  }

  private func asking(_ version: Int32, _ mode: Int32) -> OutsideServer {
    let server = OutsideServer(outside.leaf, version: version)
    unsafe SSL_CTX_set_verify(server.context, mode, { _, _ in 1 })
    return server
  }

  @Test(arguments: Outside.versions)
  func `a certificate is presented to a server that asks for it`(version: Int32) throws {
    let authority = TestCertificate(
      .authority("ours.example").with { ($0.names, $0.commonName) = (nil, "ours") },
      issuer: outside.root)
    let own = TestCertificate(Recipe(names: "DNS:us.example.com", ends: 600), issuer: authority)
    let material = try outside.material(credential: credential(own))
    let required = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    let connection = try OutsideConnection(material, asking(version, required)).connect()
    connection.deliver(toServer: try #require(connection.client.seal([1])))
    #expect(connection.server.received == [1])
    #expect(connection.server.clientCertificate == own.certificate.der)
    let chain = unsafe SSL_get_peer_cert_chain(connection.server.ssl)
    unsafe #expect(culvert_X509_stack_count(chain) == 1)
    #expect(connection.client.session.ownNotAfterSeconds == own.certificate.notAfterSeconds)
    // Its issuer, whom we know as an authority, is not ours to send.
    let alone = TestCertificate(Recipe(names: "DNS:us.example.com"), issuer: outside.root)
    let bare = try OutsideConnection(
      outside.material(credential: credential(alone)), asking(version, required)
    ).connect()
    #expect(bare.server.clientCertificate == alone.certificate.der)
    unsafe #expect(culvert_X509_stack_count(SSL_get_peer_cert_chain(bare.server.ssl)) <= 0)
    let silent = try OutsideConnection(material, OutsideServer(outside.leaf)).connect()
    #expect(silent.bothEstablished && silent.server.clientCertificate == nil)
  }

  @Test(arguments: Outside.versions)
  func `without one the server decides`(version: Int32) throws {
    let optional = try OutsideConnection(
      outside.material(), asking(version, SSL_VERIFY_PEER)
    ).connect()
    #expect(optional.bothEstablished)
    let required = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT
    let connection = try OutsideConnection(outside.material(), asking(version, required)).connect()
    // In TLS 1.3 the client is through before the server has judged.
    let word = version == TLS1_3_VERSION ? "certificate_required" : "handshake_failure"
    #expect(connection.client.state.failure?.word == "alert_received_\(word)")
    #expect(connection.client.state.failure?.refusal == nil)
    #expect(!connection.server.isEstablished)
  }

  // MARK: What is given

  @Test(arguments: [
    "", ".", "a..b", "-a.example", "*.example.com", ".example.com", "a.example.com.", "a b",
    "a:443",
    "https://a", "127.1", "1.2.3.256", "[::1]", "fe80::1%eth0", "ä.example", "a.example\0.b",
    "\u{212a}.example", String(repeating: "a", count: 64),
    String(repeating: "a.", count: 127) + "a",
  ])
  func `what is neither a name nor an address is refused`(name: String) throws {
    let error = #expect(throws: IdentityError.self) { try outside.material(name) }
    #expect(error?.reason == "is neither a DNS name nor an IP address")
  }

  @Test func `protocols that do not fit are refused`() throws {
    let long = String(repeating: "p", count: 255)
    #expect(try outside.material(protocols: [long]).protocolList.count == 256)
    for protocols in [[""], [long + "p"], [long, "p"]] {
      #expect(throws: IdentityError.self) { try outside.material(protocols: protocols) }
    }
  }

  @Test func `a key too weak for any handshake is refused before there is one`() throws {
    let weak = TestCertificate(
      Recipe(names: "DNS:us.example.com", key: .weakRSA), issuer: outside.root)
    let error = #expect(throws: IdentityError.self) {
      try outside.material(credential: credential(weak))
    }
    #expect(error?.file == outside.files.path("client.pem"))
    #expect(error?.reason.contains("too small") == true)
  }

  @Test func `a file without certificates is no authority`() throws {
    let empty = try outside.files.write("empty.pem", "nothing\n")
    let key = try outside.files.write("key.pem", outside.leaf.keyPEM)
    for path in [empty, key, outside.files.path("missing.pem")] {
      let error = #expect(throws: IdentityError.self) { try OriginationAuthorities.file(path) }
      #expect(error?.file == path)
    }
  }

  /// An intermediate, and a server's own certificate, are as good as a root.
  @Test func `each certificate of the file is trusted for itself`() throws {
    let stranger = TestCertificate(.authority("stranger.example").with { $0.names = nil })
    let intermediate = TestCertificate(
      .authority("stranger.example").with { ($0.names, $0.commonName) = (nil, "between") },
      issuer: stranger)
    let recipe = Outside.recipe("DNS:\(Outside.name)")
    let below = TestCertificate(recipe, issuer: intermediate)
    let own = TestCertificate(recipe.with { $0.commonName = "itself" })
    let other = TestCertificate(recipe.with { $0.commonName = "another" })
    let file = try outside.files.write(
      "anchors.pem", TestCertificate.pem([intermediate.certificate, own.certificate]))
    let material = try OriginationMaterial(serverName: Outside.name, authorities: .file(file))
    for (certificate, refusal) in [(below, nil), (own, nil), (other, PeerRefusal.untrustedChain)] {
      let connection = try OutsideConnection(material, OutsideServer(certificate)).connect()
      #expect(connection.client.state.failure?.refusal == refusal)
    }
  }

  // MARK: The system's authorities

  private func refusal(
    by authorities: OriginationAuthorities, _ certificate: TestCertificate
  ) throws -> PeerRefusal? {
    let material = try OriginationMaterial(serverName: Outside.name, authorities: authorities)
    let connection = try OutsideConnection(material, OutsideServer(certificate)).connect()
    #expect(connection.client.state.isEstablished == (connection.client.state.failure == nil))
    return connection.client.state.failure?.refusal
  }

  @Test func `authorities are found in the file, and in directories under hashed names`() throws {
    let files = outside.files
    let stranger = TestCertificate(.authority("stranger.example").with { $0.names = nil })
    let strangers = TestCertificate(Outside.recipe("DNS:\(Outside.name)"), issuer: stranger)
    let directory = try Files()
    try directory.write("0123abcd.0", outside.root.pem)
    try directory.write("README", stranger.pem)
    try directory.write("0123abcd.r1", stranger.pem)
    try directory.write("0123abc.0", stranger.pem)
    try directory.write("89abcdef.0", "damaged")
    let missing = files.path("missing")
    let hashed = try OriginationAuthorities.load(
      file: missing, directories: "\(missing):\(directory.directory)")
    #expect(hashed.count == 1)
    #expect(try refusal(by: hashed, outside.leaf) == nil)
    #expect(try refusal(by: hashed, strangers) == .untrustedChain)
    let both = try OriginationAuthorities.load(
      file: files.write("file.pem", stranger.pem + outside.root.pem),
      directories: directory.directory)
    #expect(both.count == 2)
    #expect(try refusal(by: both, strangers) == nil)
    let error = #expect(throws: IdentityError.self) {
      try OriginationAuthorities.load(file: missing, directories: files.path("nothing"))
    }
    #expect(error?.file == missing)
  }

  /// What a system's store holds beside roots vouches for nobody by itself.
  @Test func `of the system's certificates only roots are anchors`() throws {
    let intermediate = TestCertificate(
      .authority("outside.example").with { ($0.names, $0.commonName) = (nil, "between") },
      issuer: outside.root)
    let below = TestCertificate(Outside.recipe("DNS:\(Outside.name)"), issuer: intermediate)
    let alone = TestCertificate.pem([intermediate.certificate])
    for (pem, refusal) in [
      (alone, PeerRefusal.untrustedChain), (alone + outside.root.pem, nil),
    ] {
      let authorities = try OriginationAuthorities.load(
        file: outside.files.write("system.pem", pem), directories: "")
      #expect(try self.refusal(by: authorities, below) == refusal)
    }
  }

  @Test(.enabled(if: unsafe access(X509_get_default_cert_file(), R_OK) == 0))
  func `this system's authorities do not know ours`() throws {
    #expect(try OriginationAuthorities.system.count > 0)
    #expect(try refusal(by: .system, outside.leaf) == .untrustedChain)
  }
}
