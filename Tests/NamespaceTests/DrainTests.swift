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
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))
        proxy.program.send(signal: SIGTERM)
        #expect(try stream.end() == .clean)
        #expect(try proxy.program.wait().exit == .code(0))
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
