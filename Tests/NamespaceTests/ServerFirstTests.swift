import Foundation
import Net
import TestSupport
import Testing

/// What a server says before it is spoken to.
enum Greeting: String, CaseIterable, Sendable {
  case smtp = "220 mail.example ESMTP\r\n"
  case ftp = "220-Welcome\r\n220 Ready for a new user\r\n"
}

extension InNamespaces {
  @Suite("Servers that speak first")
  struct ServerFirst {
    @Test(
      "Their greetings reach clients with and without a proxy, and nobody waits for a deadline",
      arguments: Family.allCases)
    func greetings(family: Family) throws {
      try Mesh.run(
        .standard {
          // Found by asking, as it is in operation.
          $0.client?.peers = []
          $0.hasOutsider = true
        }
      ) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let outsider = try #require(mesh.outsider)
        for greeting in Greeting.allCases {
          let port = try mesh.server.greetingServer(greeting.rawValue).port
          try Self.hear(greeting, outsider, family.serverForOutsider, port)
          let record = try server.waitForRecord {
            $0.reason == "server_first" && $0["dst.addr"]?.hasSuffix(":\(port)") == true
          }
          #expect(record.security == "plaintext")
          try Self.hear(greeting, mesh.client, family.server, port)
          let meshed = try server.waitForRecord {
            $0.security == "mutual_tls" && $0["dst.addr"]?.hasSuffix(":\(port)") == true
          }
          #expect(meshed["src.identity"] == Identities.clientID)
        }
        if try client.status().discovery.announce == "works" {
          let record = try client.waitForRecord { $0.direction == "outbound" }
          #expect(record["discovery"] == "announced")
        }
        let count = Double(Greeting.allCases.count * 2)
        // The deadline of the handshake is ten seconds.
        for bound in ["1", "+Inf"] {
          let name = "culvert_undecided_seconds_bucket{direction=\"inbound\",le=\"\(bound)\"}"
          #expect(try server.metric(name) == count, "le \(bound)")
        }
        let sightings = try server.metric(
          "culvert_connections_total{direction=\"inbound\",reason=\"server_first\","
            + "security=\"plaintext\"}")
        #expect(sightings == count / 2)
      }
    }

    private static func hear(
      _ greeting: Greeting, _ client: Namespace, _ address: String, _ port: UInt16
    ) throws {
      let stream = try client.connect(to: address, port: port)
      let text = greeting.rawValue
      #expect(try stream.receiveText(exactly: text.utf8.count) == text)
      #expect(try stream.exchange("QUIT\r\n"))
      stream.finish()
      #expect(try stream.end() == .clean)
    }

    @Test(
      "MariaDB greets clients with and without a proxy", .needs(program: "mariadbd"),
      .needs(program: "mariadb"))
    func mariaDB() throws {
      try Mesh.run(.standard { $0.hasOutsider = true }) { mesh in
        try RealServer.mariaDB(in: mesh.server)
        let outsider = try #require(mesh.outsider)
        for family in Family.allCases {
          for (client, address) in [
            (mesh.client, family.server), (outsider, family.serverForOutsider),
          ] {
            let answer = try client.check([
              "mariadb", "--no-defaults", "--user=shop", "--password=shop", "--host=\(address)",
              "--protocol=tcp", "--skip-ssl", "--batch", "--skip-column-names",
              "--execute=SELECT 6 * 7",
            ])
            #expect(answer == "42\n", "\(family), \(address)")
          }
        }
        let proxy = try #require(mesh.serverProxy)
        try eventually("all four in the log") {
          proxy.records.count { $0.security == "mutual_tls" } == 2
            && proxy.records.count { $0.reason == "server_first" } == 2
        }
      }
    }

    @Test("Who announces is not served before it has proved who it is")
    func announcedSilence() throws {
      try Mesh.run(
        .standard {
          $0.server?.limits["handshakeTimeoutMilliseconds"] = 300
        }
      ) { mesh in
        let proxy = try #require(mesh.serverProxy)
        guard try proxy.status().discovery.announce == "works" else { return }
        let greeter = try mesh.server.greetingServer("220 ready\n")
        let silent = try mesh.client.connect(
          to: Family.v4.server, port: greeter.port, mark: Mark.proxy | Mark.announce)
        #expect(try silent.end() == .reset)
        let record = try proxy.waitForRefusal("announced_then_plaintext")
        #expect(record["detail"] == "silence")
        #expect(greeter.accepted == 0)
        let plain = try mesh.client.connect(
          to: Family.v4.server, port: greeter.port, mark: Mark.proxy)
        #expect(try plain.receiveText(exactly: 10) == "220 ready\n")
      }
    }

    // MARK: A long way

    private static let slowAddresses = (
      ["10.90.2.1/24", "fd90:2::1/64"], ["10.90.2.2/24", "fd90:2::2/64"]
    )

    private static func slow(_ family: Family) -> String {
      family == .v4 ? "10.90.2.2" : "fd90:2::2"
    }

