import TestSupport
import Testing

extension InNamespaces {
  /// The matrix of “Mutual TLS adoption made simple, safe and secure” (KubeCon 2020): clients and
  /// servers with and without a proxy, all at once.
  @Suite("Adoption")
  struct Adoption {
    private static let webPort: UInt16 = 7444
    /// `openssl s_server` serves one at a time; the one here is for a connection that lives.
    private static let otherWebPort: UInt16 = 7445
    private static let greeting = "220 ready\n"

    @Test("All four pairs are served while each side becomes strict, less those that must not")
    func matrix() throws {
      try Crossroads.run { roads in
        let lines = try Self.serveLines(in: roads)
        let greeter = try Self.serveOthers(in: roads)
        let traffic = try Self.start(in: roads, lines)
        for pair in traffic { try pair.traffic.waitForRequests() }
        try Self.checkPermissive(roads, greeter)
        let others = try Self.open(in: roads, greeter)

        let server = try #require(roads.meshServer.proxy)
        try Self.becomeStrict(server, traffic.filter(\.isPlainToMesh), among: traffic) {
          $0.inboundMode = "strict"
        }
        let refused = try server.waitForRefusal("plaintext_in_strict")
        let source = try #require(refused["src.addr"])
        #expect(Family.allCases.contains { source.contains(roads.plainClient.address($0)) })
        try Self.checkStrict(roads, greeter)
        #expect(try others.greeted.exchange("still here"))
        #expect(others.web.exchangesReversed("GET /still-here"))
        try Self.enforce(server, traffic.filter(\.isPlainToMesh), among: traffic)
        try Self.checkEnforced(server, others)

        let client = try #require(roads.meshClient.proxy)
        try Self.becomeStrict(client, traffic.filter(\.isMeshToPlain), among: traffic) {
          $0.outboundMode = "strict"
        }
        try Self.enforce(client, traffic.filter(\.isMeshToPlain), among: traffic)
        let failures = traffic.flatMap { pair in pair.traffic.finish() }
        #expect(failures == [])
        try Self.checkRecords(roads)
      }
    }

    private struct Pair {
      let traffic: Traffic
      let isPlainToMesh: Bool
      let isMeshToPlain: Bool
    }

    private static func start(in roads: Crossroads, _ port: UInt16) throws -> [Pair] {
      try Family.allCases.flatMap { family in
        try roads.clients.flatMap { client in
          try roads.servers.map { server in
            Pair(
              traffic: try Traffic(from: client, to: server, family, port: port),
              isPlainToMesh: client === roads.plainClient && server === roads.meshServer,
              isMeshToPlain: client === roads.meshClient && server === roads.plainServer)
          }
        }
      }
    }

    /// What lives beside the lines, from the client without a proxy to the server with one.
    private struct Others {
      let greeted: Stream
      let web: Program
    }

    private static func open(in roads: Crossroads, _ greeter: UInt16) throws -> Others {
      let (client, address) = (roads.plainClient.namespace, roads.meshServer.address(.v4))
      let greeted = try client.connect(to: address, port: greeter)
      #expect(try greeted.receiveText(exactly: greeting.utf8.count) == greeting)
      let web = try OpenSSL.applicationClient(
        in: client, to: Family.v4.endpoint(address, otherWebPort),
        trusting: try Identities.authority.get().bundle, alpn: "http/1.1")
      #expect(web.exchangesReversed("GET /"))
      return Others(greeted: greeted, web: web)
    }

    /// Both servers send lines back on one port.
    private static func serveLines(in roads: Crossroads) throws -> UInt16 {
      let port = try roads.meshServer.namespace.echoServer().port
      _ = try roads.plainServer.namespace.echoServer(port: port)
      return port
    }

    /// Behind the proxy there are an application with TLS of its own and one that speaks first, too.
    ///
    /// - Returns: the port of the latter.
    private static func serveOthers(in roads: Crossroads) throws -> UInt16 {
      let namespace = roads.meshServer.namespace
      for port in [webPort, otherWebPort] {
        _ = try OpenSSL.applicationServer(in: namespace, port: port, try Identities.web.get())
      }
      return try namespace.greetingServer(greeting).port
    }

    private static func checkPermissive(_ roads: Crossroads, _ greeter: UInt16) throws {
      let proxy = try #require(roads.meshServer.proxy)
      for client in roads.clients {
        #expect(try usesWeb(client, roads.meshServer, isServed: true), "\(client.name)")
        #expect(try isGreeted(client, roads.meshServer, greeter), "\(client.name)")
      }
      let record = try proxy.waitForRecord { $0.security == "application_tls" }
      #expect(record.reason == "client_tls")
      #expect(record["sni"] == "app.example")
      #expect(record["alpn"] == "http/1.1")
      #expect(record["src.addr"]?.hasPrefix(roads.plainClient.address(.v4)) == true)
      try proxy.waitForRecord { $0.reason == "server_first" }
    }

