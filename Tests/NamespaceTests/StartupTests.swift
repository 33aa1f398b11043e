import Foundation
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Starting")
  struct Starting {
    private static func wait(_ proxy: Proxy, seconds: Int) throws -> Program {
      try Program([
        Machine.program("culvert"), "status", "--wait", "\(seconds)", "--admin-socket",
        proxy.adminSocket,
      ])
    }

    @Test(
      "With holdUntilReady everything waits for a late identity, and then all of it is served",
      .needsGRPC, arguments: Role.allCases)
    func held(role: Role) throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      let plan = try quick.plan { plan in
        if role == .server { plan.client = nil }
        plan.ask(Self.absent(directory), role) {
          $0.workload["holdUntilReady"] = "true"
          // Without an identity this would be relayed at once.
          $0.outboundRules = ["{ to: [0.0.0.0/0], ports: [7090], action: plaintext }"]
        }
      }
      try Mesh.run(plan) { mesh in
        let proxy = try mesh.proxy(role)
        let (echo, ruled) = (try mesh.server.echoServer(), try mesh.server.echoServer(port: 7090))
        #expect(try Self.wait(proxy, seconds: 0).wait().exit == .code(1))
        let waiting = try Self.wait(proxy, seconds: 60)
        let streams = try [echo.port, echo.port, ruled.port].map {
          try mesh.client.connect(to: Family.v4.server, port: $0)
        }
        for stream in streams { try stream.send("held") }
        try eventually("all of them held") {
          try proxy.status().connections.open["undecided"] == streams.count
        }
        #expect(echo.accepted + ruled.accepted == 0)
        #expect(waiting.isRunning)

        let agent = try GRPCAgent(at: directory)
        let id = role == .client ? Identities.clientID : Identities.serverID
        try agent.give(try quick.authority.issueOne(id), of: quick.authority)
        for stream in streams {
          #expect(try stream.receiveText(exactly: 4) == "held")
          #expect(try stream.exchange("served"))
        }
        #expect(try waiting.wait().exit == .code(0))
        #expect(try proxy.refusedCount() == 0)
      }
    }

    @Test("Without it, plaintext that needs no identity is served at once", .needsGRPC)
    func notHeld() throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      let plan = try quick.plan {
        $0.client = nil
        $0.ask(Self.absent(directory), .server)
      }
      try Mesh.run(plan) { mesh in
        let proxy = try mesh.proxy(.server)
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        #expect(try proxy.status().identity.state == "awaited")
        let late = try Self.wait(proxy, seconds: 1).wait()
        #expect(late.exit == .code(1))
        #expect(late.output.isEmpty)
        #expect(late.errors.split(separator: "\n").count == 1)
        #expect(late.errors.contains("not ready after 1 s: its identity is awaited"))
      }
    }

    /// `workload.identity` of a proxy whose agent is not there yet.
    private static func absent(_ directory: TemporaryDirectory) -> String {
      "{ workloadAPI: { socket: \"unix://\(directory.path)/agent.sock\" }, "
        + "startupDeadlineMilliseconds: 60000 }"
    }

    @Test("Waiting for a proxy that is ready takes no time; for none it takes what it is given")
    func waiting() throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let ready = try Self.wait(proxy, seconds: 60).wait()
        #expect(ready.exit == .code(0))
        #expect(ready.output.contains(Identities.serverID))
        proxy.program.kill()
        let none = try Self.wait(proxy, seconds: 1).wait()
        #expect(none.exit == .code(1))
        #expect(none.output.isEmpty)
        #expect(none.errors.split(separator: "\n").count == 1)
      }
    }

    @Test(
      "An application that is there before the rules is not used in plaintext once they are",
      arguments: Family.allCases)
    func rulesLast(family: Family) throws {
      let plan = try Mesh.Plan.standard {
        $0.installsRules = false
        $0.client?.outboundMode = "strict"
        $0.client?.peers = []
        $0.server?.inboundMode = "strict"
        $0.hasOutsider = true
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echo = try mesh.server.echoServer()
        let before = try mesh.client.connect(to: family.server, port: echo.port)
        let recording = try mesh.captured {
          #expect(try before.exchange("canary before the rules"))
          try client.installRules()
          try server.installRules()
          // The one from before was destroyed (ECONNABORTED).
          #expect(throws: (any Error).self) { try before.exchange("canary after the rules") }
          #expect(
            try attempt(
              "canary after the rules", from: mesh.client, to: family.server, port: echo.port)
              == .answered)
        }
        #expect(recording.count(of: "canary before the rules") == 2)
        #expect(recording.count(of: "canary after the rules") == 0)
        try client.waitForRecord { $0.security == "mutual_tls" }
        let outside = try attempt(
          "hello", from: try #require(mesh.outsider), to: family.serverForOutsider, port: echo.port)
        #expect(outside == .refused)
        try server.waitForRefusal("plaintext_in_strict")

        // The rules without a proxy behind them: nobody to speak to.
        client.program.kill()
        let alone = try mesh.captured {
          let outcome = try attempt(
            "canary without a proxy", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == .refused)
        }
        #expect(alone.count(of: "canary without a proxy") == 0)
      }
    }
  }
}
