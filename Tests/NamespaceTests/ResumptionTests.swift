import Foundation
import TestSupport
import Testing

/// What can happen between a connection and the next one.
enum Between: String, CaseIterable, Sendable {
  case nothing
  case serverRotated = "the server's SVID rotated"
  case clientRotated = "the client's SVID rotated"
  case serverBundle = "another trust domain in the server's bundles"
  case clientBundle = "another trust domain in the client's bundles"
  case serverList = "a revocation list of others at the server"
  case clientList = "a revocation list of others at the client"
  case serverRestarted = "the server's proxy restarted"
  case clientRestarted = "the client's proxy restarted"

  var kind: String { self == .nothing ? "resumed" : "full" }
}

/// What ends trust, or permission, between a connection and the next one.
enum Obstacle: String, CaseIterable, Sendable {
  case clientRevoked = "the client's certificate revoked"
  case serverRevoked = "the server's certificate revoked"
  case otherExpected = "another ID expected"

  var word: String { self == .otherExpected ? "unexpected_identity" : "certificate_revoked" }
  /// Whether the server's proxy is the one that refuses.
  var isServers: Bool { self == .clientRevoked }
}

extension InNamespaces {
  @Suite("Resumption", .needsGRPC)
  struct Resumption {

    /// Connects, exchanges a line and closes; what each proxy logs of it.
    private static func exchange(
      _ mesh: Mesh, _ client: Proxy, _ server: Proxy, port: UInt16, line: String
    ) throws -> (client: ConnectionRecord, server: ConnectionRecord) {
      let (clientSaid, serverSaid) = (client.records.count, server.records.count)
      let stream = try mesh.client.connect(to: Family.v4.server, port: port)
      #expect(try stream.exchange(line))
      stream.finish()
      #expect(try stream.end() == .clean)
      return (
        try Self.record(client, after: clientSaid), try Self.record(server, after: serverSaid)
      )
    }

    private static func record(_ proxy: Proxy, after count: Int) throws -> ConnectionRecord {
      var found: ConnectionRecord?
      try eventually("a line of the connection log") {
        found = proxy.records.dropFirst(count).first
        return found != nil
      }
      return try #require(found)
    }

    private static func bundle(_ authority: QuickAuthority, list: String? = nil) -> String {
      let list = list.map { ", crl: \"\($0)\"" } ?? ""
      return "{ trustDomain: \(authority.trustDomain), pem: \"\(authority.bundle)\"\(list) }"
    }

    @Test("The next connection after", arguments: Between.allCases)
    func next(_ between: Between) throws {
      let quick = try QuickMesh()
      let authority = quick.authority
      let stranger = try QuickAuthority(trustDomain: "partner.example")
      let list = try authority.revoke([try authority.issueOne("spiffe://demo.mesh/gone")])
      let plan = try quick.plan()
      try Mesh.run(plan) { mesh in
        var (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echo = try mesh.server.echoServer()
        func next(_ line: String) throws -> [String?] {
          let records = try Self.exchange(mesh, client, server, port: echo.port, line: line)
          #expect(records.client["dst.identity"] == Identities.serverID)
          #expect(records.server["src.identity"] == Identities.clientID)
          return [records.client["handshake"], records.server["handshake"]]
        }
        #expect(try next("the first") == ["full", "full"])
        #expect(try next("the second") == ["resumed", "resumed"])
        func change(_ proxy: Proxy, _ change: (inout ProxyConfiguration) -> Void) throws {
          let before = try proxy.status().identity
          try proxy.reconfigure(change)
          let after = try proxy.status().identity
          #expect(after.svidEpoch + after.trustEpoch == before.svidEpoch + before.trustEpoch + 1)
        }
        switch between {
        case .nothing: break
        case .serverRotated:
          let svid = try authority.issueOne(Identities.serverID).credential
          try change(server) {
            ($0.certificate, $0.privateKey) = (svid.certificate, svid.privateKey)
          }
        case .clientRotated:
          let svid = try authority.issueOne(Identities.clientID).credential
          try change(client) {
            ($0.certificate, $0.privateKey) = (svid.certificate, svid.privateKey)
          }
        case .serverBundle, .clientBundle:
          try change(between == .serverBundle ? server : client) {
            $0.trustBundles[stranger.trustDomain] = stranger.bundle
          }
        case .serverList, .clientList:
          try change(between == .serverList ? server : client) {
            $0.trustBundles = [:]
            $0.moreTrustBundles = [Self.bundle(authority, list: list)]
          }
        case .serverRestarted: server = try Self.restart(server, try #require(plan.server))
        case .clientRestarted: client = try Self.restart(client, try #require(plan.client))
        }
        #expect(try next("the next") == [between.kind, between.kind])
        #expect(try next("and the one after it") == ["resumed", "resumed"])
        if between == .nothing {
          for proxy in [client, server] {
            let handshakes = try proxy.status().connections.handshakes
            #expect(handshakes == ["full": 1, "resumed": 3])
            #expect(try proxy.metric("culvert_handshakes_total{kind=\"resumed\"}") == 3)
          }
        }
      }
    }

    /// A proxy at the place of one that was killed; the rules have stayed.
    private static func restart(_ proxy: Proxy, _ configuration: ProxyConfiguration) throws -> Proxy
    {
      proxy.program.kill()
      return try Proxy(in: proxy.namespace, configuration)
    }

    @Test("A session does not outlive", arguments: Obstacle.allCases)
    func refused(_ obstacle: Obstacle) throws {
      let quick = try QuickMesh()
      let authority = quick.authority
      let clientSVID = try authority.issueOne(Identities.clientID)
      let serverSVID = try authority.issueOne(Identities.serverID)
      let plan = try quick.plan(client: clientSVID.credential, server: serverSVID.credential) {
        $0.client?.peers = []
        $0.client?.outboundRules = [Self.rule(expecting: Identities.serverID)]
        $0.server?.inboundMode = "strict"
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echo = try mesh.server.echoServer()
        for kind in ["full", "resumed"] {
          let records = try Self.exchange(mesh, client, server, port: echo.port, line: kind)
          #expect(records.client["handshake"] == kind && records.server["handshake"] == kind)
        }
        let revoked = obstacle.isServers ? clientSVID : serverSVID
        switch obstacle {
        case .clientRevoked, .serverRevoked:
          let list = try authority.revoke([revoked])
          try (obstacle.isServers ? server : client).reconfigure {
            $0.trustBundles = [:]
            $0.moreTrustBundles = [Self.bundle(authority, list: list)]
          }
        case .otherExpected:
          try client.reconfigure { $0.outboundRules = [Self.rule(expecting: Identities.clientID)] }
        }
        #expect(
          try attempt("not this", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        try (obstacle.isServers ? server : client).waitForRefusal(obstacle.word)
        #expect(!echo.received.contains("not this".utf8))
      }
    }

    private static func rule(expecting id: String) -> String {
      "{ to: [10.90.0.0/24], action: mtls, expect: [\"\(id)\"] }"
    }

    @Test("Sessions are told apart by server address and port")
    func otherPort() throws {
      let quick = try QuickMesh()
      try Mesh.run(quick.plan()) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echoes = [try mesh.server.echoServer(), try mesh.server.echoServer()]
        for (index, kinds) in [["full", "resumed"], ["full", "resumed"]].enumerated() {
          for kind in kinds {
            let records = try Self.exchange(
              mesh, client, server, port: echoes[index].port, line: "to \(index)")
            #expect(records.client["handshake"] == kind)
          }
        }
      }
    }
  }
}
