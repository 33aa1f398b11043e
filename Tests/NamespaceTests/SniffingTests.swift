import Net
import TestSupport
import Testing

/// How a relay between a real TLS client and the proxy cuts up the ClientHello. The transcript of a
/// handshake covers messages, not record headers, so the handshake still succeeds.
enum Cut: String, CaseIterable, Sendable {
  case segments = "one byte per segment"
  case records = "seven bytes per record"
  case both = "one byte per record, each record in two segments"

  func send(_ record: [UInt8], on stream: Stream) throws {
    let message = Array(record.dropFirst(5))
    switch self {
    case .segments:
      for byte in record { try stream.send([byte]) }
    case .records:
      try stream.send(ClientHello.records(of: message, size: 7))
    case .both:
      for byte in message {
        let record = ClientHello.records(of: [byte])
        try stream.send(Array(record.prefix(3)))
        try stream.send(Array(record.dropFirst(3)))
      }
    }
  }
}

extension InNamespaces {
  @Suite("Telling what a client speaks")
  struct Sniffing {
    @Test("A mesh ClientHello in pieces is one", arguments: Cut.allCases, ["permissive", "strict"])
    func meshInPieces(cut: Cut, mode: String) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = mode
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let relay = try Self.relay(cut, in: mesh, to: echo.port)
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: "127.0.0.1:\(relay.port)", try Identities.client.get(),
          trusting: try Identities.authority.get().bundle)
        #expect(client.exchanges("hello in pieces"))
        client.closeInput()
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "mutual_tls")
        #expect(echo.received == Array("hello in pieces\n".utf8))
      }
    }

    @Test("An application's ClientHello in pieces stays the application's", arguments: Cut.allCases)
    func applicationInPieces(cut: Cut) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        _ = try OpenSSL.applicationServer(in: mesh.server, port: 7444, try Identities.web.get())
        let relay = try Self.relay(cut, in: mesh, to: 7444)
        let client = try OpenSSL.applicationClient(
          in: mesh.client, to: "127.0.0.1:\(relay.port)",
          trusting: try Identities.authority.get().bundle)
        #expect(client.exchangesReversed("hello in pieces"))
        client.closeInput()
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "application_tls")
        #expect(record.reason == "client_tls")
      }
    }

    @Test(
      "An application's ClientHello in pieces does not slip through strict",
      arguments: Cut.allCases)
    func applicationInPiecesUnderStrict(cut: Cut) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        try? cut.send(ClientHello(serverName: "app.example").records, on: stream)
        #expect(try stream.end() == .reset)
        try #require(mesh.serverProxy).waitForRefusal("application_tls_in_strict")
        #expect(echo.accepted == 0)
      }
    }

    /// Takes one connection on loopback, cuts its first record up, and passes on everything else.
    private static func relay(_ cut: Cut, in mesh: Mesh, to port: UInt16) throws -> Server {
      let client = mesh.client
      return try client.serve(on: "127.0.0.1") { downstream, _ in
        let upstream = try client.connect(to: Family.v4.server, port: port)
        try Socket.setNoDelay(upstream.descriptor)
        let header = try downstream.receive(exactly: 5)
        let rest = try downstream.receive(exactly: Int(header[3]) << 8 | Int(header[4]))
        try cut.send(header + rest, on: upstream)
        try Stream.pump(downstream, upstream)
      }
    }

    @Test("A ClientHello of 60,000 bytes reaches the application byte for byte")
    func largeClientHello() throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let listener = try mesh.server.listen()
        let hello = ClientHello(serverName: "app.example", padding: 60_000).records
        let stream = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try stream.send(hello)
        #expect(try listener.accept().receive(exactly: hello.count) == hello)
      }
    }

    @Test(
      "A ClientHello of more than 64 KiB is refused, whatever the mode", arguments: InboundMode.all)
    func tooLargeClientHello(mode: String) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = mode
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let hello = ClientHello.records(
          of: ClientHello.handshake([UInt8](repeating: 7, count: 200_000)))
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        try? stream.send(hello)
        #expect(try stream.end() == .reset)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "refused" }
        #expect(
          ["client_hello_too_large", "malformed_client_hello"].contains(record.reason ?? ""))
        #expect(echo.received.isEmpty)
      }
    }

    @Test(
      "A ClientHello that contradicts itself is refused, not relayed", arguments: InboundMode.all)
    func malformedClientHello(mode: String) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = mode
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        var message = ClientHello(alpn: ["culvert/1"]).message
        // The length of the list of extensions: 4 + 2 + 32 + 1 + 4 + 2 bytes precede it.
        message[45] = 0xff
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        try stream.send(ClientHello.records(of: message))
        #expect(try stream.end() == .reset)
        try #require(mesh.serverProxy).waitForRefusal("malformed_client_hello")
        #expect(echo.received.isEmpty)
      }
    }

    @Test("A server that speaks first is heard at once", arguments: Family.allCases)
    func serverFirst(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let server = try mesh.server.greetingServer("220 ready\n")
        let clock = ContinuousClock()
        let taken = try clock.measure {
          let stream = try mesh.client.connect(to: family.server, port: server.port)
          #expect(try stream.receiveText(exactly: 10) == "220 ready\n")
          #expect(try stream.exchange("HELO\n"))
        }
        #expect(taken < .seconds(1))
        try #require(mesh.serverProxy).waitForRecord { $0.reason == "server_first" }
      }
    }

    @Test("A server that speaks first is heard by a mesh client", arguments: Family.allCases)
    func serverFirstOverMesh(family: Family) throws {
      try Mesh.run { mesh in
        let server = try mesh.server.greetingServer("220 canary\n")
        let recording = try mesh.captured {
          let stream = try mesh.client.connect(to: family.server, port: server.port)
          #expect(try stream.receiveText(exactly: 11) == "220 canary\n")
          #expect(try stream.exchange("HELO\n"))
          stream.finish()
          #expect(try stream.end() == .clean)
        }
        #expect(recording.count(of: "canary") == 0)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "mutual_tls")
      }
    }

    @Test("A client that says nothing for a while is left alone under permissive")
    func idleClient() throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.limits["handshakeTimeoutMilliseconds"] = 300
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        // Five times the deadline: none may run before the first byte.
        stream.setTimeout(seconds: 1.5)
        #expect(throws: Errno.tryAgain) { try stream.receive() }
        #expect(try stream.exchange("good morning"))
      }
    }

    @Test("Bytes that are no ClientHello are relayed one by one as they come")
    func plaintextAtOnce() throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        for byte in "G\u{16}\u{3}x".utf8 {
          try stream.send([byte])
          #expect(try stream.receive(exactly: 1) == [byte])
        }
      }
    }
  }
}

enum InboundMode {
  static let all = ["permissive", "strict"]
}
