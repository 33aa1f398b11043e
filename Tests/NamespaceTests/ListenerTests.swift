import TestSupport
import Testing

extension InNamespaces {
  @Suite("The proxy's own listeners")
  struct Listeners {
    @Test("Connecting straight to the outbound listener is refused", arguments: Family.allCases)
    func outboundListener(family: Family) throws {
      try Mesh.run { mesh in
        let stream = try mesh.client.connect(to: family.loopback, port: 15001)
        #expect(try stream.end() == .reset)
        try #require(mesh.clientProxy).waitForRefusal("self_call")
      }
    }

    @Test("The outbound listener is not reachable from outside", arguments: Family.allCases)
    func outboundListenerFromOutside(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let outcome = try attempt("hello", from: mesh.client, to: family.server, port: 15001)
        #expect(outcome == .refused)
      }
    }

    @Test("Connecting straight to the inbound listener is refused", arguments: Family.allCases)
    func inboundListener(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let stream = try mesh.client.connect(to: family.server, port: 15006)
        #expect(try stream.end() == .reset)
        try #require(mesh.serverProxy).waitForRefusal("self_call")
      }
    }

    @Test("Connecting to the inbound listener from inside is refused", arguments: Family.allCases)
    func inboundListenerFromInside(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let stream = try mesh.server.connect(to: family.loopback, port: 15006)
        #expect(try stream.end() == .reset)
        try #require(mesh.serverProxy).waitForRefusal("self_call")
      }
    }

    @Test("Without rules, where a connection was going is not guessed", arguments: Family.allCases)
    func withoutRules(family: Family) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.installsRules = false
        }
      ) { mesh in
        let stream = try mesh.client.connect(to: family.server, port: 15006)
        #expect(try stream.end() == .reset)
        try #require(mesh.serverProxy).waitForRecord {
          $0.end == "refused"
            && ["self_call", "no_original_destination"].contains($0.reason ?? "")
        }
      }
    }

    @Test("An inbound connection to an address that is not ours is refused")
    func notLocal() throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let echo = try mesh.client.echoServer()
        // Something else on the machine redirects foreign traffic to the inbound listener.
        try mesh.server.check(
          ["nft", "-f", "-"],
          input: """
            table inet test_redirect {
              chain output {
                type nat hook output priority -150;
                ip daddr 10.90.0.1 tcp dport \(echo.port) redirect to :15006
              }
            }
            """)
        let stream = try mesh.server.connect(to: Family.v4.client, port: echo.port)
        #expect(try stream.end() == .reset)
        try #require(mesh.serverProxy).waitForRefusal("not_local")
        #expect(echo.accepted == 0)
      }
    }

    @Test("The mesh port shakes hands and says goodbye", arguments: Family.allCases)
    func meshPort(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: family.endpoint(family.server, 15008), try Identities.client.get(),
          trusting: try Identities.authority.get().bundle, options: [])
        let outcome = try client.wait()
        #expect(outcome.output.contains("ALPN protocol: culvert/1"))
        #expect(outcome.output.contains("Verification: OK"))
        #expect(outcome.exit == .code(0))
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "mesh" }
        #expect(record["src.identity"] == Identities.clientID)
      }
    }

    @Test("The mesh port wants a mesh peer", arguments: Family.allCases)
    func meshPortRefusesStrangers(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let endpoint = family.endpoint(family.server, 15008)
        let nameless = try OpenSSL.meshClient(in: mesh.client, to: endpoint, nil, options: [])
        #expect(try !nameless.wait().succeeded)
        let istio = try OpenSSL.meshClient(
          in: mesh.client, to: endpoint, try Identities.client.get(), alpn: "istio", options: [])
        #expect(try !istio.wait().succeeded)
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: 15008) == .refused)
      }
    }

    @Test("Traffic on loopback is the application's own", arguments: Family.allCases)
    func loopback(family: Family) throws {
      try Mesh.run(
        .standard {
          $0.server?.inboundMode = "strict"
          $0.server?.outboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        for address in [family.loopback, family.server] {
          #expect(
            try attempt("hello", from: mesh.server, to: address, port: echo.port) == .answered)
        }
        #expect(try mesh.serverProxy?.status().connections.accepted == 0)
      }
    }

    @Test("An IPv4 destination dialled as IPv4-mapped IPv6 meets the same rules")
    func mapped() throws {
      try Mesh.run(
        .standard {
          $0.client?.outboundRules = ["{ to: [10.90.0.20/32], action: deny }"]
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let stream = try mesh.client.connect(
            to: Family.v4.server, port: echo.port, mapped: true)
          #expect(try stream.exchange("canary"))
          let denied = try mesh.client.connect(
            to: Family.v4.otherServer, port: echo.port, mapped: true)
          #expect(try denied.end() == .reset)
        }
        #expect(recording.count(of: "canary") == 0)
        try #require(mesh.clientProxy).waitForRefusal("denied_by_rule")
        #expect(echo.accepted == 1)
      }
    }

    @Test(
      "Who sets the proxy's mark passes his own proxy by, not another's", arguments: Family.allCases
    )
    func stolenMark(family: Family) throws {
      try Mesh.run(.standard { $0.server?.inboundMode = "strict" }) { mesh in
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .answered)
        let bypass = try mesh.client.connect(to: family.server, port: echo.port, mark: 0xc17)
        try? bypass.send("canary")
        #expect(try bypass.end() == .reset)
        try #require(mesh.serverProxy).waitForRefusal("plaintext_in_strict")
        #expect(echo.accepted == 1)
      }
    }
  }
}
