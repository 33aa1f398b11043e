import Net
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Declared probes")
  struct DeclaredProbes {
    private static let probedPort: UInt16 = 7081
    /// Declared as well, but nothing listens there.
    private static let closedPort: UInt16 = 7082
    private static let otherPort: UInt16 = 7080

    /// Under strict, with plaintext from the outsider to two ports declared.
    private static func plan(authorization: [String] = []) throws -> Mesh.Plan {
      try .standard { plan in
        plan.hasOutsider = true
        plan.server?.inboundMode = "strict"
        plan.server?.authorization = authorization
        let sources = Family.allCases.map { "\"\($0.range($0.outsider))\"" }
          .joined(separator: ", ")
        plan.server?.inbound["probes"] =
          "[ { sources: [\(sources)], ports: [\(probedPort), \(closedPort)] } ]"
      }
    }

    @Test(
      "Plaintext of a declared source to a declared port is served under strict, and no other",
      arguments: Family.allCases)
    func served(family: Family) throws {
      // Whatever the rules, a probe is not judged by them.
      let rule = "{ name: nobody, action: allow, principals: [\"spiffe://demo.mesh/nobody\"] }"
      try Mesh.run(Self.plan(authorization: [rule])) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let outsider = try #require(mesh.outsider)
        let probed = try mesh.server.echoServer(port: Self.probedPort)
        let other = try mesh.server.echoServer(port: Self.otherPort)
        let address = family.serverForOutsider
        #expect(try attempt("probe", from: outsider, to: address, port: probed.port) == .answered)
        let record = try proxy.waitForRecord { $0.reason == "declared_probe" }
        #expect(record.security == "plaintext")
        #expect(record["rule"] == nil)

        #expect(try attempt("probe", from: outsider, to: address, port: other.port) == .refused)
        let refused = try proxy.waitForRefusal("plaintext_in_strict")
        #expect(refused["dst.addr"]?.hasSuffix(":\(other.port)") == true)
        // Past the client's proxy: a source that is not declared.
        let stranger = try mesh.client.connect(
          to: family.server, port: probed.port, mark: Mark.proxy)
        try? stranger.send("probe of a stranger")
        #expect(try stranger.end() == .reset)
        try eventually("its refusal") {
          proxy.records.contains {
            $0.reason == "plaintext_in_strict"
              && $0["dst.addr"]?.hasSuffix(":\(probed.port)") == true
          }
        }
        #expect(other.accepted == 0)
        #expect(probed.received == Array("probe".utf8))
      }
    }

    @Test("A probe that waits for a greeting hears it", arguments: Family.allCases)
    func greeting(family: Family) throws {
      try Mesh.run(Self.plan()) { mesh in
        let proxy = try #require(mesh.serverProxy)
        _ = try mesh.server.greetingServer("220 ready\n", port: Self.probedPort)
        let probe = try #require(mesh.outsider).connect(
          to: family.serverForOutsider, port: Self.probedPort)
        #expect(try probe.receiveText(exactly: 10) == "220 ready\n")
        probe.finish()
        #expect(try probe.end() == .clean)
        try proxy.waitForRecord { $0.reason == "declared_probe" }
      }
    }

    @Test("A probe that only connects learns by a reset that nothing listens there")
    func closedPort() throws {
      try Mesh.run(Self.plan()) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let outsider = try #require(mesh.outsider)
        _ = try mesh.server.echoServer(port: Self.probedPort)
        for family in Family.allCases {
          let closed = try outsider.connect(to: family.serverForOutsider, port: Self.closedPort)
          #expect(try closed.end() == .reset)
          let open = try outsider.connect(to: family.serverForOutsider, port: Self.probedPort)
          open.finish()
          #expect(try open.end() == .clean)
        }
        try eventually("both refusals") {
          proxy.records.count { $0.reason == "connect_failed" } == Family.allCases.count
        }
      }
    }

    @Test("Mutual TLS of a declared source is terminated and judged like any other's")
    func meshFromProbeSource() throws {
      let rule = "{ name: only-web, action: allow, principals: [\"\(Identities.clientID)\"] }"
      try Mesh.run(Self.plan(authorization: [rule])) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let outsider = try #require(mesh.outsider)
        let probed = try mesh.server.echoServer(port: Self.probedPort)
        let endpoint = Family.v4.endpoint(Family.v4.serverForOutsider, probed.port)
        let authority = try Identities.authority.get()
        let admitted = try OpenSSL.meshClient(
          in: outsider, to: endpoint, try Identities.client.get(), trusting: authority.bundle)
        #expect(admitted.exchanges("hello"))
        admitted.closeInput()
        let record = try proxy.waitForRecord { $0.security == "mutual_tls" }
        #expect(record["src.identity"] == Identities.clientID)
        #expect(record["rule"] == "only-web")

        let denied = try OpenSSL.meshClient(
          in: outsider, to: endpoint, try Identities.server.get(), trusting: authority.bundle)
        denied.write("not for me\n")
        #expect(try denied.wait().exit != .code(0))
        let refusal = try proxy.waitForRecord { $0.reason == "not_allowed_by_policy" }
        #expect(refusal["src.identity"] == Identities.serverID)
        #expect(probed.received == Array("hello\n".utf8))
      }
    }
  }
}
