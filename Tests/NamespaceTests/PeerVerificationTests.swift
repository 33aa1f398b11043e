import TestSupport
import Testing

/// One thing wrong with a peer's certificate, and the word that says so.
enum Defect: String, CaseIterable, Sendable {
  case unknownTrustDomain = "a trust domain without a bundle"
  case foreignSignature = "our trust domain, signed by another's authority"
  case expired
  case notYetValid = "not yet valid"
  case authorityAsLeaf = "a CA certificate as leaf"
  case twoURIs = "two URI SANs"
  case noURI = "no URI SAN"
  case noPath = "an ID without a path"

  var word: String {
    switch self {
    case .unknownTrustDomain: "unknown_trust_domain"
    case .foreignSignature: "untrusted_chain"
    case .expired: "certificate_expired"
    case .notYetValid: "certificate_not_yet_valid"
    case .authorityAsLeaf: "leaf_is_ca"
    case .twoURIs: "multiple_uri_sans"
    case .noURI: "no_uri_san"
    case .noPath: "spiffe_id_without_path"
    }
  }

  /// The certificate for `id`, or the nearest thing the defect allows.
  func credential(for id: String) throws -> Credential {
    let authority = try Identities.authority.get()
    let valid = LeafRequest(id)
    switch self {
    case .unknownTrustDomain:
      return try Identities.stranger.get().issue(LeafRequest("spiffe://stranger.example/sa/x"))
    case .foreignSignature: return try Identities.stranger.get().issue(valid)
    case .expired:
      return try authority.issue(
        valid.with {
          $0.notBeforeHours = -48
          $0.notAfterHours = -1
        })
    case .notYetValid: return try authority.issue(valid.with { $0.notBeforeHours = 1 })
    case .authorityAsLeaf:
      return try authority.issue(
        valid.with {
          $0.isCA = true
          $0.keyUsage = "critical,digitalSignature,keyCertSign"
        })
    case .twoURIs:
      return try authority.issue(valid.with { $0.uris.append("spiffe://demo.mesh/ns/shop/sa/x") })
    case .noURI: return try authority.issue(LeafRequest(dnsName: "db.example"))
    case .noPath: return try authority.issue(LeafRequest("spiffe://demo.mesh"))
    }
  }
}

extension InNamespaces {
  @Suite("Who is on the other side")
  struct PeerVerification {
    @Test("A client's certificate", arguments: Defect.allCases, Family.allCases)
    func client(_ defect: Defect, family: Family) throws {
      let bad = try defect.credential(for: Identities.clientID)
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          plan.server?.inboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let endpoint = family.endpoint(family.server, echo.port)
        let twin = try OpenSSL.meshClient(
          in: mesh.client, to: endpoint, try Identities.client.get())
        #expect(twin.exchanges("from the valid twin"))
        twin.closeInput()
        try echo.waitForAccepted(1)

        let client = try OpenSSL.meshClient(in: mesh.client, to: endpoint, bad)
        client.write("from the bad one\n")
        #expect(try !client.wait().succeeded)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "refused" }
        #expect(record.reason == defect.word, "\(record)")
        #expect(echo.accepted == 1)
        #expect(!echo.received.contains("bad".utf8))
      }
    }

