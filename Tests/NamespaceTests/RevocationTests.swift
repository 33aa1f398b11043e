import Foundation
import TestSupport
import Testing

/// How trust in one peer ends while another one stays trusted.
enum Withdrawal: String, CaseIterable, Sendable {
  case listChanged = "a revocation list that names it"
  case listAdded = "a revocation list where there was none"
  case staleList = "a revocation list whose next update is overdue"
  case domainRemoved = "its trust domain's bundle removed"
  case authorityRemoved = "its CA removed from the bundle"

  /// The word on the side that has withdrawn its trust.
  var word: String {
    switch self {
    case .listChanged, .listAdded, .staleList: "certificate_revoked"
    case .domainRemoved: "unknown_trust_domain"
    case .authorityRemoved: "untrusted_chain"
    }
  }
}

/// One trust domain, or two, in which one peer is about to lose trust.
private struct Trust {
  let withdrawal: Withdrawal
  let home: QuickAuthority
  /// Who issues the doomed peer's certificate.
  let other: QuickAuthority
  let directory: TemporaryDirectory
  let doomed: IssuedSVID

  init(_ withdrawal: Withdrawal, doomedPath: String) throws {
    self.withdrawal = withdrawal
    home = try QuickAuthority(trustDomain: "demo.mesh")
    directory = try TemporaryDirectory()
    switch withdrawal {
    case .domainRemoved: other = try QuickAuthority(trustDomain: "partner.example")
    case .authorityRemoved: other = try QuickAuthority(trustDomain: "demo.mesh")
    case .listChanged, .listAdded, .staleList: other = home
    }
    doomed = try other.issueOne("spiffe://\(other.trustDomain)\(doomedPath)")
    try writeBundle(whole: true)
    _ = try home.revoke([], name: "list")
  }

  private func writeBundle(whole: Bool) throws {
    let parts =
      whole && other !== home && other.trustDomain == home.trustDomain ? [home, other] : [home]
    let text = parts.map { String(decoding: contents(ofFile: $0.bundle), as: UTF8.self) }.joined()
    try directory.write(text, to: "home.pem")
  }

  /// What the side that will withdraw trusts at first.
  func bundles(withdrawn: Bool = false) throws -> [String] {
    var home = "{ trustDomain: demo.mesh, pem: \"\(directory.path)/home.pem\""
    if withdrawal == .listChanged || withdrawal == .staleList || withdrawn {
      switch withdrawal {
      case .listChanged, .staleList, .listAdded:
        home +=
          ", crl: \"\(try self.home.revoke(withdrawn ? [doomed] : [], name: "list", to: listEnd))\""
      case .domainRemoved, .authorityRemoved: break
      }
    }
    var bundles = [home + " }"]
    if withdrawal == .domainRemoved, !withdrawn {
      bundles.append("{ trustDomain: partner.example, pem: \"\(other.bundle)\" }")
    }
    return bundles
  }

  private var listEnd: Int { withdrawal == .staleList ? -1 : 3600 }

  /// What the doomed peer itself trusts: it does not withdraw anything.
  var peerBundles: [String: String] {
    get throws {
      var bundles = ["demo.mesh": home.bundle]
      if other !== home {
        if other.trustDomain == home.trustDomain {
          bundles["demo.mesh"] = try directory.write(
            String(
              decoding: contents(ofFile: home.bundle) + contents(ofFile: other.bundle),
              as: UTF8.self),
            to: "both.pem")
        } else {
          bundles[other.trustDomain] = other.bundle
        }
      }
      return bundles
    }
  }

  /// What a Workload API says.
  func message(_ svid: IssuedSVID, withdrawn: Bool) throws -> [UInt8] {
    var bundle = home.bundleDER
    var lists: [[UInt8]] = []
    var federated: [(String, [UInt8])] = []
    switch withdrawal {
    case .domainRemoved:
      if !withdrawn { federated = [("spiffe://partner.example", other.bundleDER)] }
    case .authorityRemoved:
      if !withdrawn { bundle += other.bundleDER }
    case .listAdded, .listChanged, .staleList:
      if withdrawn {
        let list = try home.revoke([doomed], name: "pushed")
        try Program.check(["openssl", "crl", "-in", list, "-outform", "DER", "-out", list + ".der"])
        lists = [contents(ofFile: list + ".der")]
      }
    }
    let entry = Wire.svid(
      id: svid.credential.identity, certificates: svid.certificateDER, key: svid.privateKeyDER,
      bundle: bundle)
    return Wire.svids([entry], crls: lists, federated: federated)
  }

