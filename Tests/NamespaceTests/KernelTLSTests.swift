import Foundation
import TestSupport
import Testing

extension InNamespaces {
  /// Whole proxies on a kernel that has kTLS: which directions it takes, that every byte arrives,
  /// and how connections end.
  @Suite("KernelTLS", .needsKernelTLS)
  struct KernelTLS {
    static let payload: [UInt8] = (0..<3_000_000).map {
      UInt8(truncatingIfNeeded: $0 * 167 + $0 >> 9)
    }

    private static func plan(
      client: [String: String], server: [String: String]
    ) throws -> Mesh.Plan {
      try .standard {
        $0.client?.dataPlane = client
        $0.server?.dataPlane = server
      }
    }

    /// Sends the payload both ways at once and each end's FIN right behind it.
    private static func exchange(_ mesh: Mesh) throws {
      let listener = try mesh.server.listen()
      let client = try mesh.client.connect(to: Family.v4.server, port: listener.port)
      try client.send("first")
      let application = try listener.accept()
      #expect(try application.receiveText(exactly: 5) == "first")
      let failures = Box<[String]>([])
      let finished = Box(0)
      for sender in [client, application] {
        sender.setTimeout(seconds: 60)
        Thread.detachNewThread {
          do { try sender.send(payload) } catch { failures.update { $0.append("\(error)") } }
          sender.finish()
          finished.update { $0 += 1 }
        }
      }
      var received: [UInt8] = []
      let receiver = Box<[UInt8]?>(nil)
      Thread.detachNewThread {
        let bytes = (try? application.receiveToEnd()) ?? []
        receiver.update { $0 = bytes }
      }
      // One reader is slow at first, so that everything before it fills up.
      for _ in 0..<20 {
        usleep(5_000)
        received += try client.receive(upTo: 10_000)
      }
      received += try client.receiveToEnd()
      let there: [UInt8]? = receiver.wait(seconds: 60) { $0 }
      #expect(failures.value.isEmpty)
      #expect(received == payload)
      #expect(there == payload)
      client.close()
      application.close()
    }

    /// What a proxy should have used towards a Culvert peer with an AES-GCM suite.
    private static func expected(_ proxy: Proxy) throws -> String {
      let kernel = try proxy.status().kernelTLS
      return kernel.mode != "off" && kernel.rekey ? "kernel" : "user"
    }

    @Test("carries every byte, both ways", arguments: ["0", "262144"])
    func both(after bytes: String) throws {
      let settings = ["kernelTLSAfterBytes": bytes]
      try Mesh.run(Self.plan(client: settings, server: settings)) { mesh in
        try Self.exchange(mesh)
        for proxy in [try #require(mesh.clientProxy), try #require(mesh.serverProxy)] {
          let record = try proxy.waitForRecord { $0.end == "closed" }
          #expect(record["engine.send"] == (try Self.expected(proxy)), "\(record)")
          #expect(record["engine.recv"] == (try Self.expected(proxy)), "\(record)")
          #expect(record.bytesSent == Self.payload.count)
          #expect(record.bytesReceived == Self.payload.count + 5)
        }
      }
    }

    @Test("works with a peer that does without", arguments: [true, false])
    func oneSide(clientHasIt: Bool) throws {
      let on = ["kernelTLS": "auto", "kernelTLSAfterBytes": "100000"]
      let off = ["kernelTLS": "off"]
      try Mesh.run(Self.plan(client: clientHasIt ? on : off, server: clientHasIt ? off : on)) {
        mesh in
        try Self.exchange(mesh)
        for proxy in [try #require(mesh.clientProxy), try #require(mesh.serverProxy)] {
          let record = try proxy.waitForRecord { $0.end == "closed" }
          #expect(record["engine.send"] == (try Self.expected(proxy)), "\(record)")
        }
        let without = try #require(clientHasIt ? mesh.serverProxy : mesh.clientProxy)
        let status = try without.status()
        #expect(status.kernelTLS.sendReason == "dataPlane.kernelTLS is off")
        #expect(status.connections.engines["kernel_send"] == 0)
      }
    }