    @Test(
      "A mesh ClientHello that a long way delays beyond the greeting is still recognised",
      .needsSlowPath, arguments: Family.allCases)
    func lateClientHello(family: Family) throws {
      try Mesh.run(
        .standard {
          $0.client?.discovery["announce"] = "off"
          $0.client?.peers = [(family.range(Self.slow(family)), Identities.serverID)]
        }
      ) { mesh in
        try Namespace.joinSlowly(
          mesh.client, mesh.server, milliseconds: 25, addresses: Self.slowAddresses)
        let greeter = try mesh.server.greetingServer("220 ready\n")
        let proxy = try #require(mesh.serverProxy)
        let late = try LateClient(in: mesh.client, to: Self.slow(family), greeter.port)
        // Longer than the longest grace.
        #expect(try late.hears("220 ready\n", silence: 0.5) == false)
        try proxy.waitForRecord { $0.reason == "server_first" }
        // Two round trips are 100 ms.
        #expect(try late.hears("220 ready\n", silence: 0.02))
        try proxy.waitForRecord { $0.security == "mutual_tls" }

        let stream = try mesh.client.connect(to: Self.slow(family), port: greeter.port)
        #expect(try stream.receiveText(exactly: 10) == "220 ready\n")
        #expect(try stream.exchange("HELO\n"))
        stream.finish()
        #expect(try stream.end() == .clean)
        let ours = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
        #expect(ours.security == "mutual_tls")
        #expect(ours["discovery"] == nil)
        try eventually("both connections in the log") {
          proxy.records.count { $0.security == "mutual_tls" } == 2
        }
      }
    }

    @Test("Without the way, the same silence is a client that lets the server speak")
    func lateClientHelloNearby() throws {
      try Mesh.run(
        .standard {
          $0.server?.limits["handshakeTimeoutMilliseconds"] = 2000
        }
      ) { mesh in
        let greeter = try mesh.server.greetingServer("220 ready\n")
        let proxy = try #require(mesh.serverProxy)
        let plain = try mesh.client.connect(
          to: Family.v4.server, port: greeter.port, mark: Mark.proxy)
        #expect(try plain.receiveText(exactly: 10) == "220 ready\n")
        plain.finish()
        #expect(try plain.end() == .clean)
        try proxy.waitForRecord { $0.reason == "server_first" }

        // Once it is known to speak mesh mTLS, silence is none of its plaintext.
        let late = try LateClient(in: mesh.client, to: Family.v4.server, greeter.port)
        #expect(try late.hears("220 ready\n", silence: 0))
        #expect(try late.hears("220 ready\n", silence: 0.25))
        try eventually("both in the log") {
          proxy.records.count { $0.security == "mutual_tls" } == 2
        }
        let silent = try mesh.client.connect(
          to: Family.v4.server, port: greeter.port, mark: Mark.proxy)
        #expect(try silent.end() == .reset)
        try proxy.waitForRefusal("silent_mesh_source")
      }
    }

    // MARK: Idle clients

    @Test("A pooled connection may say nothing for as long as it likes, but not under strict")
    func idle() throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.limits["handshakeTimeoutMilliseconds"] = 300
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let proxy = try #require(mesh.serverProxy)
        let pooled = try Family.allCases.map { family in
          try mesh.client.connect(to: family.server, port: echo.port)
        }
        try echo.waitForAccepted(pooled.count)
        pooled[0].setTimeout(seconds: 1.2)
        #expect(throws: Errno.tryAgain) { try pooled[0].receive() }
        for stream in pooled { #expect(try stream.exchange("good morning")) }
        #expect(try proxy.status().connections.refused.isEmpty)
        let undecided = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        try echo.waitForAccepted(pooled.count + 1)

        try proxy.reconfigure { $0.inboundMode = "strict" }
        for family in Family.allCases {
          let silent = try mesh.client.connect(to: family.server, port: echo.port)
          #expect(try silent.end() == .reset)
        }
        try eventually("both refusals") {
          proxy.records.count { $0.reason == "sniff_timeout" && $0.end == "refused" } == 2
        }
        #expect(echo.accepted == pooled.count + 1)
        for stream in pooled { #expect(try stream.exchange("still here")) }
        // It was let in to speak mesh mTLS or plaintext; now only one of them is left.
        try? undecided.send("too late")
        #expect(try undecided.end() == .reset)
        try proxy.waitForRefusal("plaintext_in_strict")
        #expect(!echo.received.contains("too late".utf8))
      }
    }
  }
}

/// A mesh client that Culvert did not make, does not announce, and is silent for a while before its
/// ClientHello.
private final class LateClient {
  private let namespace: Namespace
  private let relay: Server
  private let silence = Box(0.0)

  /// Past the proxy of the client's namespace, if there is one.
  init(in namespace: Namespace, to address: String, _ port: UInt16) throws {
    self.namespace = namespace
    let silence = silence
    relay = try namespace.serve(on: "127.0.0.1") { downstream, _ in
      let upstream = try namespace.connect(to: address, port: port, mark: Mark.proxy)
      let hello = try downstream.receive()
      Thread.sleep(forTimeInterval: silence.value)
      try upstream.send(hello)
      try TestSupport.Stream.pump(downstream, upstream)
    }
  }

  /// Whether the server's greeting comes through an mTLS handshake that begins so many seconds late.
  func hears(_ greeting: String, silence: Double) throws -> Bool {
    self.silence.update { $0 = silence }
    let client = try OpenSSL.meshClient(
      in: namespace, to: "127.0.0.1:\(relay.port)", try Identities.client.get(),
      trusting: try Identities.authority.get().bundle)
    defer { client.kill() }
    let isHeard = client.output.waitForText(containing: greeting)
    client.closeInput()
    return try isHeard && client.wait().exit == .code(0)
  }
}
