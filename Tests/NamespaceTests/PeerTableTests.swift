import Glibc
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Peers, and what is not among them")
  struct PeerTables {
    /// Sends a line to a port of the server; says how it went and what the client's log says of it.
    private static func send(
      _ line: String, _ mesh: Mesh, to address: String, port: UInt16
    ) throws -> (attempt: Attempt, record: ConnectionRecord) {
      let proxy = try #require(mesh.clientProxy)
      let seen = proxy.records.count
      let outcome = try attempt(line, from: mesh.client, to: address, port: port)
      var record: ConnectionRecord?
      try eventually("the line of the connection to \(address) port \(port)") {
        record = proxy.records.dropFirst(seen).first
        return record != nil
      }
      return (outcome, try #require(record))
    }

    @Test("With registryOnly, only what a rule or a peer names is reached")
    func registryOnly() throws {
      let other = "spiffe://demo.mesh/ns/shop/sa/other"
      let plan = try Mesh.Plan.standard {
        $0.client?.peers = []
        $0.client?.outbound = [
          "registryOnly": "true",
          "peers": """
          [{ address: 10.90.0.2, mesh: true }, { address: "fd90::2", identity: "\
          \(Identities.serverID)" }, { address: 10.90.0.30, mesh: false }, { address: "fd90::30", \
          identity: "\(other)" }]
          """,
        ]
        $0.client?.outboundRules = [
          "{ to: [10.90.0.0/24, \"fd90::/64\"], ports: [7001], action: plaintext }"
        ]
      }
      try Mesh.run(plan) { mesh in
        for address in ["10.90.0.30/24", "fd90::30/64"] {
          let command = ["ip", "addr", "add", address, "dev", "eth0"]
          try mesh.server.check(command + (address.contains(":") ? ["nodad"] : []))
        }
        let echo = try mesh.server.echoServer(port: 7000)
        let named = try mesh.server.echoServer(port: 7001)
        let cases: [(String, Attempt, String?, String)] = [
          ("10.90.0.2", .answered, nil, "mutual_tls"), ("fd90::2", .answered, nil, "mutual_tls"),
          ("10.90.0.30", .answered, "peer_not_mesh", "plaintext"),
          ("fd90::30", .refused, "unexpected_identity", "none"),
          ("10.90.0.20", .refused, "not_in_registry", "none"),
          ("fd90::20", .refused, "not_in_registry", "none"),
        ]
        for (address, expected, reason, security) in cases {
          let result = try Self.send("to \(address)", mesh, to: address, port: echo.port)
          #expect(result.attempt == expected, "\(result.record)")
          #expect(result.record.reason == reason && result.record.security == security)
          #expect(echo.received.contains("to \(address)".utf8) == (expected == .answered))
        }
        for address in ["10.90.0.20", "fd90::20"] {
          let result = try Self.send("by a rule", mesh, to: address, port: named.port)
          #expect(result.attempt == .answered && result.record.reason == "rule_plaintext")
        }
        let status = try Program.check([
          Machine.program("culvert"), "status", "--admin-socket",
          try #require(mesh.clientProxy).adminSocket,
        ])
        #expect(status.contains("4 peers"), "\(status)")
      }
    }

    /// 5,000 entries of other places, and one of the server.
    private static func peers(_ server: String) -> String {
      var text = "peers:\n  - { address: 10.90.0.2, \(server) }\n"
      for number in 0..<4999 {
        text +=
          "  - { address: 10.200.\(number / 250).\(number % 250), mesh: \(number % 2 == 0) }\n"
      }
      return text
    }

    @Test("A peers file of 5,000 entries is taken, followed, and kept while it is broken")
    func peersFile() throws {
      let directory = try TemporaryDirectory()
      let path = try directory.write(Self.peers("mesh: true"), to: "peers.yaml")
      let plan = try Mesh.Plan.standard {
        $0.client?.peers = []
        $0.client?.outbound = ["peersFile": "\"\(path)\""]
        $0.client?.discovery = ["announce": "off", "probe": "off"]
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        func send(_ line: String) throws -> (attempt: Attempt, record: ConnectionRecord) {
          try Self.send(line, mesh, to: Family.v4.server, port: echo.port)
        }
        /// Replaces the file in one step, and waits for what the proxy says of it.
        func put(_ text: String, _ answer: String) throws -> String {
          let said = proxy.program.errors.lines.count
          let new = try directory.write(text, to: "peers.new")
          try Program.check(["mv", new, path])
          return try proxy.program.waitForError(containing: answer, after: said)
        }
        #expect(try send("first").record.security == "mutual_tls")
        let old = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try old.exchange("over the mesh"))

        _ = try put(Self.peers("mesh: false"), "configuration loaded")
        let plain = try send("second")
        #expect(plain.attempt == .answered && plain.record.reason == "peer_not_mesh")
        #expect(try old.exchange("still over the mesh"))

        let broken = Self.peers("mesh: true") + "  - { address: 10.201.0.1, mesh: perhaps }\n"
        let complaint = try put(broken, "configuration not loaded")
        #expect(complaint.contains("\(path):5002:"), "\(complaint)")
        #expect(try send("third").record.reason == "peer_not_mesh")

        _ = try put(
          Self.peers("identity: \"spiffe://demo.mesh/ns/shop/sa/other\""), "configuration loaded")
        let wrong = try send("fourth")
        #expect(wrong.attempt == .refused && wrong.record.reason == "unexpected_identity")
        #expect(!echo.received.contains("fourth".utf8))

        _ = try put(Self.peers("identity: \"\(Identities.serverID)\""), "configuration loaded")
        #expect(try send("fifth").record.security == "mutual_tls")
        old.finish()
        #expect(try old.end() == .clean)
      }
    }
  }
}
