import Foundation
import TestSupport
import Testing

extension RealPrograms {
  /// What happens to records after the handshake, with peers that have a record layer of their own.
  @Suite("Records")
  struct Records {
    private func withServer(
      _ change: (inout ProxyConfiguration) -> Void = { _ in },
      _ body: (Mesh, Server) throws -> Void
    ) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
          if var server = $0.server {
            change(&server)
            $0.server = server
          }
        }
      ) { mesh in try body(mesh, try mesh.server.echoServer()) }
    }

    @Test("openssl s_client updates its keys, and asks for ours to be updated")
    func opensslKeyUpdate() throws {
      try withServer { mesh, echo in
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: "10.90.0.2:\(echo.port)", try Identities.client.get(),
          options: ["-no_ign_eof"])
        #expect(client.exchanges("before any update"))
        for (command, text) in [
          ("K", "after a requested one"), ("k", "after one more"), ("K", "z"),
        ] {
          // A command is one read of its own.
          let count = client.errors.lines.count
          client.write(command + "\n")
          try client.waitForError(containing: "KEYUPDATE", after: count)
          #expect(client.exchanges(text))
        }
        client.closeInput()
        #expect(try client.wait().succeeded)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "closed" }
        #expect(record["engine.send"] == "user")
        #expect(record["engine.recv"] == "user")
      }
    }

    @Test("We update our own keys before they wear out, under openssl's eyes")
    func ownKeyUpdate() throws {
      try withServer {
        $0.dataPlane = ["keyUpdateAfterRecords": "64"]
      } _: { mesh, echo in
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: "10.90.0.2:\(echo.port)", try Identities.client.get(),
          options: ["-no_ign_eof", "-msg"])
        for number in 0..<200 { #expect(client.exchanges("line \(number).")) }
        client.closeInput()
        let outcome = try client.wait()
        #expect(outcome.succeeded)
        let updates = outcome.output.components(separatedBy: "KeyUpdate").count - 1
        #expect((3...4).contains(updates), "\(updates) KeyUpdates in 200 records")
      }
    }

    @Test("gnutls-cli updates its keys", .needs(program: "gnutls-cli"))
    func gnutlsKeyUpdate() throws {
      try withServer { mesh, echo in
        let identity = try Identities.client.get()
        let client = try mesh.client.start([
          "gnutls-cli", "--no-ca-verification", "--alpn", "culvert/1", "--priority",
          "NORMAL:-VERS-ALL:+VERS-TLS1.3", "--x509certfile", identity.certificate,
          "--x509keyfile", identity.privateKey, "--port", "\(echo.port)", "--inline-commands",
          "10.90.0.2",
        ])
        #expect(client.exchanges("before any update"))
        client.write("^rekey^\n")
        #expect(client.exchanges("after an update"))
        client.closeInput()
        #expect(try client.wait().succeeded)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "closed" }
        #expect(record["engine.recv"] == "user")
      }
    }

    @Test("A peer that wants small records keeps the OpenSSL stream, and the log says so")
    func smallRecords() throws {
      try withServer { mesh, echo in
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: "10.90.0.2:\(echo.port)", try Identities.client.get(),
          options: ["-no_ign_eof", "-maxfraglen", "512"])
        #expect(client.exchanges(String(repeating: "long ", count: 1000)))
        client.closeInput()
        #expect(try client.wait().succeeded)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "closed" }
        #expect(record["engine.send"] == "openssl")
        #expect(record["engine.recv"] == "openssl")
        #expect(record["engine.reason"] == "max_fragment_length")
        #expect(try #require(mesh.serverProxy).status().connections.engines["openssl"] == 1)
      }
    }

    @Test("Tickets of openssl s_server do no harm", arguments: ["culvert/1", "istio"])
    func tickets(alpn: String) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundMode = "strict"
        }
      ) { mesh in
        _ = try OpenSSL.meshServer(
          in: mesh.server, port: 7443, try Identities.server.get(),
          trusting: try Identities.authority.get().bundle, alpn: alpn)
        let stream = try mesh.client.connect(to: "10.90.0.2", port: 7443)
        for number in 0..<50 {
          let line = "line \(number)"
          try stream.send(line + "\n")
          let answer = try stream.receiveText(exactly: line.utf8.count + 1)
          #expect(answer == String(line.reversed()) + "\n")
        }
        stream.close()
        let record = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
        #expect(record["engine.send"] == "user")
        #expect(record["engine.recv"] == "user")
      }
    }
  }
}