    @Test("A client without a certificate", arguments: Family.allCases)
    func namelessClient(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let echo = try mesh.server.echoServer()
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: family.endpoint(family.server, echo.port), nil)
        client.write("nameless\n")
        #expect(try !client.wait().succeeded)
        try #require(mesh.serverProxy).waitForRecord { $0.end == "refused" }
        #expect(echo.received.isEmpty)
      }
    }

    @Test("A server's certificate", arguments: Defect.allCases, Family.allCases)
    func server(_ defect: Defect, family: Family) throws {
      let bad = try defect.credential(for: Identities.serverID)
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundRules = ["{ to: [0.0.0.0/0, \"::/0\"], action: mtls }"]
        }
      ) { mesh in
        let bundle = try Identities.authority.get().bundle
        _ = try OpenSSL.meshServer(
          in: mesh.server, port: 7443, try Identities.server.get(), trusting: bundle)
        _ = try OpenSSL.meshServer(in: mesh.server, port: 7444, bad, trusting: bundle)
        #expect(try Self.exchange(with: mesh, family, port: 7443))
        #expect(try !Self.exchange(with: mesh, family, port: 7444))
        let record = try #require(mesh.clientProxy).waitForRecord { $0.end == "refused" }
        #expect(record.reason == defect.word, "\(record)")
      }
    }

    @Test("A server that is not the one expected", arguments: Family.allCases)
    func unexpectedServer(family: Family) throws {
      let all = "[0.0.0.0/0, \"::/0\"]"
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundRules = [
            "{ to: \(all), ports: [7443], action: mtls, expect: [\"\(Identities.serverID)\"] }",
            "{ to: \(all), ports: [7444], action: mtls, expect: [\"\(Identities.clientID)\"] }",
            "{ to: \(all), ports: [7445], action: mtls, "
              + "expect: [\"\(Identities.clientID)\", \"\(Identities.serverID)\"] }",
          ]
        }
      ) { mesh in
        for port: UInt16 in [7443, 7444, 7445] {
          _ = try OpenSSL.meshServer(
            in: mesh.server, port: port, try Identities.server.get(),
            trusting: try Identities.authority.get().bundle)
          #expect(try Self.exchange(with: mesh, family, port: port) == (port != 7444))
        }
        try #require(mesh.clientProxy).waitForRefusal("unexpected_identity")
      }
    }

    @Test("The peer table names who must be there", arguments: Family.allCases)
    func unexpectedPeer(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.client?.peers = [
            (family.range(family.server), Identities.serverID),
            (family.range(family.otherServer), Identities.clientID),
          ]
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .answered)
        #expect(
          try attempt("hello", from: mesh.client, to: family.otherServer, port: echo.port)
            == .refused)
        try #require(mesh.clientProxy).waitForRefusal("unexpected_identity")
        #expect(echo.received == Array("hello".utf8))
      }
    }

    @Test("Two trust domains know each other by their own bundles", arguments: Family.allCases)
    func twoTrustDomains(family: Family) throws {
      let stranger = try Identities.stranger.get()
      let guest = try stranger.issue(LeafRequest("spiffe://stranger.example/sa/guest"))
      let impostor = try stranger.issue(LeafRequest(Identities.clientID))
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          plan.server?.trustBundles[stranger.trustDomain] = stranger.bundle
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let endpoint = family.endpoint(family.server, echo.port)
        let welcome = try OpenSSL.meshClient(in: mesh.client, to: endpoint, guest)
        #expect(welcome.exchanges("a guest"))
        let refused = try OpenSSL.meshClient(in: mesh.client, to: endpoint, impostor)
        refused.write("an impostor\n")
        #expect(try !refused.wait().succeeded)
        try #require(mesh.serverProxy).waitForRefusal("untrusted_chain")
        #expect(!echo.received.contains("impostor".utf8))
      }
    }

    @Test("A server that speaks no TLS 1.3 is refused", arguments: Family.allCases)
    func oldTLS(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundRules = ["{ to: [0.0.0.0/0, \"::/0\"], action: mtls }"]
        }
      ) { mesh in
        let credential = try Identities.server.get()
        _ = try mesh.server.start([
          "openssl", "s_server", "-accept", "7443", "-tls1_2", "-cert", credential.certificate,
          "-key", credential.privateKey, "-rev",
        ])
        try mesh.server.waitForListener(port: 7443)
        #expect(try !Self.exchange(with: mesh, family, port: 7443))
        try #require(mesh.clientProxy).waitForRefusal("handshake_failed")
      }
    }

    /// Sends a line in plaintext, as an application does, and expects it back reversed.
    private static func exchange(
      with mesh: Mesh, _ family: Family, port: UInt16
    ) throws -> Bool {
      let stream = try mesh.client.connect(to: family.server, port: port)
      do {
        try stream.send("hello\n")
        return try stream.receiveText(exactly: 6) == "olleh\n"
      } catch {
        return false
      }
    }
  }
}