  func withdraw(_ proxy: Proxy) throws {
    switch withdrawal {
    case .listChanged, .staleList: _ = try home.revoke([doomed], name: "list", to: listEnd)
    case .authorityRemoved: try writeBundle(whole: false)
    case .listAdded, .domainRemoved:
      let bundles = try bundles(withdrawn: true)
      try proxy.reconfigure { $0.moreTrustBundles = bundles }
    }
  }
}

extension InNamespaces {
  @Suite("Revocation", .needsGRPC)
  struct Revocation {
    /// How long a connection may live on without trust.
    static let deadlineSeconds = 5.0

    static let engines = Machine.hasKernelTLS ? ["off", "auto"] : ["off"]

    @Test(
      "A client that is not trusted any more is cut off, and nobody else",
      arguments: Withdrawal.allCases, engines)
    func inbound(_ withdrawal: Withdrawal, kernelTLS: String) throws {
      let trust = try Trust(withdrawal, doomedPath: "/ns/shop/sa/web")
      let good = try trust.home.issueOne("spiffe://demo.mesh/ns/shop/sa/good").credential
      let plan = try Mesh.Plan.standard { plan in
        plan.client = ProxyConfiguration(trust.doomed.credential, trusting: try trust.peerBundles)
        plan.client?.peers = [(Family.v4.range(Family.v4.server), Identities.serverID)]
        plan.server = ProxyConfiguration(
          try trust.home.issueOne(Identities.serverID).credential, trusting: [:])
        plan.server?.moreTrustBundles = try trust.bundles()
        plan.server?.dataPlane = ["kernelTLS": kernelTLS, "kernelTLSAfterBytes": "0"]
        plan.server?.inboundMode = "strict"
        plan.hasOutsider = true
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let listener = try mesh.server.listen()
        let stream = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try stream.send("before")
        let application = try listener.accept()
        #expect(try application.receiveText(exactly: 6) == "before")
        let echo = try mesh.server.echoServer()
        let outsider = try #require(mesh.outsider)
        let other = try OpenSSL.meshClient(
          in: outsider, to: "\(Family.v4.serverForOutsider):\(echo.port)", good)
        #expect(other.exchanges("the other one, before"))

        let withdrawn = Date()
        try trust.withdraw(server)
        #expect(try application.end() == .reset)
        #expect(try stream.end() == .reset)
        #expect(Date().timeIntervalSince(withdrawn) < Self.deadlineSeconds)
        let record = try server.waitForRecord { $0.end == "revoked" }
        #expect(record.reason == withdrawal.word, "\(record)")
        #expect(record["src.identity"] == trust.doomed.credential.identity)
        try client.waitForRecord { $0.end != "refused" && $0.direction == "outbound" }

        #expect(other.exchanges("the other one, after"))
        let newcomer = try OpenSSL.meshClient(
          in: outsider, to: "\(Family.v4.serverForOutsider):\(echo.port)", good)
        #expect(newcomer.exchanges("a new one of the other"))
        #expect(
          try attempt("again", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        try server.waitForRefusal(withdrawal.word)
        #expect(try server.status().connections.refused[withdrawal.word] != nil)
        #expect(!echo.received.contains("again".utf8))
      }
    }

    @Test(
      "A server that is not trusted any more is left, and no other",
      arguments: Withdrawal.allCases, engines)
    func outbound(_ withdrawal: Withdrawal, kernelTLS: String) throws {
      let trust = try Trust(withdrawal, doomedPath: "/ns/shop/sa/db")
      let good = try trust.home.issueOne("spiffe://demo.mesh/ns/shop/sa/good").credential
      let plan = try Mesh.Plan.standard { plan in
        plan.client = ProxyConfiguration(
          try trust.home.issueOne(Identities.clientID).credential, trusting: [:])
        plan.client?.moreTrustBundles = try trust.bundles()
        plan.client?.dataPlane = ["kernelTLS": kernelTLS, "kernelTLSAfterBytes": "0"]
        plan.client?.peers = []
        plan.client?.outboundRules = ["{ to: [10.90.0.0/24], action: mtls }"]
        plan.server = ProxyConfiguration(trust.doomed.credential, trusting: try trust.peerBundles)
        plan.server?.inboundPorts = [7443: "disabled", 7444: "disabled"]
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        // Each serves one connection at a time.
        for port: UInt16 in [7443, 7444] {
          _ = try OpenSSL.meshServer(
            in: mesh.server, port: port, good, trusting: trust.home.bundle)
        }
        let other = try mesh.client.connect(to: Family.v4.server, port: 7443)
        #expect(try Self.exchangeReversed(other))
        let listener = try mesh.server.listen()
        let stream = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try stream.send("before")
        let application = try listener.accept()
        #expect(try application.receiveText(exactly: 6) == "before")

        let withdrawn = Date()
        try trust.withdraw(client)
        #expect(try stream.end() == .reset)
        #expect(try application.end() == .reset)
        #expect(Date().timeIntervalSince(withdrawn) < Self.deadlineSeconds)
        let record = try client.waitForRecord { $0.end == "revoked" }
        #expect(record.reason == withdrawal.word, "\(record)")
        #expect(record["dst.identity"] == trust.doomed.credential.identity)

        #expect(try Self.exchangeReversed(other))
        #expect(
          try Self.exchangeReversed(mesh.client.connect(to: Family.v4.server, port: 7444)))
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("again", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        try client.waitForRefusal(withdrawal.word)
        let seen = try server.waitForRecord { $0.end == "refused" && $0.direction == "inbound" }
        #expect(seen.reason == "handshake_failed", "\(seen)")
        #expect(echo.received.isEmpty)
      }
    }

    private static func exchangeReversed(_ stream: TestSupport.Stream) throws -> Bool {
      try stream.send("hello\n")
      return try stream.receiveText(exactly: 6) == "olleh\n"
    }

    @Test(
      "What the Workload API takes back is cut off, too",
      arguments: [Withdrawal.listAdded, .domainRemoved, .authorityRemoved])
    func pushed(_ withdrawal: Withdrawal) throws {
      let trust = try Trust(withdrawal, doomedPath: "/ns/shop/sa/web")
      let own = try trust.home.issueOne(Identities.serverID)
      let good = try trust.home.issueOne("spiffe://demo.mesh/ns/shop/sa/good").credential
      let agent = try GRPCAgent()
      try agent.send(trust.message(own, withdrawn: false))
      let plan = try Mesh.Plan.standard { plan in
        plan.client = ProxyConfiguration(trust.doomed.credential, trusting: try trust.peerBundles)
        plan.client?.peers = [(Family.v4.range(Family.v4.server), Identities.serverID)]
        plan.ask(agent.identity(), .server) { $0.inboundMode = "strict" }
        plan.hasOutsider = true
      }
      try Mesh.run(plan) { mesh in
        let server = try #require(mesh.serverProxy)
        try server.waitForSVID(1)
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))
        let other = try OpenSSL.meshClient(
          in: try #require(mesh.outsider), to: "\(Family.v4.serverForOutsider):\(echo.port)", good)
        #expect(other.exchanges("the other one, before"))

        let withdrawn = Date()
        try agent.send(trust.message(own, withdrawn: true))
        #expect(try stream.end() == .reset)
        #expect(Date().timeIntervalSince(withdrawn) < Self.deadlineSeconds)
        let record = try server.waitForRecord { $0.end == "revoked" }
        #expect(record.reason == withdrawal.word, "\(record)")
        #expect(other.exchanges("the other one, after"))
        #expect(
          try attempt("again", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        try server.waitForRefusal(withdrawal.word)
        let identity = try server.status().identity
        #expect(identity.svidEpoch == 1 && identity.trustEpoch == 2)
      }
    }

    @Test("An overdue list refuses nobody whom it does not name")
    func overdueList() throws {
      let quick = try QuickMesh()
      let list = try quick.authority.revoke(
        [try quick.authority.issueOne("spiffe://demo.mesh/gone")], from: -7200, to: -3600)
      let plan = try quick.plan {
        $0.server?.trustBundles = [:]
        $0.server?.moreTrustBundles = [
          "{ trustDomain: demo.mesh, pem: \"\(quick.authority.bundle)\", crl: \"\(list)\" }"
        ]
      }
      try Mesh.run(plan) { mesh in
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "mutual_tls")
      }
    }

    @Test("A damaged list leaves the last good one")
    func damagedList() throws {
      let quick = try QuickMesh()
      let directory = try TemporaryDirectory()
      let good = try quick.authority.revoke([], name: "good")
      try directory.write(
        String(decoding: contents(ofFile: good), as: UTF8.self), to: "list.crl")
      let plan = try quick.plan {
        $0.server?.trustBundles = [:]
        $0.server?.moreTrustBundles = [
          "{ trustDomain: demo.mesh, pem: \"\(quick.authority.bundle)\", "
            + "crl: \"\(directory.path)/list.crl\" }"
        ]
      }
      try Mesh.run(plan) { mesh in
        let server = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        try directory.write(
          "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", to: "list.crl")
        try server.program.waitForError(containing: "configuration not loaded")
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        #expect(try server.status().bundles.map(\.revocationLists) == [1])
      }
    }
  }
}
