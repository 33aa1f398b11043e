import TestSupport
import Testing

/// Shows that the instruments work where there is no proxy: a check that found nothing would
/// otherwise mean nothing.
extension InNamespaces {
  @Suite("The instruments, without any proxy")
  struct Harness {
    private static func plain(_ body: (Mesh) throws -> Void) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server = nil
          $0.hasOutsider = true
        }, body)
    }

    @Test("A plaintext exchange works and the capture finds its canary", arguments: Family.allCases)
    func captureFindsPlaintext(family: Family) throws {
      try Self.plain { mesh in
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let stream = try mesh.client.connect(to: family.server, port: echo.port)
          #expect(try stream.exchange("canary-in-the-open"))
          stream.finish()
          #expect(try stream.end() == .clean)
        }
        #expect(recording.count(of: "canary-in-the-open") == 2)
        #expect(recording.tlsStreamCount == 0)
        #expect(echo.received == Array("canary-in-the-open".utf8))
      }
    }

    @Test("OpenSSL peers accept each other as mesh peers", arguments: Family.allCases)
    func openSSLPeers(family: Family) throws {
      try Self.plain { mesh in
        let authority = try Identities.authority.get()
        _ = try OpenSSL.meshServer(
          in: mesh.server, port: 7443, try Identities.server.get(), trusting: authority.bundle)
        let recording = try mesh.captured {
          let client = try OpenSSL.meshClient(
            in: mesh.client, to: family.endpoint(family.server, 7443), try Identities.client.get(),
            trusting: authority.bundle)
          #expect(client.exchangesReversed("canary"))
          client.closeInput()
          #expect(try client.wait().succeeded)
        }
        #expect(recording.count(of: "canary") == 0)
        #expect(recording.tlsStreamCount == 2)
      }
    }

    @Test("An application's own TLS works", arguments: Family.allCases)
    func applicationTLS(family: Family) throws {
      try Self.plain { mesh in
        _ = try OpenSSL.applicationServer(
          in: mesh.server, port: 7444, try Identities.web.get())
        let client = try OpenSSL.applicationClient(
          in: mesh.client, to: family.endpoint(family.server, 7444),
          trusting: try Identities.authority.get().bundle)
        #expect(client.exchangesReversed("hello"))
      }
    }

    @Test("Ends are told apart: clean, reset, refused", arguments: Family.allCases)
    func ends(family: Family) throws {
      try Self.plain { mesh in
        let listener = try mesh.server.listen()
        let one = try mesh.client.connect(to: family.server, port: listener.port)
        try listener.accept().finish()
        #expect(try one.end() == .clean)
        let two = try mesh.client.connect(to: family.server, port: listener.port)
        try listener.accept().reset()
        #expect(try two.end() == .reset)
        #expect(throws: Refused.self) {
          try Refused.check { try mesh.client.connect(to: family.server, port: 9) }
        }
      }
    }

    @Test("The third namespace reaches the server", arguments: Family.allCases)
    func outsider(family: Family) throws {
      try Self.plain { mesh in
        let echo = try mesh.server.echoServer()
        let outsider = try #require(mesh.outsider)
        let stream = try outsider.connect(to: family.serverForOutsider, port: echo.port)
        #expect(try stream.exchange("hello"))
      }
    }
  }
}
