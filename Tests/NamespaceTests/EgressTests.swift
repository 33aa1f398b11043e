import Net
import TestSupport
import Testing

/// One way in which a server outside the mesh is not the one that a rule names.
private enum Impostor: UInt16, CaseIterable {
  case otherName = 7011
  case otherAuthority
  case expired

  var word: String {
    switch self {
    case .otherName: "server_name_mismatch"
    case .otherAuthority: "untrusted_chain"
    case .expired: "certificate_expired"
    }
  }

  func server() throws -> OutsideServers.Entry {
    let authority = try (self == .otherAuthority ? Identities.stranger : Identities.authority).get()
    let name = self == .otherName ? "other.example" : "app.example"
    let request = LeafRequest(dnsName: name).with {
      guard self == .expired else { return }
      ($0.notBeforeHours, $0.notAfterHours) = (-48, -1)
    }
    return OutsideServers.Entry(port: rawValue, try authority.issue(request))
  }
}

extension InNamespaces {
  @Suite("TLS to servers outside the mesh")
  struct Egress {
    /// A mesh whose server side has no proxy, and a rule for each port there.
    private static func plan(_ rules: [(UInt16, String)]) throws -> Mesh.Plan {
      let ranges = Family.allCases.map { "\"\($0.range($0.server))\"" }.joined(separator: ", ")
      return try .standard {
        $0.server = nil
        $0.client?.peers = []
        $0.client?.outboundRules = rules.map { port, rest in
          "{ to: [\(ranges)], ports: [\(port)], \(rest) }"
        }
      }
    }

    /// The rest of a rule: TLS to `app.example`, with more in `tls`.
    private static func tls(_ more: String = "") throws -> String {
      "action: tls, tls: { serverName: app.example, ca: \"\(try bundle)\"\(more) }"
    }

    private static var bundle: String { get throws { try Identities.authority.get().bundle } }

    /// A request in plaintext, and its answer.
    private static func ask(
      _ mesh: Mesh, _ line: String, to address: String = Family.v4.server, port: UInt16
    ) throws -> (answer: String, end: Stream.End) {
      let stream = try mesh.client.connect(to: address, port: port)
      let text = "HTTP/1.0 200 OK\r\n\r\nanswer to \(line)"
      do {
        try stream.send("\(line)\r\nHost: app.example\r\n\r\n")
        let answer = try stream.receiveText(exactly: text.utf8.count)
        return (answer == text ? "whole" : answer, try stream.end())
      } catch let error as Errno where error == .connectionReset || error == .brokenPipe {
        return ("none", .reset)
      }
    }

