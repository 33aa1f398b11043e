import Foundation
import Net
import TestSupport
import Testing

/// What `culvert migrate` says.
private struct Migrate {
  struct Report: Decodable {
    let inboundMode: String
    let outboundMode: String
    let entries: [Entry]
    let withoutEntry: Int
    let applicationTLS: [ServerName]
  }

  struct Entry: Decodable {
    let direction: String
    let reason: String
    let address: String
    let port: UInt16
    let connections: Int
    let open: Int
    let lastSeen: String
    let secondsAgo: Int
    let breaks: Bool

    /// All but the times.
    var summary: String {
      "\(direction) \(port) \(address) \(reason) \(connections) \(open)" + (breaks ? " breaks" : "")
    }
  }

  struct ServerName: Decodable, Hashable {
    let sni: String?
    let alpn: String?
    let connections: Int
  }

  let exit: Program.Exit
  let output: String
  let errors: String

  init(_ proxy: Proxy, _ options: String...) throws {
    try self.init(socket: proxy.adminSocket, options)
  }

  init(socket: String, _ options: [String] = []) throws {
    let outcome = try Program.run(
      [Machine.program("culvert"), "migrate", "--admin-socket", socket] + options)
    (exit, output, errors) = (outcome.exit, outcome.output, outcome.errors)
  }

  var report: Report {
    get throws { try JSONDecoder().decode(Report.self, from: Data(output.utf8)) }
  }

  /// The rows of the tables, one space between their columns.
  var rows: Set<String> {
    Set(
      output.split(separator: "\n").filter { $0.hasPrefix("  ") }
        .map { $0.split(separator: " ").joined(separator: " ") })
  }
}

extension InNamespaces {
  @Suite("The migration report")
  struct MigrationReports {
    private static let webPort: UInt16 = 7444
    /// Of a client whose plaintext is declared.
    private static let probedPort: UInt16 = 7445
    /// Of a server for which a rule asks plaintext.
    private static let ruledPort: UInt16 = 7446

    @Test("It lists exactly who came and went without mesh mTLS, and says whom strict would refuse")
    func report() throws {
      try Crossroads.run { roads in
        let (client, server) = (
          try #require(roads.meshClient.proxy), try #require(roads.meshServer.proxy)
        )
        for proxy in [client, server] {
          let clean = try Migrate(proxy)
          #expect(clean.exit == .code(0))
          #expect(clean.output.contains("nothing seen would break under strict"))
        }
        let ports = try Self.serve(in: roads, client, server)
        let open = try Self.work(in: roads, ports)
        try Self.checkServer(roads, server, ports)
        try Self.checkClient(roads, client, ports)
        try Self.checkMetrics(client, server)
        #expect(try Migrate(server, "--since", "0").exit == .code(2))

        open.close()
        try eventually("a second without anybody") {
          try Migrate(server, "--since", "0").exit == .code(0)
        }
        #expect(try Migrate(server, "--since", "86400").exit == .code(2))
        let line = "inbound \(ports.lines) \(roads.plainClient.address(.v4)) client_plaintext 3 0"
        let after = try Migrate(server, "--json").report
        #expect(after.entries.map(\.summary).contains(line + " breaks"))
        // What strict refuses is none that it would have to let in.
        try server.reconfigure { $0.inboundMode = "strict" }
        let refused = try attempt(
          "hello", from: roads.plainClient.namespace, to: roads.meshServer.address(.v4),
          port: ports.lines)
        #expect(refused == .refused)
        let strict = try Migrate(server, "--json").report
        #expect(strict.inboundMode == "strict")
        #expect(strict.entries.map(\.summary) == after.entries.map(\.summary))
      }
    }

    private struct Ports {
      let lines: UInt16
      let greeting: UInt16
    }

