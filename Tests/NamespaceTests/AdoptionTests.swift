import TestSupport
import Testing

extension InNamespaces {
  /// The matrix of “Mutual TLS adoption made simple, safe and secure” (KubeCon 2020): clients and
  /// servers with and without a proxy, all at once.
  @Suite("Adoption")
  struct Adoption {
    private static let webPort: UInt16 = 7444
    private static let greeting = "220 ready\n"

    @Test("All four pairs are served while a server becomes strict, less the one that must not")
    func matrix() throws {
      try Crossroads.run { roads in
        let lines = try Self.serveLines(in: roads)
        let greeter = try Self.serveOthers(in: roads)
        var traffic: [Pair] = []
        for family in Family.allCases {
          for client in roads.clients {
            for server in roads.servers {
              traffic.append(
                Pair(
                  traffic: try Traffic(from: client, to: server, family, port: lines),
                  isPlainToMesh: client === roads.plainClient && server === roads.meshServer))
            }
          }
        }
        for pair in traffic { try pair.traffic.waitForRequests() }
        try Self.checkPermissive(roads, greeter)
        try Self.becomeStrict(roads, traffic)
        try Self.checkStrict(roads, greeter)
        try Self.enforce(roads, traffic)
        let failures = traffic.flatMap { pair in pair.traffic.finish() }
        #expect(failures == [])
        try Self.checkRecords(roads)
      }
    }

    private struct Pair {
      let traffic: Traffic
      let isPlainToMesh: Bool
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
      _ = try OpenSSL.applicationServer(in: namespace, port: webPort, try Identities.web.get())
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

    private static func becomeStrict(_ roads: Crossroads, _ traffic: [Pair]) throws {
      for pair in traffic where pair.isPlainToMesh { pair.traffic.expect(new: .either) }
      try #require(roads.meshServer.proxy).reconfigure { $0.inboundMode = "strict" }
      for pair in traffic where pair.isPlainToMesh {
        // The log tells of it a moment before all workers know.
        try pair.traffic.waitForRefusals(20)
        pair.traffic.expect(new: .refused)
      }
      for pair in traffic {
        try pair.traffic.waitForRequests()
        #expect(pair.traffic.isLive)
      }
      let record = try #require(roads.meshServer.proxy).waitForRefusal("plaintext_in_strict")
      let source = try #require(record["src.addr"])
      #expect(Family.allCases.contains { source.contains(roads.plainClient.address($0)) })
    }

    private static func checkStrict(_ roads: Crossroads, _ greeter: UInt16) throws {
      let proxy = try #require(roads.meshServer.proxy)
      #expect(try usesWeb(roads.meshClient, roads.meshServer, isServed: true))
      #expect(try isGreeted(roads.meshClient, roads.meshServer, greeter))
      #expect(try usesWeb(roads.plainClient, roads.meshServer, isServed: false) == false)
      let record = try proxy.waitForRefusal("application_tls_in_strict")
      #expect(record["sni"] == "app.example")
    }

    private static func enforce(_ roads: Crossroads, _ traffic: [Pair]) throws {
      let proxy = try #require(roads.meshServer.proxy)
      #expect(!proxy.records.contains { $0.end == "enforced" })
      for pair in traffic where pair.isPlainToMesh { pair.traffic.expect(live: .either) }
      try Program.check([
        Machine.program("culvert"), "migrate", "--enforce", "--admin-socket", proxy.adminSocket,
      ])
      for pair in traffic where pair.isPlainToMesh { try pair.traffic.waitForEndOfLive() }
      for pair in traffic {
        try pair.traffic.waitForRequests()
        #expect(pair.traffic.isLive == !pair.isPlainToMesh)
      }
      let enforced = proxy.records.filter { $0.end == "enforced" }
      #expect(enforced.count == Family.allCases.count)
      for record in enforced {
        #expect(record.security == "plaintext")
        #expect(record.reason == "plaintext_in_strict")
      }
    }

    /// Nobody was spoken to in another way than the pair allows.
    private static func checkRecords(_ roads: Crossroads) throws {
      let addresses = Family.allCases.map { roads.meshClient.address($0) }
      let inbound = try #require(roads.meshServer.proxy).records
      for record in inbound {
        let source = record["src.addr"] ?? ""
        let isMesh = addresses.contains { source.contains($0 + ":") || source.contains("[\($0)]") }
        #expect((record["src.identity"] == Identities.clientID) == isMesh, "\(record)")
        #expect((record.security == "mutual_tls") == isMesh, "\(record)")
      }
      let outbound = try #require(roads.meshClient.proxy).records
      #expect(Set(outbound.map(\.security)) == ["mutual_tls", "plaintext"])
      for record in outbound {
        let isMesh = Family.allCases.contains {
          record["dst.addr"]?.contains(roads.meshServer.address($0)) == true
        }
        #expect((record["dst.identity"] == Identities.serverID) == isMesh, "\(record)")
        #expect((record.security == "mutual_tls") == isMesh, "\(record)")
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