    @Test("Plaintext inside, TLS outside")
    func originates() throws {
      let web = try Identities.web.get()
      let plan = try Self.plan([
        (7001, Self.tls()), (7002, Self.tls()), (7003, "action: plaintext"), (7004, Self.tls()),
        (7005, Self.tls()),
      ])
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let servers = try OutsideServers(
          in: mesh.server,
          [
            .init(port: 7001, web) { $0.version = "1.2" }, .init(port: 7002, web),
            .init(port: 7004, web) { ($0.version, $0.answers) = ("1.2", .mirror) },
            .init(port: 7005, web) { $0.answers = .mirror },
          ])
        let echo = try mesh.server.echoServer(port: 7003)
        let recording = try mesh.captured {
          for (index, family) in Family.allCases.enumerated() {
            for (port, version) in [(7001, "TLSv1.2"), (7002, "TLSv1.3")] as [(UInt16, String)] {
              let result = try Self.ask(mesh, "GET /canary-tls", to: family.server, port: port)
              #expect(result.answer == "whole" && result.end == .clean)
              let seen = try servers.wait(forPort: port, count: index + 1)
              #expect(seen.version == version && seen.sni == "app.example" && seen.serial == nil)
            }
          }
          #expect(
            try attempt(
              "canary-plain", from: mesh.client, to: Family.v4.server, port: echo.port)
              == .answered)
        }
        #expect(recording.count(of: "canary-tls") == 0)
        #expect(recording.count(of: "canary-plain") == 2)
        for (port, cipher) in [(7001, "ECDHE"), (7002, "TLS_")] {
          let record = try proxy.waitForRecord { $0["dst.addr"]?.hasSuffix(":\(port)") == true }
          #expect(record.end == "closed" && record.security == "originated_tls")
          #expect(record["cipher"]?.hasPrefix(cipher) == true, "\(record)")
          #expect(record["dst.identity"] == nil)
          #expect((record["engine.send"] == "openssl") == (port == 7001), "\(record)")
        }
        try Self.checkHalfClose(mesh, proxy)
      }
    }

    /// A few megabytes there, the end, and the same bytes back.
    private static func checkHalfClose(_ mesh: Mesh, _ proxy: Proxy) throws {
      let bytes = (0..<3 << 20).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761 >> 13) }
      for port in [7004, 7005] as [UInt16] {
        let stream = try mesh.client.connect(to: Family.v6.server, port: port)
        try stream.send(bytes)
        stream.finish()
        #expect(try stream.receiveToEnd() == bytes, "port \(port)")
        let record = try proxy.waitForRecord { $0["dst.addr"]?.hasSuffix(":\(port)") == true }
        #expect(record.end == "closed" && record.bytesSent == bytes.count)
        #expect(record.bytesReceived == bytes.count)
      }
    }

    @Test("A server that is not the one named is sent nothing")
    func impostors() throws {
      var rules = try Impostor.allCases.map { ($0.rawValue, try Self.tls()) }
      rules.append((7001, try Self.tls()))
      try Mesh.run(Self.plan(rules)) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let servers = try OutsideServers(
          in: mesh.server,
          try Impostor.allCases.map { try $0.server() }
            + [.init(port: 7001, try Identities.web.get())])
        for impostor in Impostor.allCases {
          let result = try Self.ask(mesh, "GET /secret", port: impostor.rawValue)
          #expect(result.answer == "none" && result.end == .reset)
          try proxy.waitForRefusal(impostor.word)
          let seen = try servers.wait(forPort: impostor.rawValue)
          #expect(seen.bytes == nil && seen.error?.contains("ALERT") == true, "\(seen)")
        }
        #expect(try Self.ask(mesh, "GET /twin", port: 7001).answer == "whole")
      }
    }

    @Test("A client certificate is shown where the rule has one, and a new one after its rotation")
    func clientCertificate() throws {
      let web = try Identities.web.get()
      let authority = try QuickAuthority(trustDomain: "clients.example")
      let issued = try authority.issue("spiffe://clients.example/egress", count: 2)
      let directory = try TemporaryDirectory()
      func put(_ svid: IssuedSVID) throws {
        for (file, name) in [
          (svid.credential.privateKey, "client.key"), (svid.credential.certificate, "client.pem"),
        ] {
          try Program.check(["install", "-m", "600", file, "\(directory.path)/\(name)"])
        }
      }
      try put(issued[0])
      let pair =
        ", certificate: \"\(directory.path)/client.pem\", privateKey: \"\(directory.path)/client.key\""
      let plan = try Self.plan([
        (7001, Self.tls(pair)), (7002, Self.tls(pair)), (7003, Self.tls()), (7004, Self.tls()),
      ])
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let servers = try OutsideServers(
          in: mesh.server,
          (0..<4).map { number in
            .init(port: 7001 + UInt16(number), web) {
              $0.clients = authority.bundle
              $0.version = number % 2 == 0 ? "1.2" : "1.3"
            }
          })
        for (round, svid) in issued.enumerated() {
          if round > 0 {
            try put(svid)
            try eventually("the new certificate") {
              _ = try Self.ask(mesh, "GET /again", port: 7001)
              return servers.connections.contains { $0.serial == svid.serial }
            }
          }
          for port in [7001, 7002] as [UInt16] {
            #expect(try Self.ask(mesh, "GET /round\(round)", port: port).answer == "whole")
            try eventually("the certificate of round \(round)") {
              servers.connections.contains { $0.port == port && $0.serial == svid.serial }
            }
          }
        }
        // TLS 1.2 fails in the handshake; in TLS 1.3 the client is done before the server judges.
        for (port, end) in [(7003, "refused"), (7004, "protocol_error")] as [(UInt16, String)] {
          let result = try Self.ask(mesh, "GET /nameless", port: port)
          #expect(result.answer == "none" && result.end == .reset)
          let record = try proxy.waitForRecord { $0["dst.addr"]?.hasSuffix(":\(port)") == true }
          #expect(record.end == end, "\(record)")
          let seen = try servers.wait(forPort: port)
          #expect(seen.bytes == nil && seen.error == "PEER_DID_NOT_RETURN_A_CERTIFICATE")
        }
      }
    }

    @Test("An end without close_notify is a reset, or the end where the rule says so")
    func missingCloseNotify() throws {
      let web = try Identities.web.get()
      let ends: [(UInt16, String, String)] = [
        (7001, "1.2", "reset"), (7002, "1.3", "reset"), (7003, "1.2", "end"), (7004, "1.3", "end"),
      ]
      let plan = try Self.plan(
        ends.map { ($0.0, try Self.tls(", missingCloseNotify: \($0.2)")) })
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        _ = try OutsideServers(
          in: mesh.server,
          ends.map { port, version, _ in
            .init(port: port, web) { ($0.version, $0.bare) = (version, true) }
          })
        for (port, _, end) in ends {
          let result = try Self.ask(mesh, "GET /bare", port: port)
          #expect(result.end == (end == "end" ? .clean : .reset), "port \(port)")
          let record = try proxy.waitForRecord { $0["dst.addr"]?.hasSuffix(":\(port)") == true }
          #expect(record.end == (end == "end" ? "closed" : "truncated"), "\(record)")
        }
      }
    }
  }
}
