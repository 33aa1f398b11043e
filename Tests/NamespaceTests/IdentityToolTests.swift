import TestSupport
import Testing

extension InNamespaces {
  @Suite("The tool and a proxy's identity")
  struct IdentityTool {
    private func culvert(_ proxy: Proxy, _ arguments: String...) throws -> Program.Outcome {
      try Program.run(
        [Machine.program("culvert")] + arguments + ["--admin-socket", proxy.adminSocket])
    }

    @Test("It shows what the proxy presents, judges as the proxy does, and counts what it did")
    func asks() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        let (client, server) = (try Identities.client.get(), try Identities.server.get())
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("mTLS", from: mesh.client, to: Family.v4.server, port: echo.port) == .answered
        )

        let show = try culvert(proxy, "identity", "show")
        #expect(show.exit == .code(0), "\(show.errors)")
        #expect(show.output.contains("identity  \(Identities.serverID)\n"))
        #expect(show.output.contains("verified  1 peer remembered\n"))
        let pem = try culvert(proxy, "identity", "show", "--pem")
        #expect(Array(pem.output.utf8) == contents(ofFile: server.certificate))

        let good = try culvert(proxy, "identity", "verify", client.certificate)
        #expect(good.exit == .code(0))
        #expect(good.output == "accepted: \(Identities.clientID)\n")
        let stranger = try Identities.stranger.get().issue(
          LeafRequest("spiffe://stranger.example/a"))
        let bad = try culvert(proxy, "identity", "verify", stranger.certificate)
        #expect(bad.exit == .code(1))
        #expect(bad.output.hasPrefix("refused: unknown_trust_domain"))

        let metrics = try culvert(proxy, "metrics")
        #expect(metrics.exit == .code(0))
        for line in [
          "culvert_up 1", #"culvert_identity_state{state="ready"} 1"#,
          #"culvert_handshakes_total{kind="full"} 1"#,
          #"culvert_bundle_authorities{source="pem",trust_domain="demo.mesh"} 1"#,
        ] {
          #expect(metrics.output.contains("\n\(line)\n"), "\(line)")
        }
      }
    }

    @Test("It says that the proxy has gone")
    func gone() throws {
      let directory = try TemporaryDirectory()
      for command in [["identity", "show"], ["metrics"], ["status"]] {
        let outcome = try Program.run(
          [Machine.program("culvert")] + command + ["--admin-socket", directory.path + "/none"])
        #expect(outcome.exit == .code(1))
        #expect(outcome.errors.contains("no culvert-proxy answers here"))
      }
    }
  }
}
