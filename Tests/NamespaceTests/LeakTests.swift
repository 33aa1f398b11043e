import Foundation
import TestSupport
import Testing

extension InNamespaces {
  @Suite("What the wire shows")
  struct Leaks {
    @Test("Strict shows nothing, and the permissive twin shows all", arguments: Family.allCases)
    func strictAndTwin(family: Family) throws {
      for isStrict in [true, false] {
        try Mesh.run(
          .standard { plan in
            plan.client?.peers = []
            plan.client?.outboundMode = isStrict ? "strict" : "disabled"
            plan.server?.inboundMode = isStrict ? "strict" : "permissive"
          }
        ) { mesh in
          let echo = try mesh.server.echoServer()
          let recording = try mesh.captured {
            let outcome = try attempt(
              "canary-on-the-wire", from: mesh.client, to: family.server, port: echo.port)
            #expect(outcome == .answered)
          }
          #expect(echo.received == Array("canary-on-the-wire".utf8))
          #expect(recording.count(of: "canary-on-the-wire") == (isStrict ? 0 : 2))
          #expect(recording.tlsStreamCount == (isStrict ? 2 : 0))
        }
      }
    }

    @Test("A killed client proxy leaves refusals behind, not plaintext", arguments: Family.allCases)
    func killedClientProxy(family: Family) throws {
      try Mesh.run { mesh in
        let echo = try mesh.server.echoServer()
        let open = try mesh.client.connect(to: family.server, port: echo.port)
        #expect(try open.exchange("hello"))
        let recording = try mesh.captured {
          let proxy = try #require(mesh.clientProxy)
          proxy.program.send(signal: SIGKILL)
          _ = try proxy.program.wait()
          // What the kernel ends for the proxy must not look like a whole stream.
          #expect(try open.end() == .reset)
          for _ in 0..<20 {
            #expect(
              try attempt("canary-after", from: mesh.client, to: family.server, port: echo.port)
                == .refused)
          }
        }
        #expect(recording.count(of: "canary-after") == 0)
        #expect(echo.received == Array("hello".utf8))
      }
    }

    @Test("A killed server proxy leaves refusals behind", arguments: Family.allCases)
    func killedServerProxy(family: Family) throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .answered)
        let proxy = try #require(mesh.serverProxy)
        proxy.program.send(signal: SIGKILL)
        _ = try proxy.program.wait()
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .refused)
        #expect(echo.accepted == 1)
      }
    }

    @Test("A killed proxy can be started again behind the same rules")
    func startedAgain() throws {
      try Mesh.run { mesh in
        let echo = try mesh.server.echoServer()
        let proxy = try #require(mesh.clientProxy)
        proxy.program.send(signal: SIGKILL)
        _ = try proxy.program.wait()
        let again = try mesh.client.start([
          Machine.program("culvert-proxy"), "--config", proxy.configurationPath,
        ])
        try again.waitForError(containing: "culvert-proxy: ready")
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
      }
    }

    @Test(
      "A connection that cannot have mTLS is never retried in plaintext", arguments: Family.allCases
    )
    func noFallback(family: Family) throws {
      try Mesh.run(.standard { $0.server = nil }) { mesh in
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let outcome = try attempt(
            "canary-fallback", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == .refused)
        }
        #expect(recording.count(of: "canary-fallback") == 0)
        #expect(!echo.received.contains("canary-fallback".utf8))
      }
    }
  }
}
