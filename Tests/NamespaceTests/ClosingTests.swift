import Net
import TestSupport
import Testing

/// Whether the two proxies speak mTLS or relay what they get.
enum Path: String, CaseIterable, Sendable {
  case mutualTLS = "mutual TLS"
  case plaintext

  static func apply(_ path: Path, to plan: inout Mesh.Plan) {
    if path == .plaintext { plan.client?.peers = [] }
  }
}

extension InNamespaces {
  @Suite("How connections end")
  struct Closing {
    /// A connection through both proxies: the client's end and the application's.
    private static func connected(
      _ path: Path, _ family: Family, _ body: (Mesh, Stream, Stream) throws -> Void
    ) throws {
      try Mesh.run(.standard { Path.apply(path, to: &$0) }) { mesh in
        let listener = try mesh.server.listen()
        let client = try mesh.client.connect(to: family.server, port: listener.port)
        try client.send("x")
        let application = try listener.accept()
        #expect(try application.receive(exactly: 1) == Array("x".utf8))
        try body(mesh, client, application)
      }
    }

    @Test(
      "A client that has finished still receives everything", arguments: Path.allCases,
      Family.allCases)
    func clientHalfClose(path: Path, family: Family) throws {
      try Self.connected(path, family) { mesh, client, application in
        try client.send("the request")
        client.finish()
        #expect(try application.receiveToEnd() == Array("the request".utf8))
        let answer = [UInt8](repeating: 0x5a, count: 1 << 20)
        try application.send(answer)
        application.close()
        #expect(try client.receiveToEnd() == answer)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "closed" }
        #expect(record.bytesReceived == 12 || record.bytesSent == 12)
      }
    }

    @Test(
      "A server that has finished still receives everything", arguments: Path.allCases,
      Family.allCases)
    func serverHalfClose(path: Path, family: Family) throws {
      try Self.connected(path, family) { _, client, application in
        try application.send("goodbye")
        application.finish()
        #expect(try client.receiveToEnd() == Array("goodbye".utf8))
        let rest = [UInt8](repeating: 0xa5, count: 1 << 20)
        try client.send(rest)
        client.finish()
        #expect(try application.receiveToEnd() == rest)
      }
    }

    @Test("A reset by the client reaches the server", arguments: Path.allCases, Family.allCases)
    func clientReset(path: Path, family: Family) throws {
      try Self.connected(path, family) { mesh, client, application in
        client.reset()
        #expect(try application.end() == .reset)
        try #require(mesh.serverProxy).waitForRecord { $0.end == "client_reset" }
      }
    }

    @Test("A reset by the server reaches the client", arguments: Path.allCases, Family.allCases)
    func serverReset(path: Path, family: Family) throws {
      try Self.connected(path, family) { mesh, client, application in
        application.reset()
        #expect(try client.end() == .reset)
        try #require(mesh.clientProxy).waitForRecord { $0.end == "server_reset" }
      }
    }

    @Test("A closed port resets at once", arguments: Path.allCases, Family.allCases)
    func closedPort(path: Path, family: Family) throws {
      try Mesh.run(.standard { Path.apply(path, to: &$0) }) { mesh in
        let clock = ContinuousClock()
        let started = clock.now
        let outcome = try attempt("x", from: mesh.client, to: family.server, port: 7999)
        let taken = clock.now - started
        #expect(outcome == .refused)
        #expect(taken < .seconds(2))
        try #require(mesh.serverProxy).waitForRefusal("connect_failed")
      }
    }

    @Test("A closed port is never connected to itself", arguments: Path.allCases)
    func selfConnect(path: Path) throws {
      try Mesh.run(.standard { Path.apply(path, to: &$0) }) { mesh in
        // With two ports to choose from, the source port is soon the destination port, and TCP
        // then connects the socket to itself: the client would hear its own words.
        try mesh.server.check([
          "sh", "-c", "echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range",
        ])
        let proxy = try #require(mesh.serverProxy)
        for number in 0..<20 {
          for port in [UInt16(40000), 40001] {
            #expect(
              try attempt("echo \(number)", from: mesh.client, to: Family.v4.server, port: port)
                == .refused)
          }
        }
        try proxy.waitForRecord {
          $0.reason == "connect_failed" && $0.description.contains("nothing listens there")
        }
        #expect(proxy.records.allSatisfy { $0.reason == "connect_failed" && $0.end == "refused" })
      }
    }

    @Test("A killed proxy resets what it relayed, on both sides", arguments: Path.allCases)
    func killed(path: Path) throws {
      try Self.connected(path, .v4) { mesh, client, application in
        let proxy = try #require(mesh.serverProxy)
        proxy.program.send(signal: 9)
        #expect(try proxy.program.wait().exit == .signal(9))
        #expect(try client.end() == .reset)
        #expect(try application.end() == .reset)
      }
    }

    @Test("A half-closed connection that nobody uses is ended", arguments: Path.allCases)
    func halfCloseTimeout(path: Path) throws {
      try Mesh.run(
        .standard { plan in
          Path.apply(path, to: &plan)
          plan.server?.limits["halfCloseTimeoutMilliseconds"] = 500
        }
      ) { mesh in
        let listener = try mesh.server.listen()
        let client = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try client.send("x")
        client.finish()
        let application = try listener.accept()
        #expect(try application.receiveToEnd() == Array("x".utf8))
        // The application never answers.
        #expect(try client.end() == .reset)
        try #require(mesh.serverProxy).waitForRecord { $0.end == "half_close_timeout" }
      }
    }

    @Test("A mesh client that vanishes without a goodbye is a reset", arguments: Family.allCases)
    func clientTruncation(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let listener = try mesh.server.listen()
        let endpoint = family.endpoint(family.server, listener.port)
        let credential = try Identities.client.get()

        let polite = try OpenSSL.meshClient(in: mesh.client, to: endpoint, credential)
        polite.write("polite\n")
        let one = try listener.accept()
        #expect(try one.receive(exactly: 7) == Array("polite\n".utf8))
        polite.closeInput()
        #expect(try one.end() == .clean)
        one.close()

        let rude = try OpenSSL.meshClient(in: mesh.client, to: endpoint, credential)
        rude.write("rude\n")
        let two = try listener.accept()
        #expect(try two.receive(exactly: 5) == Array("rude\n".utf8))
        rude.send(signal: 9)
        #expect(try two.end() == .reset)
        try #require(mesh.serverProxy).waitForRecord { $0.end == "truncated" }
      }
    }

    @Test("A mesh server that vanishes without a goodbye is a reset", arguments: Family.allCases)
    func serverTruncation(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundRules = ["{ to: [0.0.0.0/0, \"::/0\"], action: mtls }"]
        }
      ) { mesh in
        let server = try OpenSSL.meshServer(
          in: mesh.server, port: 7443, try Identities.server.get(),
          trusting: try Identities.authority.get().bundle)
        let client = try mesh.client.connect(to: family.server, port: 7443)
        try client.send("hello\n")
        #expect(try client.receiveText(exactly: 6) == "olleh\n")
        server.send(signal: 9)
        #expect(try client.end() == .reset)
        try #require(mesh.clientProxy).waitForRecord { $0.end == "truncated" }
      }
    }
  }
}