    @Test("is had where it is required, with a suite it can keep for ever")
    func require() throws {
      let settings = ["kernelTLS": "require", "kernelTLSAfterBytes": "0"]
      try Mesh.run(Self.plan(client: settings, server: settings)) { mesh in
        try Self.exchange(mesh)
        for proxy in [try #require(mesh.clientProxy), try #require(mesh.serverProxy)] {
          let record = try proxy.waitForRecord { $0.end == "closed" }
          #expect(record["engine.send"] == "kernel")
          #expect(record["engine.recv"] == "kernel")
          let status = try proxy.status()
          #expect(status.connections.engines["kernel_receive"] == 1)
          if !status.kernelTLS.rekey {
            #expect(record["cipher"] == "TLS_CHACHA20_POLY1305_SHA256")
          }
        }
        let counters = try mesh.server.check(["cat", "/proc/net/tls_stat"])
        #expect(Self.counter("TlsTxSw", counters) > 0 && Self.counter("TlsRxSw", counters) > 0)
        #expect(Self.counter("TlsDecryptError", counters) == 0)
      }
    }

    private static func counter(_ name: String, _ text: String) -> Int {
      let line = text.split(separator: "\n").first { $0.hasPrefix(name) }
      return line?.split(whereSeparator: \.isWhitespace).last.flatMap { Int($0) } ?? -1
    }

    /// With the limit scaled from 2^24 to 64 records, whatever the kernel can do.
    @Test("outlives many key updates of a Culvert peer")
    func keyUpdates() throws {
      let settings = ["kernelTLSAfterBytes": "0", "keyUpdateAfterRecords": "64"]
      try Mesh.run(Self.plan(client: settings, server: settings)) { mesh in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        for number in 0..<500 { #expect(try stream.exchange("message \(number)")) }
        stream.close()
        for proxy in [try #require(mesh.clientProxy), try #require(mesh.serverProxy)] {
          let record = try proxy.waitForRecord { $0.end == "closed" }
          #expect(record["engine.recv"] == (try Self.expected(proxy)), "\(record)")
        }
        try Self.exchange(mesh)
      }
    }

    /// A peer that is no Culvert, as far as its ALPN tells, is received by the kernel everywhere.
    private func withForeignClient(
      _ options: [String], _ body: (Mesh, Server, Program) throws -> Void
    ) throws {
      var plan = try Self.plan(client: [:], server: ["kernelTLSAfterBytes": "0"])
      plan.client = nil
      try Mesh.run(plan) { mesh in
        let echo = try mesh.server.echoServer()
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: "10.90.0.2:\(echo.port)", try Identities.client.get(),
          alpn: "istio", options: options)
        #expect(client.exchanges("a first line"))
        try body(mesh, echo, client)
      }
    }

    @Test("meets a foreign peer's key update: follows it, or ends by name")
    func foreignKeyUpdate() throws {
      try withForeignClient(["-no_ign_eof"]) { mesh, echo, client in
        let proxy = try #require(mesh.serverProxy)
        client.write("K\n")
        try client.waitForError(containing: "KEYUPDATE")
        if try proxy.status().kernelTLS.rekey {
          #expect(client.exchanges("after the update"))
          client.closeInput()
          let record = try proxy.waitForRecord { $0.end == "closed" }
          #expect(record["engine.recv"] == "kernel")
        } else {
          client.write("after the update\n")
          let record = try proxy.waitForRecord { $0.end == "protocol_error" }
          #expect(record["engine.reason"] == "key_update_unsupported")
          #expect(record.reason == "alert_sent_internal_error")
          #expect(echo.received == Array("a first line\n".utf8))
        }
      }
    }

    @Test("tells close_notify from a bare FIN", arguments: [true, false])
    func ends(inOrder: Bool) throws {
      try withForeignClient(["-no_ign_eof"]) { mesh, _, client in
        if inOrder { client.closeInput() } else { client.kill() }
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record["engine.recv"] == "kernel")
        #expect(record.end == (inOrder ? "closed" : "truncated"))
      }
    }
  }
}
