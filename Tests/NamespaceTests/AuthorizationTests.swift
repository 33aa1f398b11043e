import Glibc
import TestSupport
import Testing

/// A certificate of the mesh's trust domain, or of a partner's that is trusted, too.
private enum Caller: String, CaseIterable {
  case web = "spiffe://demo.mesh/ns/shop/sa/web"
  case cron = "spiffe://demo.mesh/ns/jobs/sa/cron"
  /// Not of the form that has a namespace and a service account.
  case plain = "spiffe://demo.mesh/web"
  case partner = "spiffe://stranger.example/ns/shop/sa/web"

  private static let issued = Box<[String: Credential]>([:])

  func credential() throws -> Credential {
    try Self.issued.update { issued in
      if let known = issued[rawValue] { return known }
      let authority = try (self == .partner ? Identities.stranger : Identities.authority).get()
      let new = try authority.issue(LeafRequest(rawValue))
      issued[rawValue] = new
      return new
    }
  }
}

/// One rule, on a port of its own, and who is let in by it.
private struct RuleCase {
  let fields: String
  let callers: [Caller]
  /// Whether plaintext is.
  let admitsPlaintext: Bool

  init(_ fields: String, _ callers: [Caller], plaintext: Bool = false) {
    self.fields = fields
    self.callers = callers
    admitsPlaintext = plaintext
  }

  static let all = [
    Self("action: allow, namespaces: [shop]", [.web, .partner]),
    Self("action: allow, serviceAccounts: [\"c*\"]", [.cron]),
    Self("action: allow, trustDomains: [stranger.example]", [.partner]),
    Self("action: allow, trustDomains: [demo.mesh], notNamespaces: [shop]", [.cron]),
    Self("action: allow, principals: [\"*\"]", Caller.allCases),
    Self("action: allow, principals: [\"*/sa/web\"], notTrustDomains: [stranger.example]", [.web]),
    // A prefix stays within its trust domain, a suffix does not: both want a name (CVE-2020-16844).
    Self("action: allow, principals: [\"spiffe://demo.mesh/*\"]", [.web, .cron, .plain]),
    Self("action: allow, principals: [\"*/web\"]", [.web, .plain, .partner]),
    // Nobody is let in for what they are not, if they are nobody.
    Self("action: allow, notPrincipals: [\"\(Caller.web.rawValue)\"]", [.cron, .plain, .partner]),
    Self(
      "action: allow, sources: [\"10.90.0.0/16\", \"fd90::/16\"]", Caller.allCases, plaintext: true),
    Self("action: allow, sources: [10.91.0.0/16]", []),
    Self("action: allow, notSources: [10.90.0.0/16, \"fd90::/16\"]", []),
  ]

  var port: UInt16 { 7100 + UInt16(Self.all.firstIndex { $0.fields == fields } ?? 0) }
  var name: String { "port-\(port)" }
}

extension InNamespaces {
  @Suite("Who may connect")
  struct AuthorizationOfConnections {
    /// Server side only: it trusts the partner as well.
    private static func plan(
      _ mode: String, _ rules: [String], client: Bool = false
    ) throws -> Mesh.Plan {
      let stranger = try Identities.stranger.get()
      return try .standard {
        if !client { $0.client = nil }
        $0.server?.inboundMode = mode
        $0.server?.authorization = rules
        $0.server?.trustBundles[stranger.trustDomain] = stranger.bundle
      }
    }

    private static func isServed(
      _ mesh: Mesh, _ caller: Caller, family: Family = .v4, port: UInt16
    ) throws -> Bool {
      let client = try OpenSSL.meshClient(
        in: mesh.client, to: family.endpoint(family.server, port), try caller.credential())
      defer { client.kill() }
      return client.exchanges("from \(caller.rawValue)")
    }

