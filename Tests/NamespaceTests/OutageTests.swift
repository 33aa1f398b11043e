import Foundation
import TestSupport
import Testing

/// How a Workload API stops giving SVIDs.
enum Loss: String, CaseIterable, Sendable {
  case killed, hung
  case empty = "answers without an SVID"
  case garbage = "answers garbage"

  func happen(to agent: GRPCAgent) throws {
    switch self {
    case .killed: agent.kill()
    case .hung: try agent.pauseProcess()
    case .empty: try agent.send([])
    case .garbage: try agent.send([0xff, 0xff, 0xff, 0xff])
    }
  }

  /// Undoes it.
  ///
  /// - Returns: the agent that is there now.
  func end(_ agent: GRPCAgent) throws -> GRPCAgent {
    switch self {
    case .killed: return try agent.successor()
    case .hung:
      agent.resumeProcess()
      return agent
    case .empty, .garbage: return agent
    }
  }
}

/// Which of the two proxies it is about.
enum Role: String, CaseIterable, Sendable {
  case client, server
}

extension Mesh {
  func proxy(_ role: Role) throws -> Proxy {
    try #require(role == .client ? clientProxy : serverProxy)
  }
}

extension Mesh.Plan {
  /// Has one of the proxies take its identity from a Workload API.
  mutating func ask(
    _ identity: String, _ role: Role, change: (inout ProxyConfiguration) -> Void = { _ in }
  ) {
    func ask(_ configuration: inout ProxyConfiguration?) {
      configuration?.identity = identity
      configuration?.trustBundles = [:]
      if var changed = configuration {
        change(&changed)
        configuration = changed
      }
    }
    if role == .client { ask(&client) } else { ask(&server) }
  }
}

extension InNamespaces {
  @Suite("Without an identity", .needsGRPC)
  struct Outage {
    /// `workload.identity` of a proxy whose agent is not there yet.
    private static func absent(_ directory: TemporaryDirectory, deadline: Int) -> String {
      "{ workloadAPI: { socket: \"unix://\(directory.path)/agent.sock\" }, "
        + "startupDeadlineMilliseconds: \(deadline) }"
    }

    private static func id(_ role: Role) -> String {
      role == .client ? Identities.clientID : Identities.serverID
    }

    private static func hello(_ mesh: Mesh, _ port: UInt16) throws -> Attempt {
      try attempt("hello", from: mesh.client, to: Family.v4.server, port: port)
    }

    @Test("A connection is held until the agent comes", arguments: Role.allCases)
    func held(_ role: Role) throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      let plan = try quick.plan {
        $0.server?.inboundMode = "strict"
        $0.ask(Self.absent(directory, deadline: 60_000), role)
      }
      try Mesh.run(plan) { mesh in
        let proxy = try mesh.proxy(role)
        #expect(try proxy.status().identity.state == "awaited")
        #expect(try proxy.metric("culvert_identity_state{state=\"awaited\"}") == 1)
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        try stream.send("held")
        try eventually("one undecided connection") {
          try proxy.status().connections.open["undecided"] == 1
        }
        #expect(echo.accepted == 0)
        let agent = try GRPCAgent(at: directory)
        try agent.give(try quick.authority.issueOne(Self.id(role)), of: quick.authority)
        #expect(try stream.receiveText(exactly: 4) == "held")
        #expect(try stream.exchange("served"))
        #expect(try proxy.status().identity.state == "ready")
        #expect(try proxy.metric("culvert_identity_state{state=\"ready\"}") == 1)
        #expect(try proxy.refusedCount() == 0)
      }
    }

