import Foundation
import TestSupport
import Testing

/// A proxy's identity from one of the sources, with a way to replace it.
enum KeySource: String, CaseIterable, Sendable {
  case files
  case workloadAPI = "the Workload API"
}

extension InNamespaces {
  @Suite("Private keys in memory", .needsGRPC)
  struct KeyMemory {
    @Test(
      "A retired key is nowhere in the proxy's memory", arguments: KeySource.allCases,
      [true, false])
    func retired(_ source: KeySource, isServer: Bool) throws {
      let quick = try QuickMesh()
      let id = isServer ? Identities.serverID : Identities.clientID
      let svids = try quick.authority.issue(id, count: 3)
      let place = try SVIDPlace(.rename, svids[0])
      let agent = try GRPCAgent()
      try agent.give(svids[0], of: quick.authority)
      let plan = try quick.plan { plan in
        var own = try #require(isServer ? plan.server : plan.client)
        (own.certificate, own.privateKey) = (
          place.credential.certificate, place.credential.privateKey
        )
        if source == .workloadAPI {
          own.identity = agent.identity()
          own.trustBundles = [:]
        }
        if isServer { plan.server = own } else { plan.client = own }
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(isServer ? mesh.serverProxy : mesh.clientProxy)
        try proxy.waitForSVID(1)
        let echo = try mesh.server.echoServer()
        let live = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        for (index, svid) in svids.enumerated() {
          if index > 0 {
            switch source {
            case .files: try place.replace(with: svid)
            case .workloadAPI: try agent.give(svid, of: quick.authority)
            }
            try proxy.waitForSVID(index + 1)
          }
          // A handshake with the new key on every worker there is, or nearly.
          for number in 0..<8 {
            #expect(
              try attempt(
                "connection \(number)", from: mesh.client, to: Family.v4.server, port: echo.port)
                == .answered)
          }
          #expect(try live.exchange("still here"))
          let memory = try ProcessMemory(pid: proxy.program.pid)
          #expect(!memory.places(of: svid).isEmpty, "the scan finds the key in use")
          for retired in svids[..<index] { try Self.expectAbsent(retired, in: proxy) }
        }
      }
    }

    @Test("A key that was taken back is nowhere either")
    func withdrawn() throws {
      let quick = try QuickMesh()
      let svid = try quick.authority.issueOne(Identities.serverID)
      let agent = try GRPCAgent()
      try agent.give(svid, of: quick.authority)
      try Mesh.run(quick.plan { $0.ask(agent.identity(), .server) }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        try proxy.waitForSVID(1)
        let echo = try mesh.server.echoServer()
        let live = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try live.exchange("before"))
        #expect(!(try ProcessMemory(pid: proxy.program.pid).places(of: svid).isEmpty))
        try agent.tell("fail PERMISSION_DENIED no identity issued")
        try proxy.program.waitForError(containing: "identity withdrawn")
        try Self.expectAbsent(svid, in: proxy)
        #expect(try live.exchange("after"))
      }
    }

    private static func expectAbsent(_ key: IssuedSVID, in proxy: Proxy) throws {
      var found: [String] = []
      do {
        try eventually("the key is gone", seconds: 5) {
          let memory = try ProcessMemory(pid: proxy.program.pid)
          let places = memory.places(of: key)
          found = places.map { "\($0), after \(memory.surroundings(of: $0))" }
          return found.isEmpty
        }
      } catch {
        throw Trouble("a retired key is left:\n\(found.joined(separator: "\n"))")
      }
    }

    @Test("A key in the certificate's file, by mistake, does not stay either")
    func keyBesideCertificate() throws {
      let quick = try QuickMesh()
      let svids = try quick.authority.issue(Identities.serverID, count: 2)
      let place = try SVIDPlace(.rename, svids[0])
      try Mesh.run(quick.plan(server: place.credential)) { mesh in
        let proxy = try #require(mesh.serverProxy)
        #expect(!(try ProcessMemory(pid: proxy.program.pid).places(of: svids[0]).isEmpty))
        try place.directory.write(
          svids[1].certificatePEM + svids[1].privateKeyPEM, to: "svid.pem")
        try proxy.program.waitForError(containing: "only certificates belong here")
        try Self.expectAbsent(svids[1], in: proxy)
      }
    }
  }
}