    @Test("Rules by principal and port; what is not let in is not even dialled under strict")
    func principalAndPort() throws {
      let rules = [
        "{ name: web-only, action: allow, principals: [\"\(Caller.web.rawValue)\"], ports: [7001-7003] }",
        "{ name: shut, action: deny, principals: [\"\(Caller.web.rawValue)\"], ports: [7003] }",
      ]
      try Mesh.run(Self.plan("strict", rules, client: true)) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let cases: [(UInt16, Attempt, String?, String?)] = [
          (7001, .answered, nil, "web-only"), (7003, .refused, "denied_by_policy", "shut"),
          (7004, .refused, "not_allowed_by_policy", nil),
        ]
        for (port, expected, reason, rule) in cases {
          let echo = try mesh.server.echoServer(port: port)
          for family in Family.allCases {
            #expect(
              try attempt("hello", from: mesh.client, to: family.server, port: port) == expected)
            let destination = family.endpoint(family.server, port)
            let record = try server.waitForRecord { $0["dst.addr"] == destination }
            #expect(record.end == (reason == nil ? "closed" : "refused"), "\(record)")
            #expect(record.reason == reason && record["rule"] == rule, "\(record)")
            #expect(record["src.identity"] == Caller.web.rawValue)
            let mirror = try client.waitForRecord { $0["dst.addr"] == destination }
            #expect(
              mirror.description.contains("access_denied") == (reason != nil), "\(mirror)")
          }
          #expect(echo.accepted == (reason == nil ? 2 : 0))
        }
        #expect(
          try server.status().connections.refused == [
            "denied_by_policy": 2, "not_allowed_by_policy": 2,
          ])
      }
    }

    @Test("Every property of a caller, and what the nameless are let in by")
    func properties() throws {
      let rules = RuleCase.all.map { "{ name: \($0.name), ports: [\($0.port)], \($0.fields) }" }
      try Mesh.run(Self.plan("permissive", rules)) { mesh in
        let server = try #require(mesh.serverProxy)
        for (index, one) in RuleCase.all.enumerated() {
          _ = try mesh.server.echoServer(port: one.port)
          let family = Family.allCases[index % 2]
          for caller in Caller.allCases {
            #expect(
              try Self.isServed(mesh, caller, family: family, port: one.port)
                == one.callers.contains(caller), "\(caller): \(one.fields)")
          }
          let plain = try attempt("plain", from: mesh.client, to: family.server, port: one.port)
          #expect((plain == .answered) == one.admitsPlaintext, "plaintext: \(one.fields)")
          try eventually("all lines of port \(one.port)") {
            let records = server.records.filter {
              $0["dst.addr"]?.hasSuffix(":\(one.port)") == true
            }
            return records.count { $0["rule"] == one.name }
              == one.callers.count + (one.admitsPlaintext ? 1 : 0)
              && records.count { $0.reason == "not_allowed_by_policy" }
                == Caller.allCases.count - one.callers.count + (one.admitsPlaintext ? 0 : 1)
          }
        }
      }
    }

    @Test("Under permissive, denying the nameless requires mTLS", arguments: Family.allCases)
    func nameless(family: Family) throws {
      let rules = ["{ name: mtls, action: deny, notPrincipals: [\"*\"] }"]
      try Mesh.run(Self.plan("permissive", rules)) { mesh in
        let server = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let greeting = try mesh.server.greetingServer("220 secret\n")
        _ = try OpenSSL.applicationServer(in: mesh.server, port: 7444, try Identities.web.get())
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .refused)
        let silent = try mesh.client.connect(to: family.server, port: greeting.port)
        #expect(try silent.end() == .reset)
        let client = try OpenSSL.applicationClient(
          in: mesh.client, to: family.endpoint(family.server, 7444),
          trusting: try Identities.authority.get().bundle)
        #expect(!client.exchangesReversed("hello"))
        try eventually("three refusals in the log") {
          server.records.count {
            $0.reason == "denied_by_policy" && $0.end == "refused" && $0["rule"] == "mtls"
          } == 3
        }
        #expect(echo.received.isEmpty)

        // The rules gone, all three are served.
        try server.reconfigure { $0.authorization = [] }
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .answered)
        let heard = try mesh.client.connect(to: family.server, port: greeting.port)
        #expect(try heard.receiveText(exactly: 11) == "220 secret\n")
        let application = try OpenSSL.applicationClient(
          in: mesh.client, to: family.endpoint(family.server, 7444),
          trusting: try Identities.authority.get().bundle)
        #expect(application.exchangesReversed("hello"))

        try server.reconfigure { $0.authorization = rules }
        #expect(try Self.isServed(mesh, .web, family: family, port: echo.port))
      }
    }

    @Test("An audited rule says what it would do, and does nothing")
    func audit() throws {
      let rules = [
        "{ name: trial, action: deny, audit: true, notPrincipals: [\"*\"] }",
        "{ name: only-cron, action: allow, audit: true, principals: [\"\(Caller.cron.rawValue)\"] }",
      ]
      try Mesh.run(Self.plan("permissive", rules)) { mesh in
        let server = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        func audit() throws -> String? {
          var records: [ConnectionRecord] = []
          let before = audited.value
          try eventually("the line of the connection") {
            records = server.records
            return records.count > before
          }
          audited.update { $0 = before + 1 }
          #expect(records[before].end != "refused" && records[before]["rule"] == nil)
          return records[before]["audit"]
        }
        let audited = Box(0)
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        #expect(try audit() == "deny:trial")
        #expect(try Self.isServed(mesh, .web, port: echo.port))
        #expect(try audit() == "deny")
        #expect(try Self.isServed(mesh, .cron, port: echo.port))
        #expect(try audit() == "allow:only-cron")
        #expect(try server.status().connections.refused.isEmpty)
      }
    }

    @Test("A resumed session is judged anew")
    func resumed() throws {
      let web = "{ name: web, action: allow, principals: [\"\(Caller.web.rawValue)\"] }"
      try Mesh.run(Self.plan("strict", [web], client: true)) { mesh in
        let server = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        func next(_ line: String) throws -> (attempt: Attempt, record: ConnectionRecord) {
          let seen = server.records.count
          let outcome = try attempt(
            line, from: mesh.client, to: Family.v4.server, port: echo.port)
          try eventually("the line of “\(line)”") { server.records.count > seen }
          return (outcome, server.records[seen])
        }
        for kind in ["full", "resumed"] {
          let result = try next(kind)
          #expect(result.attempt == .answered && result.record["handshake"] == kind)
        }
        try server.reconfigure {
          $0.authorization = [web.replacing("sa/web", with: "sa/other")]
        }
        let refused = try next("not this")
        #expect(refused.attempt == .refused && refused.record["handshake"] == "resumed")
        #expect(refused.record.reason == "not_allowed_by_policy")
        #expect(!echo.received.contains("not this".utf8))
        try server.reconfigure { $0.authorization = [web] }
        #expect(try next("again").attempt == .answered)
      }
    }

    @Test("A new policy ends the live connections that it does not allow, and no others")
    func live() throws {
      var plan = try Self.plan("permissive", [], client: true)
      plan.client?.outboundRules = ["{ to: [10.90.0.20], action: plaintext }"]
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echoes = try [7001, 7002].map { try mesh.server.echoServer(port: $0) }
        // Twenty of each kind to each port: mTLS to the first address, plaintext to the second.
        let streams = try echoes.map { echo in
          try [Family.v4.server, Family.v4.otherServer].map { address in
            let streams = try mesh.client.connect(20, to: address, port: echo.port)
            for (number, stream) in streams.enumerated() {
              #expect(try stream.exchange("line \(number)"))
            }
            return streams
          }
        }
        let open = try server.status().connections.open
        #expect(open["mutual_tls"] == 40 && open["plaintext"] == 40, "\(open)")

        // mTLS goes on at the first port, plaintext at the second one.
        try server.reconfigure {
          $0.authorization = [
            "{ name: web, action: allow, principals: [\"\(Caller.web.rawValue)\"] }",
            "{ name: near, action: allow, sources: [10.90.0.1], ports: [7002] }",
            "{ name: named, action: deny, principals: [\"*\"], ports: [7002] }",
          ]
        }
        let clock = ContinuousClock()
        let taken = try clock.measure {
          for stream in streams[0][1] + streams[1][0] {
            let end = try stream.end()
            #expect(end == .reset)
          }
        }
        #expect(taken < .seconds(1))
        for stream in streams[0][0] + streams[1][1] { #expect(try stream.exchange("and on")) }
        for (security, reason) in [
          ("mutual_tls", "denied_by_policy"), ("plaintext", "not_allowed_by_policy"),
        ] {
          try eventually("the lines of the \(security) connections that were ended") {
            server.records.count {
              $0.end == "denied" && $0.security == security && $0.reason == reason
            } == 20
          }
        }
        #expect(try server.status().connections.openCount == 40)
        try eventually("the alerts in the client's log") {
          client.records.count { $0.description.contains("access_denied") } == 20
        }
      }
    }
  }
}