    @Test(
      "Beyond the deadline what was held is refused by name, until the agent comes",
      arguments: Role.allCases)
    func late(_ role: Role) throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      let plan = try quick.plan {
        $0.server?.inboundMode = "strict"
        $0.ask(Self.absent(directory, deadline: 3000), role)
      }
      try Mesh.run(plan) { mesh in
        let proxy = try mesh.proxy(role)
        let echo = try mesh.server.echoServer()
        #expect(try Self.hello(mesh, echo.port) == .refused)
        try proxy.waitForRefusal("identity_unavailable")
        try proxy.program.waitForError(containing: "no identity within 3000 ms")
        #expect(try proxy.status().identity.state == "unavailable")
        #expect(try proxy.metric("culvert_identity_state{state=\"unavailable\"}") == 1)
        #expect(try Self.hello(mesh, echo.port) == .refused)
        #expect(try proxy.metric("culvert_refused_total{reason=\"identity_unavailable\"}") == 2)
        #expect(echo.accepted == 0)
        let agent = try GRPCAgent(at: directory)
        try agent.give(try quick.authority.issueOne(Self.id(role)), of: quick.authority)
        try proxy.waitForSVID(1)
        #expect(try Self.hello(mesh, echo.port) == .answered)
      }
    }

    @Test("What needs no identity is served meanwhile")
    func plaintextMeanwhile() throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      let plan = try quick.plan {
        $0.ask(Self.absent(directory, deadline: 60_000), .server)
        $0.client = nil
      }
      try Mesh.run(plan) { mesh in
        let proxy = try mesh.proxy(.server)
        let echo = try mesh.server.echoServer()
        #expect(try Self.hello(mesh, echo.port) == .answered)
        let record = try proxy.waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "plaintext")
        #expect(try proxy.status().identity.state == "awaited")
        try proxy.reconfigure { $0.inboundMode = "strict" }
        #expect(try Self.hello(mesh, echo.port) == .refused)
        try proxy.waitForRefusal("plaintext_in_strict")
      }
    }

    @Test("Nothing leaves in plaintext in strict, and the same capture finds it in auto")
    func nothingPlain() throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      for (mode, count) in [("auto", 1), ("strict", 0)] {
        let plan = try quick.plan {
          $0.ask(Self.absent(directory, deadline: 1500), .client) {
            $0.peers = []
            $0.outboundMode = mode
          }
          $0.server = nil
        }
        try Mesh.run(plan) { mesh in
          let echo = try mesh.server.serve { stream, report in report(try stream.receive()) }
          let recording = try mesh.captured {
            let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
            try stream.send("a canary in a coal mine")
            _ = try stream.end()
          }
          #expect((recording.count(of: "a canary in") > 0) == (count > 0), "\(mode)")
        }
      }
    }

    @Test(
      "A source that is lost is served without until the SVID ends, and no longer",
      arguments: [
        (Loss.killed, Role.server), (.hung, .server), (.empty, .server), (.garbage, .server),
        (.killed, .client),
      ])
    func lost(_ loss: Loss, _ role: Role) throws {
      let quick = try QuickMesh()
      let lifetime = 8
      let agent = try GRPCAgent()
      try agent.give(try quick.authority.issueOne(Self.id(role)), of: quick.authority)
      try Mesh.run(quick.plan { $0.ask(agent.identity(), role) }) { mesh in
        let proxy = try mesh.proxy(role)
        let echo = try mesh.server.echoServer()
        let live = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try live.exchange("before"))
        let short = try quick.authority.issueOne(Self.id(role), from: -1, to: lifetime)
        try agent.give(short, of: quick.authority)
        try proxy.waitForSVID(2)

        try loss.happen(to: agent)
        #expect(try Self.hello(mesh, echo.port) == .answered)
        #expect(try proxy.status().identity.state == "ready")
        let left = try #require(try proxy.metric("culvert_identity_expiry_seconds"))
        #expect(left > 0 && left <= Double(lifetime))
        #expect(
          try proxy.metric(
            "culvert_bundle_age_seconds{source=\"workload_api\",trust_domain=\"demo.mesh\"}") != nil
        )
        try proxy.program.waitForError(containing: "half of its life is over")
        #expect(try Self.hello(mesh, echo.port) == .answered)
        if loss != .hung {
          // Whether an agent hangs shows in a ping that is not due yet.
          let error = try #require(try proxy.status().identity.lastError)
          #expect(error.contains("FetchX509SVID"))
          #expect(try proxy.metric("culvert_identity_error") == 1)
        }

        try proxy.program.waitForError(containing: "has expired at")
        #expect(try Self.hello(mesh, echo.port) == .refused)
        try proxy.waitForRefusal("identity_expired")
        #expect(try proxy.status().identity.state == "expired")
        #expect(try proxy.metric("culvert_identity_state{state=\"expired\"}") == 1)
        #expect(try #require(try proxy.metric("culvert_identity_expiry_seconds")) < 0)
        #expect(try live.exchange("a connection that lives goes on"))

        let there = try loss.end(agent)
        try there.give(try quick.authority.issueOne(Self.id(role)), of: quick.authority)
        try proxy.waitForSVID(3, seconds: 40)
        #expect(try Self.hello(mesh, echo.port) == .answered)
        #expect(try proxy.status().identity.state == "ready")
        #expect(try proxy.status().identity.lastError == nil)
        #expect(try live.exchange("and on"))
      }
    }

    @Test(
      "PermissionDenied ends new handshakes at once, and no live connection",
      arguments: Role.allCases)
    func denied(_ role: Role) throws {
      let quick = try QuickMesh()
      let agent = try GRPCAgent()
      let svid = try quick.authority.issueOne(Self.id(role))
      try agent.give(svid, of: quick.authority)
      try Mesh.run(quick.plan { $0.ask(agent.identity(), role) }) { mesh in
        let proxy = try mesh.proxy(role)
        let echo = try mesh.server.echoServer()
        let live = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try live.exchange("before"))
        try agent.tell("fail PERMISSION_DENIED no identity issued")
        try proxy.program.waitForError(containing: "identity withdrawn")
        // The log tells of it a moment before the workers know.
        try eventually("the state") { try proxy.status().identity.state == "unavailable" }
        try eventually("a refusal", seconds: 1) { try Self.hello(mesh, echo.port) == .refused }
        try proxy.waitForRefusal("identity_unavailable")
        #expect(try Self.hello(mesh, echo.port) == .refused)
        #expect(try live.exchange("after"))
        #expect(try proxy.status().identity.lastError?.contains("no identity issued") == true)
        // The same SVID again is an identity again.
        try agent.give(svid, of: quick.authority)
        try eventually("ready again", seconds: 40) { try proxy.status().identity.state == "ready" }
        #expect(try Self.hello(mesh, echo.port) == .answered)
        #expect(try live.exchange("and on"))
      }
    }

    @Test("A revocation list ends live connections also while there is no identity")
    func revokedWhileWithdrawn() throws {
      let quick = try QuickMesh()
      let agent = try GRPCAgent()
      try agent.give(try quick.authority.issueOne(Identities.serverID), of: quick.authority)
      let peer = try quick.authority.issueOne(Identities.clientID)
      let list = try quick.authority.revoke([], name: "list")
      let plan = try quick.plan(client: peer.credential) { plan in
        plan.ask(agent.identity(), .server) {
          $0.moreTrustBundles = [
            "{ trustDomain: demo.mesh, pem: \"\(quick.authority.bundle)\", crl: \"\(list)\" }"
          ]
        }
      }
      try Mesh.run(plan) { mesh in
        let proxy = try mesh.proxy(.server)
        let listener = try mesh.server.listen()
        let live = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try live.send("before")
        let application = try listener.accept()
        #expect(try application.receiveText(exactly: 6) == "before")
        try agent.tell("fail PERMISSION_DENIED no identity issued")
        try proxy.program.waitForError(containing: "identity withdrawn")
        try live.send("after")
        #expect(try application.receiveText(exactly: 5) == "after")
        _ = try quick.authority.revoke([peer], name: "list")
        #expect(try application.end() == .reset)
        #expect(try live.end() == .reset)
        let record = try proxy.waitForRecord { $0.end == "revoked" }
        #expect(record.reason == "certificate_revoked", "\(record)")
      }
    }

    @Test("An agent that restarts is not noticed by anybody")
    func restarted() throws {
      let quick = try QuickMesh()
      let agent = try GRPCAgent()
      try agent.give(try quick.authority.issueOne(Identities.serverID), of: quick.authority)
      try Mesh.run(quick.plan { $0.ask(agent.identity(), .server) }) { mesh in
        let proxy = try mesh.proxy(.server)
        let echo = try mesh.server.echoServer()
        let live = try LiveConnections(8, from: mesh.client, port: echo.port)
        agent.kill()
        let successor = try agent.successor()
        try live.waitForRound()
        try successor.give(
          try quick.authority.issueOne(Identities.serverID), of: quick.authority)
        try proxy.waitForSVID(2)
        try live.waitForRound()
        #expect(live.finish() == [])
        #expect(try proxy.refusedCount() == 0)
        #expect(try proxy.status().identity.trustEpoch == 1)
      }
    }

    @Test("SPIFFE_ENDPOINT_SOCKET names the agent where the configuration does not")
    func environment() throws {
      let quick = try QuickMesh()
      let agent = try GRPCAgent()
      try agent.give(try quick.authority.issueOne(Identities.serverID), of: quick.authority)
      let plan = try quick.plan {
        $0.ask("{ workloadAPI: {} }", .server) {
          $0.environment = ["SPIFFE_ENDPOINT_SOCKET": agent.endpoint]
        }
      }
      try Mesh.run(plan) { mesh in
        let echo = try mesh.server.echoServer()
        #expect(try Self.hello(mesh, echo.port) == .answered)
        let record = try mesh.proxy(.client).waitForRecord { $0.direction == "outbound" }
        #expect(record["dst.identity"] == Identities.serverID)
      }
      let directory = try TemporaryDirectory()
      let namespace = try Namespace("alone")
      defer { namespace.close() }
      let path = try directory.write(
        try #require(plan.server).yaml(adminSocket: directory.path + "/admin.sock"),
        to: "culvert.yaml")
      let outcome = try namespace.run(
        [Machine.program("culvert-proxy"), "--config", path], seconds: 10)
      #expect(!outcome.succeeded)
      #expect(outcome.errors.contains("SPIFFE_ENDPOINT_SOCKET"))
    }
  }
}