    private static func serve(
      in roads: Crossroads, _ client: Proxy, _ server: Proxy
    ) throws -> Ports {
      let namespace = roads.meshServer.namespace
      let lines = try namespace.echoServer().port
      _ = try namespace.echoServer(port: probedPort)
      _ = try OpenSSL.applicationServer(in: namespace, port: webPort, try Identities.web.get())
      for port in [lines, ruledPort] {
        _ = try roads.plainServer.namespace.echoServer(port: port)
      }
      let source = Family.v6.range(roads.plainClient.address(.v6))
      try server.reconfigure {
        $0.inbound["probes"] = "[ { sources: [\"\(source)\"], ports: [\(probedPort)] } ]"
      }
      try client.reconfigure {
        $0.outboundRules = [
          "{ to: [0.0.0.0/0, \"::/0\"], ports: [\(ruledPort)], action: plaintext }"
        ]
      }
      return Ports(lines: lines, greeting: try namespace.greetingServer("220 ready\n").port)
    }

    /// - Returns: the one connection that is still open.
    private static func work(in roads: Crossroads, _ ports: Ports) throws -> TestSupport.Stream {
      let plain = roads.plainClient.namespace
      let server = roads.meshServer
      for _ in 0..<2 { try useOnce(plain, server.address(.v4), ports.lines) }
      try useOnce(plain, server.address(.v6), ports.lines)
      try useOnce(plain, server.address(.v6), probedPort)
      for _ in 0..<2 { try hearOnce(plain, server.address(.v4), ports.greeting) }
      for alpn in ["http/1.1", "http/1.1", nil] {
        let program = try OpenSSL.applicationClient(
          in: plain, to: Family.v4.endpoint(server.address(.v4), webPort),
          trusting: try Identities.authority.get().bundle, alpn: alpn)
        #expect(program.exchangesReversed("GET /"))
        program.closeInput()
        #expect(try program.wait().exit == .code(0))
      }
      let mesh = roads.meshClient.namespace
      for _ in 0..<2 { try useOnce(mesh, server.address(.v4), ports.lines) }
      for _ in 0..<3 { try useOnce(mesh, roads.plainServer.address(.v6), ports.lines) }
      try useOnce(mesh, roads.plainServer.address(.v4), ruledPort)
      for host in [roads.meshClient, server] {
        try eventually("only one open connection at most") {
          try #require(host.proxy).status().connections.openCount == 0
        }
      }
      let open = try plain.connect(to: server.address(.v4), port: ports.lines)
      #expect(try open.exchange("stays"))
      return open
    }

    private static func useOnce(_ namespace: Namespace, _ address: String, _ port: UInt16) throws {
      let stream = try namespace.connect(to: address, port: port)
      #expect(try stream.exchange("hello"))
      stream.finish()
      #expect(try stream.end() == .clean)
    }

    private static func hearOnce(_ namespace: Namespace, _ address: String, _ port: UInt16) throws {
      let stream = try namespace.connect(to: address, port: port)
      #expect(try stream.receiveText(exactly: 10) == "220 ready\n")
      stream.finish()
      #expect(try stream.end() == .clean)
    }

    private static func checkServer(_ roads: Crossroads, _ proxy: Proxy, _ ports: Ports) throws {
      let (v4, v6) = (roads.plainClient.address(.v4), roads.plainClient.address(.v6))
      let json = try Migrate(proxy, "--json")
      #expect(json.exit == .code(2))
      let report = try json.report
      #expect(
        Set(report.entries.map(\.summary)) == [
          "inbound \(ports.lines) \(v4) client_plaintext 3 1 breaks",
          "inbound \(ports.lines) \(v6) client_plaintext 1 0 breaks",
          "inbound \(ports.greeting) \(v4) server_first 2 0 breaks",
          "inbound \(webPort) \(v4) client_tls 3 0 breaks",
          "inbound \(probedPort) \(v6) declared_probe 1 0",
        ])
      #expect(report.withoutEntry == 0)
      #expect(
        Set(report.applicationTLS) == [
          Migrate.ServerName(sni: "app.example", alpn: "http/1.1", connections: 2),
          Migrate.ServerName(sni: "app.example", alpn: nil, connections: 1),
        ])
      let entry = try #require(report.entries.first { $0.open == 1 })
      #expect(entry.secondsAgo == 0)
      let seen = try Date.ISO8601FormatStyle(includingFractionalSeconds: true).parse(entry.lastSeen)
      #expect(abs(seen.timeIntervalSinceNow) < 60)

