import Foundation
import TestSupport
import Testing

extension InNamespaces {
  /// Destinations that proved mesh and must not be spoken to in plaintext for a while.
  @Suite("Pins")
  struct PinsInUse {
    private static func pins(_ proxy: Proxy, _ arguments: String...) throws -> String {
      try Program.check(
        [Machine.program("culvert"), "pins"] + arguments + ["--admin-socket", proxy.adminSocket])
    }

    /// Answers in the handshake are lost, and the mesh port is closed.
    private static func startAttack(on mesh: Mesh) throws {
      try Attack.loseAnswers.start(in: mesh.client)
      try Attack.blockMeshPort.start(in: mesh.server)
    }

    private static func stopAttack(on mesh: Mesh) throws {
      try Attack.stop(in: mesh.client)
      try Attack.stop(in: mesh.server)
    }

    @Test(
      "What proved mesh is not spoken to in plaintext, also by the next process",
      arguments: Family.allCases)
    func pinned(family: Family) throws {
      let directory = try TemporaryDirectory()
      let plan = try Mesh.Plan.strangers {
        $0.client?.outbound["pins"] = "{ ttlSeconds: 3600, file: \"\(directory.path)/pins\" }"
      }
      let configuration = try #require(plan.client)
      try Mesh.run(plan) { mesh in
        let echo = try mesh.server.echoServer()
        func reach() throws -> Attempt {
          try attempt("canary-of-pins", from: mesh.client, to: family.server, port: echo.port)
        }
        let first = try #require(mesh.clientProxy)
        #expect(try Self.pins(first, "list") == "no pins\n")
        #expect(try reach() == .answered)
        let endpoint = family.endpoint(family.server, echo.port)
        #expect(try Self.pins(first, "list").hasPrefix(endpoint + " "))

        try Self.startAttack(on: mesh)
        let attacked = try mesh.captured {
          let outcome = try reach()
          #expect(outcome == .refused)
        }
        #expect(attacked.count(of: "canary-of-pins") == 0)
        #expect(attacked.opened(to: echo.port).count == 1)
        try first.waitForRefusal("pinned_mesh_lost")

        // The second one does not wait for open connections.
        for _ in 1...2 { first.program.send(signal: SIGTERM) }
        _ = try first.program.wait()
        let second = try Proxy(in: mesh.client, configuration)
        #expect(try Self.pins(second, "list").hasPrefix(endpoint + " "))
        #expect(try reach() == .refused)
        try second.waitForRefusal("pinned_mesh_lost")

        #expect(try Self.pins(second, "clear", family.otherServer) == "0 pins cleared\n")
        #expect(try Self.pins(second, "clear", family.server) == "1 pin cleared\n")
        #expect(try Self.pins(second, "list") == "no pins\n")
        // The client would speak plaintext now; the server has seen its announcement.
        #expect(try reach() == .refused)
        let plaintext = try second.waitForRecord { $0.reason == "no_mesh_port" }
        #expect(plaintext.security == "plaintext")
        try #require(mesh.serverProxy).waitForRefusal("announced_then_plaintext")
        #expect(echo.accepted == 1)

        try Self.stopAttack(on: mesh)
        #expect(try reach() == .answered)
        try mesh.serverProxy?.remove()
        #expect(try reach() == .refused)
        #expect(try Self.pins(second, "clear", "--all") == "1 pin cleared\n")
        #expect(try reach() == .answered)
      }
    }

    @Test("A pins file that cannot be read is no reason to speak plaintext")
    func damaged() throws {
      let directory = try TemporaryDirectory()
      let namespace = try Namespace("alone")
      defer { namespace.close() }
      var configuration = ProxyConfiguration(
        try Identities.client.get(), trusting: try Identities.authority.get())
      let file = directory.path + "/pins"
      configuration.outbound["pins"] = "{ ttlSeconds: 3600, file: \"\(file)\" }"
      let path = try directory.write(
        configuration.yaml(adminSocket: directory.path + "/admin.sock"), to: "culvert.yaml")
      let damages = [
        "", "{", "{\"version\":2,\"pins\":[]}",
        "{\"version\":1,\"pins\":[{\"address\":\"here\",\"port\":1,\"until\":9999999999}]}",
        "{\"version\":1,\"pins\":[{\"address\":\"10.0.0.1\",\"port\":0,\"until\":9999999999}]}",
      ]
      for damage in damages {
        try directory.write(damage, to: "pins")
        let outcome = try namespace.run(
          [Machine.program("culvert-proxy"), "--config", path], seconds: 10)
        #expect(!outcome.succeeded)
        #expect(outcome.errors.contains("\(file): holds no pins as culvert-proxy writes them"))
        #expect(try namespace.listeners().isEmpty)
      }
      try directory.write("{\"version\":1,\"pins\":[]}", to: "pins")
      #expect(try Self.pins(Proxy(in: namespace, configuration), "list") == "no pins\n")
    }
  }
}
