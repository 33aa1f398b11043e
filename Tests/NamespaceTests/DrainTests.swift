import Foundation
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Drain")
  struct Drain {
    @Test("On SIGTERM no more comes in, what is open may finish, then the proxy ends")
    func server() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))
        proxy.program.send(signal: SIGTERM)
        try eventually("draining") { try proxy.status().draining }
        #expect(
          try attempt("too late", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        #expect(try stream.exchange("still open"))
        stream.finish()
        #expect(try stream.end() == .clean)
        #expect(try proxy.program.wait().exit == .code(0))
        #expect(!echo.received.contains("too late".utf8))
      }
    }

    @Test("While it drains, its inbound listeners are gone and the outbound one is not")
    func listenersClose() throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let abroad = try mesh.client.echoServer()
        let held = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try held.exchange("before"))
        #expect(try mesh.server.listeners().isSuperset(of: [15001, 15006, 15008]))
        proxy.program.send(signal: SIGTERM)
        try eventually("no inbound listener") {
          try mesh.server.listeners().isDisjoint(with: [15006, 15008])
        }
        for family in Family.allCases {
          for port in [echo.port, 15008] {
            let clock = ContinuousClock()
            let started = clock.now
            let outcome = try attempt(
              "too late", from: mesh.client, to: family.server, port: port)
            #expect(outcome == .refused)
            #expect(clock.now - started < .seconds(1))
          }
          // Several: each worker gets some, and they reuse the numbers of the closed listeners.
          for _ in 0..<8 {
            #expect(
              try attempt("out", from: mesh.server, to: family.client, port: abroad.port)
                == .answered)
          }
        }
        #expect(try mesh.server.listeners().contains(15001))
        #expect(try held.exchange("still open"))
        #expect(echo.accepted == 1)
        held.close()
        #expect(try proxy.program.wait().exit == .code(0))
      }
    }

    @Test("While it drains, the application can still reach others")
    func outboundGoesOn() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))
        proxy.program.send(signal: SIGTERM)
        try eventually("draining") { try proxy.status().draining }
        #expect(
          try attempt("last words", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        stream.close()
        #expect(try proxy.program.wait().exit == .code(0))
      }
    }

    @Test("At the deadline what is left is ended politely")
    func deadline() throws {
      try Mesh.run(.standard { $0.server?.limits["drainTimeoutMilliseconds"] = 500 }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let listener = try mesh.server.listen()
        let stream = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try stream.send("before")
        let application = try listener.accept()
        #expect(try application.receiveText(exactly: 6) == "before")
        proxy.program.send(signal: SIGTERM)
        #expect(try stream.end() == .clean)
        #expect(try application.end() == .clean)
        #expect(try proxy.program.wait().exit == .code(0))
        let record = try proxy.waitForRecord { $0.end == "drained" }
        #expect(record.security == "mutual_tls")
      }
    }

    @Test(
      "At the deadline a stream that is cut is not made to look whole", arguments: Path.allCases,
      [true, false])
    func deadlineInTransfer(path: Path, isUpload: Bool) throws {
      try Mesh.run(
        .standard { plan in
          Path.apply(path, to: &plan)
          plan.server?.limits["drainTimeoutMilliseconds"] = 500
        }
      ) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let listener = try mesh.server.listen()
        let client = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try client.send("x")
        let application = try listener.accept()
        #expect(try application.receive(exactly: 1) == Array("x".utf8))
        let (sender, receiver) = isUpload ? (client, application) : (application, client)
        let sent = Box(0)
        Thread.detachNewThread {
          // It ends with the connection.
          while (try? sender.send([UInt8](repeating: 0x5a, count: 65_536))) != nil {
            sent.update { $0 += 65_536 }
          }
        }
        // Nobody reads: sooner or later the relay is stuck in the middle of a send.
        while case let before = sent.value,
          sent.wait(seconds: 0.3, until: { $0 > before ? true : nil }) != nil
        {}
        proxy.program.send(signal: SIGTERM)
        #expect(try proxy.program.wait().exit == .code(0))
        #expect(try receiver.end() == .reset)
        #expect(proxy.records.contains { $0.end == "drained" })
      }
    }

    @Test("A proxy with nothing open ends at once")
    func idle() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        proxy.program.send(signal: SIGTERM)
        #expect(try proxy.program.wait(seconds: 5).exit == .code(0))
      }
    }
  }
}
