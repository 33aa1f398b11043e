import TestSupport
import Testing

/// ALPN names a client offers, and the one a Culvert server must select.
struct Offer: Sendable, CustomTestStringConvertible {
  let names: String
  let selected: String

  var testDescription: String { names }

  static let all = [
    Offer(names: "culvert/1", selected: "culvert/1"),
    Offer(names: "istio", selected: "istio"),
    Offer(names: "istio,culvert/1", selected: "culvert/1"),
    Offer(names: "istio-peer-exchange,istio", selected: "istio"),
    Offer(names: "h2,http/1.1,istio", selected: "istio"),
  ]
}

extension RealPrograms {
  @Suite("openssl")
  struct OpenSSLPeers {
    @Test("s_client is a mesh client", arguments: Offer.all, Family.allCases)
    func meshClient(offer: Offer, family: Family) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let client = try OpenSSL.meshClient(
            in: mesh.client, to: family.endpoint(family.server, echo.port),
            try Identities.client.get(), alpn: offer.names,
            trusting: try Identities.authority.get().bundle, options: ["-no_ign_eof"])
          #expect(client.exchanges("a canary"))
          client.closeInput()
          let outcome = try client.wait()
          #expect(outcome.succeeded)
          #expect(outcome.output.contains("ALPN protocol: \(offer.selected)"))
          #expect(outcome.output.contains("Verification: OK"))
          #expect(outcome.output.contains("New, TLSv1.3"))
        }
        #expect(recording.count(of: "canary") == 0)
        #expect(echo.received == Array("a canary\n".utf8))
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "mutual_tls")
        #expect(record["alpn"] == offer.selected)
        #expect(record["src.identity"] == Identities.clientID)
      }
    }

    @Test(
      "Without a mesh ALPN a TLS client is the application's",
      arguments: ["h2", "istio-peer-exchange"])
    func notMesh(alpn: String) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        _ = try OpenSSL.meshServer(
          in: mesh.server, port: 7443, try Identities.server.get(),
          trusting: try Identities.authority.get().bundle, alpn: alpn)
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: "10.90.0.2:7443", try Identities.client.get(), alpn: alpn)
        #expect(client.exchangesReversed("hello"))
        client.closeInput()
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "application_tls")
      }
    }

    @Test(
      "s_server is a mesh server, whichever ALPN it selects",
      arguments: ["culvert/1", "istio", "none"], Family.allCases)
    func meshServer(alpn: String, family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundMode = "strict"
        }
      ) { mesh in
        _ = try OpenSSL.meshServer(
          in: mesh.server, port: 7443, try Identities.server.get(),
          trusting: try Identities.authority.get().bundle, alpn: alpn == "none" ? nil : alpn)
        let recording = try mesh.captured {
          let stream = try mesh.client.connect(to: family.server, port: 7443)
          try stream.send("a canary\n")
          #expect(try stream.receiveText(exactly: 9) == "yranac a\n")
        }
        #expect(recording.count(of: "canary") == 0)
        #expect(recording.tlsStreamCount == 2)
      }
    }
  }
}