      let text = try Migrate(proxy)
      #expect(text.exit == .code(2))
      #expect(text.rows.contains("\(ports.lines) \(v4) client_plaintext 3 1 now refused"))
      #expect(text.rows.contains { $0.hasPrefix("\(ports.greeting) \(v4) server_first 2 0 ") })
      #expect(text.rows.contains { $0.hasPrefix("\(webPort) \(v4) client_tls 3 0 ") })
      #expect(text.output.contains("strict would refuse 2 peers on 3 ports"))
      #expect(!text.output.contains("declared_probe"))
      let all = try Migrate(proxy, "--all")
      #expect(all.exit == .code(2))
      #expect(
        all.rows.contains {
          $0.hasPrefix("\(probedPort) \(v6) declared_probe 1 0 ") && $0.hasSuffix(" goes on")
        })
    }

    private static func checkClient(_ roads: Crossroads, _ proxy: Proxy, _ ports: Ports) throws {
      let server = roads.plainServer
      let json = try Migrate(proxy, "--json")
      #expect(json.exit == .code(2))
      #expect(
        Set(try json.report.entries.map(\.summary)) == [
          "outbound \(ports.lines) \(server.address(.v6)) no_mesh_port 3 0 breaks",
          "outbound \(ruledPort) \(server.address(.v4)) rule_plaintext 1 0",
        ])
      let text = try Migrate(proxy)
      #expect(
        text.rows.contains { $0.hasPrefix("\(ports.lines) \(server.address(.v6)) no_mesh_port 3") })
      #expect(!text.output.contains("rule_plaintext"))
      #expect(try Migrate(proxy, "--all").output.contains("rule_plaintext"))
    }

    private static func checkMetrics(_ client: Proxy, _ server: Proxy) throws {
      let inbound = [
        ("client_plaintext", "plaintext", 4.0), ("server_first", "plaintext", 2),
        ("declared_probe", "plaintext", 1), ("client_tls", "application_tls", 3),
        ("", "mutual_tls", 2),
      ]
      for (reason, security, count) in inbound {
        let found = try server.metric(
          "culvert_connections_total{direction=\"inbound\",reason=\"\(reason)\","
            + "security=\"\(security)\"}")
        #expect(found == count, "\(reason)")
      }
      #expect(
        try server.metric("culvert_undecided_seconds_count{direction=\"inbound\"}")
          == inbound.reduce(0) { $0 + $1.2 })
      for (alpn, count) in [("http/1.1", 2.0), ("", 1)] {
        let found = try server.metric(
          "culvert_application_tls_total{alpn=\"\(alpn)\",other=\"0\",sni=\"app.example\"}")
        #expect(found == count, "ALPN \(alpn)")
      }
      for (reason, security, count) in [
        ("no_mesh_port", "plaintext", 3.0), ("rule_plaintext", "plaintext", 1),
        ("", "mutual_tls", 2),
      ] {
        let found = try client.metric(
          "culvert_connections_total{direction=\"outbound\",reason=\"\(reason)\","
            + "security=\"\(security)\"}")
        #expect(found == count, "\(reason)")
      }
    }

    @Test("Without a proxy, or asked wrongly, it says so and nothing else")
    func exitCodes() throws {
      let directory = try TemporaryDirectory()
      let alone = try Migrate(socket: directory.path + "/admin.sock")
      #expect(alone.exit == .code(1))
      #expect(alone.output.isEmpty)
      #expect(alone.errors.split(separator: "\n").count == 1)
      for options in [["--since=-1"], ["--since", "soon"], ["--enforce", "--json"], ["--stop"]] {
        let wrong = try Migrate(socket: directory.path + "/admin.sock", options)
        #expect(wrong.exit == .code(64), "\(options)")
        #expect(wrong.output.isEmpty)
      }
    }
  }
}
