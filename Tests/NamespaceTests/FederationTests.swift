import Foundation
import TestSupport
import Testing

extension InNamespaces {
  /// Two trust domains, each of which serves its bundle and polls the other's.
  @Suite("Federation", .needsGRPC)
  struct Federation {
    private static let port: UInt16 = 8443
    private static let partnerID = "spiffe://partner.example/ns/shop/sa/db"

    /// A first bundle with the shortest refresh hint there is.
    private static func jwks(_ authority: QuickAuthority) -> String {
      """
      {"keys": [{"use": "x509-svid", "kty": "EC", "crv": "P-256",
        "x5c": ["\(Data(authority.bundleDER).base64EncodedString())"]}],
       "spiffe_sequence": 1, "spiffe_refresh_hint": 10}
      """
    }

    private static func federated(
      _ authority: QuickAuthority, bootstrap: String, at address: String, _ id: String
    ) -> String {
      "{ trustDomain: \(authority.trustDomain), jwks: \"\(bootstrap)\", federation: { "
        + "url: \"https://\(address):\(port)/\", profile: https_spiffe, endpointID: \"\(id)\" } }"
    }

    @Test("A trust domain changes its CA, and the other follows by polling")
    func authorityRotation() throws {
      let directory = try TemporaryDirectory()
      let demo = try QuickAuthority(trustDomain: "demo.mesh")
      let old = try QuickAuthority(trustDomain: "partner.example")
      let new = try QuickAuthority(trustDomain: "partner.example")
      let demoFirst = try directory.write(Self.jwks(demo), to: "demo.jwks")
      let partnerFirst = try directory.write(Self.jwks(old), to: "partner.jwks")
      func publish(_ authorities: [QuickAuthority]) throws {
        let text = authorities.map { String(decoding: contents(ofFile: $0.bundle), as: UTF8.self) }
        try directory.write(text.joined(), to: "partner.pem")
      }
      try publish([old])
      let oldSVID = try old.issueOne(Self.partnerID).credential
      let newSVID = try new.issueOne(Self.partnerID).credential
      let endpoint = "{ port: \(Self.port), refreshHintSeconds: 10 }"
      let plan = try Mesh.Plan.standard { plan in
        var client = ProxyConfiguration(
          try demo.issueOne(Identities.clientID).credential,
          trusting: [demo.trustDomain: demo.bundle])
        client.moreTrustBundles = [
          Self.federated(old, bootstrap: partnerFirst, at: Family.v4.server, Self.partnerID)
        ]
        client.peers = [(Family.v4.range(Family.v4.server), Self.partnerID)]
        var server = ProxyConfiguration(
          oldSVID, trusting: ["partner.example": directory.path + "/partner.pem"])
        server.moreTrustBundles = [
          Self.federated(demo, bootstrap: demoFirst, at: Family.v4.client, Identities.clientID)
        ]
        for role in Role.allCases {
          var own = role == .client ? client : server
          own.workload["bundleEndpoint"] = endpoint
          own.inboundMode = "strict"
          own.inboundPorts = [Self.port: "disabled"]
          if role == .client { plan.client = own } else { plan.server = own }
        }
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echo = try mesh.server.echoServer()
        func waitForAuthorities(_ count: Int) throws {
          try eventually("\(count) authorities of partner.example", seconds: 25) {
            let bundles = try client.status().bundles
            return bundles.contains { $0.source == "federation" && $0.authorities == count }
          }
        }
        #expect(try Self.hello(mesh, echo.port) == .answered)
        // Both ways.
        try waitForAuthorities(1)
        try eventually("the bundle of demo.mesh at its partner", seconds: 25) {
          try server.status().bundles.contains { $0.source == "federation" }
        }
        let live = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try live.exchange("before"))

        try publish([old, new])
        try waitForAuthorities(2)
        #expect(try Self.hello(mesh, echo.port) == .answered)
        try server.reconfigure {
          ($0.certificate, $0.privateKey) = (newSVID.certificate, newSVID.privateKey)
        }
        #expect(try Self.hello(mesh, echo.port) == .answered)

        // Who was verified by the old CA loses trust with it.
        try publish([new])
        try waitForAuthorities(1)
        #expect(try live.end() == .reset)
        try client.waitForRecord { $0.end == "revoked" && $0.reason == "untrusted_chain" }
        #expect(try Self.hello(mesh, echo.port) == .answered)

        // The endpoint goes, and what it said last stays.
        server.program.kill()
        var without = try #require(plan.server)
        without.workload["bundleEndpoint"] = nil
        (without.certificate, without.privateKey) = (newSVID.certificate, newSVID.privateKey)
        _ = try Proxy(in: mesh.server, without)
        try eventually("a look that failed", seconds: 25) {
          try client.status().bundles.contains { $0.lastError != nil }
        }
        let bundle = try #require(
          try client.status().bundles.first { $0.trustDomain == "partner.example" })
        #expect(bundle.lastError?.contains("connect_failed") == true)
        #expect(bundle.source == "federation" && bundle.authorities == 1)
        #expect(try Self.hello(mesh, echo.port) == .answered)
      }
    }

    @Test(
      "16: an emptied bundle distrusts the whole trust domain, and a filled one trusts it again")
    func emptied() throws {
      let directory = try TemporaryDirectory()
      let demo = try QuickAuthority(trustDomain: "demo.mesh")
      let partner = try QuickAuthority(trustDomain: "partner.example")
      let good = Self.jwks(partner)
      let path = try directory.write(good, to: "partner.jwks")
      let plan = try Mesh.Plan.standard { plan in
        plan.client = ProxyConfiguration(
          try demo.issueOne(Identities.clientID).credential,
          trusting: [demo.trustDomain: demo.bundle])
        plan.client?.moreTrustBundles = ["{ trustDomain: partner.example, jwks: \"\(path)\" }"]
        plan.client?.peers = [(Family.v4.range(Family.v4.server), Self.partnerID)]
        plan.server = ProxyConfiguration(
          try partner.issueOne(Self.partnerID).credential,
          trusting: [demo.trustDomain: demo.bundle, partner.trustDomain: partner.bundle])
      }
      try Mesh.run(plan) { mesh in
        let client = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        let live = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try live.exchange("trusted"))
        let emptied = #"{"keys": [], "spiffe_sequence": 2, "spiffe_refresh_hint": 10}"#
        try directory.write(emptied, to: "partner.jwks")
        #expect(try live.end() == .reset)
        try client.waitForRecord { $0.end == "revoked" && $0.reason == "unknown_trust_domain" }
        #expect(try Self.hello(mesh, echo.port) == .refused)
        try client.waitForRefusal("unknown_trust_domain")
        let bundle = try client.status().bundles.first { $0.trustDomain == "partner.example" }
        #expect(bundle?.authorities == 0)
        #expect(
          try client.metric(
            "culvert_bundle_authorities{source=\"jwks\",trust_domain=\"partner.example\"}") == 0)
        try directory.write(good, to: "partner.jwks")
        try eventually("trust again", seconds: 5) {
          try Self.hello(mesh, echo.port) == .answered
        }
      }
    }

    private static func hello(_ mesh: Mesh, _ port: UInt16) throws -> Attempt {
      try attempt("hello", from: mesh.client, to: Family.v4.server, port: port)
    }
  }
}
