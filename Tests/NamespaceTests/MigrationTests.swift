import Foundation
import TestSupport
import Testing

extension InNamespaces {
  /// Workloads that gain and lose a proxy, and addresses that change hands, while clients connect.
  @Suite("Migration")
  struct Migration {
    @Test("The next connection follows what a server gains and loses", arguments: Family.allCases)
    func gainAndLoss(family: Family) throws {
      let plan = try Mesh.Plan.strangers { $0.server = nil }
      let server = try #require(try Mesh.Plan.strangers().server)
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        for round in 0..<2 {
          let (before, after) = (try reach(mesh, family, echo), try addProxy(server, to: mesh))
          let protected = try reach(mesh, family, echo)
          #expect([before, protected] == [.answered, .answered])
          try after.remove()
          let records = try proxy.waitForRecords(2 * round + 2, "outbound").suffix(2)
          #expect(records.map(\.security) == ["plaintext", "mutual_tls"])
          #expect(records.last?["discovery"] == "announced")
        }
        #expect(try reach(mesh, family, echo) == .answered)
        let last = try proxy.waitForRecords(5, "outbound").last
        #expect(last?.security == "plaintext")
      }
    }

    @Test("Without announcing, a gain is noticed while the negative answer is in use")
    func gainByProbe() throws {
      let plan = try Mesh.Plan.strangers { plan in
        plan.client?.discovery["announce"] = "off"
        plan.server = nil
      }
      let server = try #require(try Mesh.Plan.strangers().server)
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        #expect(try reach(mesh, .v4, echo) == .answered)
        try proxy.waitForRecord { $0.reason == "no_mesh_port" }
        _ = try addProxy(server, to: mesh)
        try eventually("mutual TLS") {
          // Ten connections a second are enough to keep the answer in use.
          usleep(100_000)
          let outcome = try reach(mesh, .v4, echo)
          #expect(outcome == .answered)
          return proxy.records.contains { $0.security == "mutual_tls" }
        }
        let words = proxy.records.filter { $0.direction == "outbound" }.map(\.security)
        let turn = try #require(words.firstIndex(of: "mutual_tls"))
        #expect(words[..<turn].allSatisfy { $0 == "plaintext" })
        #expect(words[turn...].allSatisfy { $0 == "mutual_tls" })
      }
    }

    @Test("Without announcing, a loss costs the connection that meets it, and no more")
    func lossByProbe() throws {
      let plan = try Mesh.Plan.strangers { plan in
        plan.client?.discovery["announce"] = "off"
        plan.client?.workers = 1
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        #expect(try reach(mesh, .v4, echo) == .answered)
        try mesh.serverProxy?.remove()
        // The answer of the mesh port is still kept.
        #expect(try reach(mesh, .v4, echo) == .refused)
        try proxy.waitForRefusal("handshake_failed")
        for _ in 1...2 { #expect(try reach(mesh, .v4, echo) == .answered) }
        let records = try proxy.waitForRecords(4, "outbound")
        #expect(records.map(\.security) == ["mutual_tls", "none", "plaintext", "plaintext"])
        #expect(try proxy.status().discovery.probes == ["mesh": 1, "no_mesh_port": 1])
      }
    }

    @Test("Another workload at the same address is served and told of")
    func anotherIdentity() throws {
      let stranger = try Identities.stranger.get()
      let strangerID = "spiffe://\(stranger.trustDomain)/ns/shop/sa/db"
      let authority = try Identities.authority.get()
      let bundles = [
        stranger.trustDomain: stranger.bundle, authority.trustDomain: authority.bundle,
      ]
      let successor = ProxyConfiguration(
        try stranger.issue(LeafRequest(strangerID)), trusting: bundles)
      let plan = try Mesh.Plan.strangers {
        $0.client?.trustBundles = bundles
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        for _ in 1...2 { #expect(try reach(mesh, .v4, echo) == .answered) }
        try mesh.serverProxy?.remove()
        _ = try addProxy(successor, to: mesh)
        for _ in 1...2 { #expect(try reach(mesh, .v4, echo) == .answered) }
        let records = try proxy.waitForRecords(4, "outbound")
        #expect(
          records.map { $0["dst.identity"] }
            == [Identities.serverID, Identities.serverID, strangerID, strangerID])
        #expect(
          records.map { $0["dst.identity.before"] } == [nil, nil, Identities.serverID, nil])
        #expect(try proxy.status().discovery.identityChanges == 1)

        try proxy.reconfigure { $0.outbound["expectTrustDomains"] = "[demo.mesh]" }
        let received = echo.received.count
        #expect(try reach(mesh, .v4, echo) == .refused)
        let refusal = try proxy.waitForRefusal("unexpected_trust_domain")
        #expect(refusal["detail"] == strangerID)
        #expect(echo.received.count == received)
        try proxy.reconfigure {
          $0.outbound["expectTrustDomains"] = "[demo.mesh, \(stranger.trustDomain)]"
        }
        #expect(try reach(mesh, .v4, echo) == .answered)
      }
    }
  }
}

private func reach(_ mesh: Mesh, _ family: Family, _ echo: Server) throws -> Attempt {
  try attempt("canary-of-migration", from: mesh.client, to: family.server, port: echo.port)
}

private func addProxy(_ configuration: ProxyConfiguration, to mesh: Mesh) throws -> Proxy {
  let proxy = try Proxy(in: mesh.server, configuration)
  try proxy.installRules()
  return proxy
}
