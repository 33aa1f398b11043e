import Glibc
import Net
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Outbound rules by server name")
  struct ServerNames {
    /// Two names may go to port 443, and nothing else; the server side has no proxy.
    private static func plan(_ change: (inout Mesh.Plan) -> Void = { _ in }) throws -> Mesh.Plan {
      try .standard {
        $0.server = nil
        $0.client?.peers = []
        $0.client?.limits["handshakeTimeoutMilliseconds"] = 1000
        $0.client?.outboundRules = [
          "{ sni: [\"api.example.com\", \"*.svc.example\"], ports: [443], action: passthrough }",
          "{ to: [0.0.0.0/0, \"::/0\"], ports: [443], action: deny }",
        ]
        change(&$0)
      }
    }

    @Test("Who asks for a name that may be reached gets there byte for byte")
    func passes() throws {
      try Mesh.run(Self.plan()) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let listener = try mesh.server.listen(port: 443)
        for (name, family) in [
          ("api.example.com", Family.v4), ("API.Example.COM", .v6), ("x.svc.example", .v4),
          ("y.x.svc.example", .v6),
        ] {
          let hello = ClientHello(serverName: name).records
          let stream = try mesh.client.connect(to: family.server, port: 443)
          try stream.send(hello)
          let server = try listener.accept()
          #expect(try server.receive(exactly: hello.count) == hello)
          try server.send("answer")
          #expect(try stream.receiveText(exactly: 6) == "answer")
          stream.finish()
          #expect(try server.end() == .clean)
          server.close()
          let record = try proxy.waitForRecord {
            $0["sni"] == name.lowercased() && $0["dst.addr"] == family.endpoint(family.server, 443)
          }
          #expect(record.end == "closed" && record.security == "passthrough")
          #expect(record.reason == "rule_passthrough")
          #expect(record.bytesReceived == hello.count && record.bytesSent == 6)
        }
      }
    }

    @Test("The server's own certificate is what a TLS client sees")
    func ownCertificate() throws {
      let web = try Identities.authority.get().issue(LeafRequest(dnsName: "api.example.com"))
      try Mesh.run(Self.plan()) { mesh in
        _ = try OpenSSL.applicationServer(in: mesh.server, port: 443, web)
        func client(_ name: String) throws -> Program {
          try mesh.client.start([
            "openssl", "s_client", "-connect", Family.v4.endpoint(Family.v4.server, 443),
            "-servername", name, "-verify_hostname", "api.example.com", "-CAfile",
            try Identities.authority.get().bundle, "-verify_return_error", "-quiet", "-no_ign_eof",
          ])
        }
        #expect(try client("api.example.com").exchangesReversed("hello"))
        #expect(try !client("web.example.com").exchangesReversed("hello"))
        try #require(mesh.clientProxy).waitForRecord {
          $0["sni"] == "web.example.com" && $0.reason == "denied_by_rule"
        }
      }
    }

    @Test("Who asks for another name, or none, does not get there", arguments: Family.allCases)
    func refuses(family: Family) throws {
      try Mesh.run(Self.plan()) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer(port: 443)
        let beside = try mesh.server.echoServer(port: 8443)
        let hellos = ["api.example.com.evil", "evil-api.example.com", "svc.example"]
          .map { ClientHello(serverName: $0).records }
        for bytes in hellos + [ClientHello().records, Array("GET / HTTP/1.0\r\n\r\n".utf8)] {
          let stream = try mesh.client.connect(to: family.server, port: 443)
          try stream.send(bytes)
          #expect(try stream.end() == .reset)
        }
        try eventually("all refusals in the log") {
          proxy.records.count { $0.reason == "denied_by_rule" && $0.end == "refused" } == 5
        }
        #expect(echo.accepted == 0)
        // The rules are about port 443.
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: beside.port) == .answered
        )
      }
    }

    @Test("A ClientHello in pieces, or a large one, is read to its end and passed on whole")
    func pieces() throws {
      try Mesh.run(Self.plan { $0.client?.limits["handshakeTimeoutMilliseconds"] = 10_000 }) {
        mesh in
        let listener = try mesh.server.listen(port: 443)
        let small = ClientHello(serverName: "api.example.com")
        // As large as a key share of X25519MLKEM768 makes it, and much larger.
        let large = ClientHello(serverName: "x.svc.example", padding: 1700).records
        let largest = ClientHello(serverName: "x.svc.example", padding: 60_000).records
        let sevens = ClientHello.records(of: small.message, size: 7)
        let pieces = [
          small.records.map { [$0] }, sevens.map { [$0] },
          [Array(large.prefix(1400)), Array(large.dropFirst(1400))], [large],
          [Array(largest.prefix(30_000)), Array(largest.dropFirst(30_000))],
        ]
        for pieces in pieces {
          let stream = try mesh.client.connect(to: Family.v4.server, port: 443)
          try Socket.setNoDelay(stream.descriptor)
          for piece in pieces {
            try stream.send(piece)
            // A pause long enough for the proxy to see each piece by itself.
            usleep(1000)
          }
          let server = try listener.accept()
          let whole = Array(pieces.joined())
          #expect(try server.receive(exactly: whole.count) == whole)
          try server.send("answer")
          #expect(try stream.receiveText(exactly: 6) == "answer")
          // The watermark under which the hello was awaited is gone.
          try stream.send("x")
          #expect(try server.receive(exactly: 1) == Array("x".utf8))
        }
      }
    }

    @Test("A ClientHello that never becomes one is refused by name, and silence is not")
    func broken() throws {
      try Mesh.run(Self.plan()) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let listener = try mesh.server.listen(port: 443)
        let hello = ClientHello(serverName: "api.example.com")
        let silent = try mesh.client.connect(to: Family.v4.server, port: 443)

        var message = hello.message
        // The length of the list of extensions: 4 + 2 + 32 + 1 + 4 + 2 bytes precede it.
        message[45] = 0xff
        let malformed = try mesh.client.connect(to: Family.v4.server, port: 443)
        try malformed.send(ClientHello.records(of: message))
        #expect(try malformed.end() == .reset)
        try proxy.waitForRefusal("malformed_client_hello")

        let endless = try mesh.client.connect(to: Family.v6.server, port: 443)
        let records = ClientHello.records(
          of: ClientHello.handshake([UInt8](repeating: 7, count: 200_000)))
        try? endless.send(records)
        #expect(try endless.end() == .reset)
        try proxy.waitForRecord {
          ["client_hello_too_large", "malformed_client_hello"].contains($0.reason ?? "")
            && $0["src.addr"]?.contains(Family.v6.client) == true
        }

        let ended = try mesh.client.connect(to: Family.v4.server, port: 443)
        try ended.send(Array(hello.records.prefix(40)))
        ended.finish()
        #expect(try ended.end() == .reset)
        try proxy.waitForRefusal("client_closed_before_hello")

        let halting = try mesh.client.connect(to: Family.v6.server, port: 443)
        try halting.send(Array(hello.records.prefix(40)))
        #expect(try halting.end() == .reset)
        try proxy.waitForRefusal("sniff_timeout")

        #expect(try listener.acceptIfAny(seconds: 0) == nil)
        // It has been silent for longer than the one that was refused for it.
        try silent.send(hello.records)
        #expect(try listener.accept().receive(exactly: hello.records.count) == hello.records)
      }
    }

    @Test("A rule for mTLS by server name carries the application's TLS inside the mesh")
    func overMesh() throws {
      let web = try Identities.authority.get().issue(LeafRequest(dnsName: "mesh.example"))
      let plan = try Mesh.Plan.standard {
        $0.client?.peers = []
        $0.client?.outboundRules = [
          "{ sni: [mesh.example], ports: [8443], action: mtls, expect: [\"\(Identities.serverID)\"] }",
          "{ sni: [open.example], ports: [8443], action: passthrough }",
        ]
      }
      try Mesh.run(plan) { mesh in
        _ = try OpenSSL.applicationServer(in: mesh.server, port: 8443, web)
        let recording = try mesh.captured {
          for name in ["mesh.example", "open.example"] {
            let client = try mesh.client.start([
              "openssl", "s_client", "-connect", Family.v6.endpoint(Family.v6.server, 8443),
              "-servername", name, "-verify_hostname", "mesh.example", "-CAfile",
              try Identities.authority.get().bundle, "-verify_return_error", "-quiet",
              "-no_ign_eof",
            ])
            #expect(client.exchangesReversed("hello"))
            client.closeInput()
            let security = name == "mesh.example" ? "mutual_tls" : "passthrough"
            let record = try #require(mesh.clientProxy).waitForRecord { $0["sni"] == name }
            #expect(record.security == security, "\(record)")
          }
        }
        #expect(recording.count(of: "mesh.example") == 0)
        #expect(recording.count(of: "open.example") == 1)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.security == "mutual_tls" }
        #expect(record["src.identity"] == Identities.clientID)
      }
    }
  }
}