    /// Has a proxy refuse what some of the pairs do; the others, and all that lives, must not notice.
    private static func becomeStrict(
      _ proxy: Proxy, _ losers: [Pair], among pairs: [Pair],
      change: (inout ProxyConfiguration) -> Void
    ) throws {
      for pair in losers { pair.traffic.expect(new: .either) }
      try proxy.reconfigure(change)
      for pair in losers {
        // The log tells of it a moment before all workers know.
        try pair.traffic.waitForRefusals(20)
        pair.traffic.expect(new: .refused)
      }
      let living = pairs.filter(\.traffic.isLive).count
      for pair in pairs { try pair.traffic.waitForRequests() }
      #expect(pairs.filter(\.traffic.isLive).count == living)
    }

    private static func checkStrict(_ roads: Crossroads, _ greeter: UInt16) throws {
      let proxy = try #require(roads.meshServer.proxy)
      #expect(try usesWeb(roads.meshClient, roads.meshServer, isServed: true))
      #expect(try isGreeted(roads.meshClient, roads.meshServer, greeter))
      #expect(try usesWeb(roads.plainClient, roads.meshServer, isServed: false) == false)
      let record = try proxy.waitForRefusal("application_tls_in_strict")
      #expect(record["sni"] == "app.example")
    }

    /// Ends what some of the pairs have open, and nothing else.
    private static func enforce(_ proxy: Proxy, _ losers: [Pair], among pairs: [Pair]) throws {
      #expect(!proxy.records.contains { $0.end == "enforced" })
      let living = pairs.filter(\.traffic.isLive).count
      for pair in losers {
        #expect(pair.traffic.isLive)
        pair.traffic.expect(live: .either)
      }
      try Program.check([
        Machine.program("culvert"), "migrate", "--enforce", "--admin-socket", proxy.adminSocket,
      ])
      for pair in losers { try pair.traffic.waitForEndOfLive() }
      for pair in pairs { try pair.traffic.waitForRequests() }
      #expect(pairs.filter(\.traffic.isLive).count == living - losers.count)
      try eventually("the ends in the log") {
        proxy.records.count { $0.end == "enforced" && $0.reason == "plaintext_in_strict" }
          >= losers.count
      }
      #expect(!proxy.records.contains { $0.end == "enforced" && $0.security == "mutual_tls" })
    }

    private static func checkEnforced(_ proxy: Proxy, _ others: Others) throws {
      #expect(try others.greeted.end() == .reset)
      #expect(try others.web.wait().exit != .code(0))
      let web = try proxy.waitForRecord {
        $0.end == "enforced" && $0.security == "application_tls"
      }
      #expect(web.reason == "application_tls_in_strict")
      // The lines of both families, and the greeting.
      #expect(
        proxy.records.count { $0.end == "enforced" && $0.security == "plaintext" }
          == Family.allCases.count + 1)
    }

    /// Nobody was spoken to in another way than the pair allows.
    private static func checkRecords(_ roads: Crossroads) throws {
      let inbound = try #require(roads.meshServer.proxy).records
      for record in inbound where record.end != "refused" {
        let isMesh = concerns(record["src.addr"], roads.meshClient)
        #expect((record["src.identity"] == Identities.clientID) == isMesh, "\(record)")
        #expect((record.security == "mutual_tls") == isMesh, "\(record)")
      }
      let outbound = try #require(roads.meshClient.proxy).records.filter { $0.end != "refused" }
      #expect(Set(outbound.map(\.security)) == ["mutual_tls", "plaintext"])
      for record in outbound {
        let isMesh = concerns(record["dst.addr"], roads.meshServer)
        #expect((record["dst.identity"] == Identities.serverID) == isMesh, "\(record)")
        #expect((record.security == "mutual_tls") == isMesh, "\(record)")
      }
      // Whoever speaks mesh mTLS was never refused.
      let refused = (inbound + (try #require(roads.meshClient.proxy).records))
        .filter { $0.end == "refused" && concerns($0["src.addr"], roads.meshClient) }
        .filter { concerns($0["dst.addr"], roads.meshServer) }
      #expect(refused.isEmpty, "\(refused)")
    }

    /// Whether an endpoint is one of a host's: `address:port`, with brackets around IPv6.
    private static func concerns(_ endpoint: String?, _ host: Crossroads.Host) -> Bool {
      Family.allCases.contains { family in
        let prefix = family.endpoint(host.address(family), 0).dropLast()
        return endpoint?.hasPrefix(prefix) == true
      }
    }

    /// HTTPS of the application's own. Its certificate must be the application's, which no proxy
    /// has: the handshake then went through byte for byte.
    private static func usesWeb(
      _ client: Crossroads.Host, _ server: Crossroads.Host, isServed: Bool
    ) throws -> Bool {
      let program = try OpenSSL.applicationClient(
        in: client.namespace, to: Family.v4.endpoint(server.address(.v4), webPort),
        trusting: try Identities.authority.get().bundle, alpn: "http/1.1")
      defer { program.closeInput() }
      return program.exchangesReversed("GET /", seconds: isServed ? patience : 2)
    }

    private static func isGreeted(
      _ client: Crossroads.Host, _ server: Crossroads.Host, _ port: UInt16
    ) throws -> Bool {
      let stream = try client.namespace.connect(to: server.address(.v4), port: port)
      let greeted = try stream.receiveText(exactly: greeting.utf8.count)
      return try greeted == greeting && stream.exchange("HELO\n")
    }
  }
}
