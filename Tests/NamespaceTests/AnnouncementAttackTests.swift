import Net
import TestSupport
import Testing

extension InNamespaces {
  /// Somebody on the path takes the answers out of TCP handshakes.
  @Suite("Announcements under attack")
  struct AnnouncementAttacks {
    @Test(
      "A lost answer costs a second connection, and no byte of the first",
      arguments: Family.allCases)
    func lostAnswer(family: Family) throws {
      try Mesh.run(.strangers()) { mesh in
        let echo = try mesh.server.echoServer()
        try Attack.loseAnswers.start(in: mesh.client)
        let recording = try mesh.captured {
          let outcome = try attempt(
            "canary-of-loss", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == .answered)
        }
        #expect(recording.count(of: "canary-of-loss") == 0)
        let openings = recording.opened(to: echo.port)
        #expect(openings.count == 2)
        #expect(openings.map { recording.sentByteCount(of: $0) > 0 } == [false, true])
        #expect(recording.opened(to: meshPort).count == 1)
        #expect(echo.accepted == 1)
        let record = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
        #expect(record.security == "mutual_tls")
        #expect(record["discovery"] == "mesh_port")
        try #require(mesh.serverProxy).waitForRecord {
          $0.end == "client_reset" && $0.security == "none"
        }

        // Nothing is left to tell the server; what it answers on the mesh port still holds.
        try Attack.stop(in: mesh.client)
        try Attack.loseAnnouncements.start(in: mesh.server)
        let outcome = try attempt(
          "canary-of-loss", from: mesh.client, to: family.server, port: echo.port)
        #expect(outcome == .answered)
        for record in try #require(mesh.clientProxy).waitForRecords(2, "outbound") {
          #expect(record["discovery"] == "mesh_port")
        }
      }
    }

    @Test(
      "Plaintext after an announcement is refused", arguments: InboundMode.all, Family.allCases)
    func plaintextAfterAnnouncement(mode: String, family: Family) throws {
      let plan = try Mesh.Plan.strangers { plan in
        plan.client?.discovery["probe"] = "off"
        plan.server?.inboundMode = mode
        plan.server?.limits["handshakeTimeoutMilliseconds"] = 300
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        try Attack.loseAnswers.start(in: mesh.client)
        let lost = try attempt("to nobody", from: mesh.client, to: family.server, port: echo.port)
        #expect(lost == .refused)
        let plaintext = try proxy.waitForRefusal("announced_then_plaintext")
        #expect(plaintext["detail"] == nil)
        let sent = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
        #expect(sent.reason == "not_announced")

        let silent = try mesh.client.connect(to: family.server, port: echo.port)
        #expect(try silent.end() == .reset)
        try proxy.waitForRecord {
          $0.reason == "announced_then_plaintext" && $0["detail"] == "silence"
        }
        #expect(echo.accepted == 0)

        try Attack.stop(in: mesh.client)
        let stream = try mesh.client.connect(to: family.server, port: echo.port)
        // Twice the deadline of the handshake, which is over.
        stream.setTimeout(seconds: 0.6)
        #expect(throws: Errno.tryAgain) { try stream.receive() }
        #expect(try stream.exchange("to the application"))
        #expect(echo.accepted == 1)
        #expect(try proxy.status().connections.refused == ["announced_then_plaintext": 2])
      }
    }

    @Test("Whoever is mesh and is not trusted is not spoken to at all", arguments: ["auto", "off"])
    func untrusted(announce: String) throws {
      let stranger = try Identities.stranger.get()
      let authority = try Identities.authority.get()
      let bundles = [
        stranger.trustDomain: stranger.bundle, authority.trustDomain: authority.bundle,
      ]
      let plan = try Mesh.Plan.strangers { plan in
        let id = "spiffe://\(stranger.trustDomain)/ns/shop/sa/db"
        plan.server = ProxyConfiguration(try stranger.issue(LeafRequest(id)), trusting: bundles)
        plan.server?.discovery["announce"] = announce
        plan.client?.discovery["announce"] = announce
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let outcome = try attempt(
            "canary-of-strangers", from: mesh.client, to: Family.v4.server, port: echo.port)
          #expect(outcome == .refused)
        }
        #expect(recording.count(of: "canary-of-strangers") == 0)
        #expect(recording.opened(to: echo.port).count == 1)
        #expect(recording.opened(to: meshPort).isEmpty == (announce == "auto"))
        #expect(echo.received.isEmpty)
        let refusal = try proxy.waitForRecord { $0.end == "refused" }
        #expect(refusal.reason == "unknown_trust_domain")
        #expect(refusal["discovery"] == (announce == "auto" ? "announced" : "mesh_port"))

        try proxy.reconfigure { $0.trustBundles = bundles }
        let outcome = try attempt(
          "canary-of-strangers", from: mesh.client, to: Family.v4.server, port: echo.port)
        #expect(outcome == .answered)
      }
    }
  }
}
