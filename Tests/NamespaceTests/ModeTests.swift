import TestSupport
import Testing

/// What a client may turn out to speak.
enum Speech: String, CaseIterable, Sendable {
  case mesh, plaintext
  case applicationTLS = "application TLS"
}

struct InboundCase: Sendable, CustomTestStringConvertible {
  let mode: String
  let speech: Speech
  let family: Family

  var testDescription: String { "\(mode), \(speech.rawValue), \(family)" }

  static let all = ["permissive", "strict", "disabled"].flatMap { mode in
    Speech.allCases.flatMap { speech in
      Family.allCases.map { Self(mode: mode, speech: speech, family: $0) }
    }
  }

  /// The refusal's word; nil if the client is served.
  var refusal: String? {
    switch (mode, speech) {
    case ("strict", .plaintext): "plaintext_in_strict"
    case ("strict", .applicationTLS): "application_tls_in_strict"
    default: nil
    }
  }

  var security: String {
    switch speech {
    case .mesh: "mutual_tls"
    case .plaintext: "plaintext"
    case .applicationTLS: "application_tls"
    }
  }
}

struct OutboundCase: Sendable, CustomTestStringConvertible {
  let mode: String
  /// What the destination speaks.
  let speech: Speech
  let family: Family

  var testDescription: String { "\(mode), \(speech.rawValue), \(family)" }

  static let all = ["auto", "strict", "disabled"].flatMap { mode in
    Speech.allCases.flatMap { speech in
      Family.allCases.map { Self(mode: mode, speech: speech, family: $0) }
    }
  }

  var isServed: Bool { mode != "strict" || speech == .mesh }
  var isEncrypted: Bool { speech == .mesh && mode != "disabled" }
}

struct PairCase: Sendable, CustomTestStringConvertible {
  let inbound: String
  let outbound: String
  let family: Family

  var testDescription: String { "inbound \(inbound), outbound \(outbound), \(family)" }

  static let all = ["permissive", "strict", "disabled"].flatMap { inbound in
    ["auto", "strict", "disabled"].flatMap { outbound in
      Family.allCases.map { Self(inbound: inbound, outbound: outbound, family: $0) }
    }
  }

  var isEncrypted: Bool { outbound != "disabled" && inbound != "disabled" }

  /// A client that must have mTLS and a server that does not take part, or the other way round.
  var isServed: Bool {
    switch (inbound, outbound) {
    case ("strict", "disabled"), ("disabled", "auto"), ("disabled", "strict"): false
    default: true
    }
  }
}

extension InNamespaces {
  @Suite("Modes")
  struct Modes {
    @Test("Inbound: who is served", arguments: InboundCase.all)
    func inbound(_ one: InboundCase) throws {
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          // The rules of `disabled` would keep the traffic away from the proxy; what the proxy does
          // with traffic that still arrives is the question here.
          if one.mode != "disabled" { plan.server?.inboundMode = one.mode }
        }
      ) { mesh in
        let proxy = try #require(mesh.serverProxy)
        if one.mode == "disabled" { try proxy.reconfigure { $0.inboundMode = "disabled" } }
        try Self.checkInbound(one, mesh, proxy)
      }
    }

    private static func checkInbound(_ one: InboundCase, _ mesh: Mesh, _ proxy: Proxy) throws {
      let authority = try Identities.authority.get()
      let echo = try mesh.server.echoServer()
      let endpoint = one.family.endpoint(one.family.server, echo.port)
      switch one.speech {
      case .mesh:
        let client = try OpenSSL.meshClient(
          in: mesh.client, to: endpoint, try Identities.client.get(), trusting: authority.bundle)
        #expect(client.exchanges("hello") == (one.refusal == nil))
        client.closeInput()
      case .plaintext:
        let outcome = try attempt(
          "hello", from: mesh.client, to: one.family.server, port: echo.port)
        #expect(outcome == (one.refusal == nil ? .answered : .refused))
      case .applicationTLS:
        _ = try OpenSSL.applicationServer(in: mesh.server, port: 7444, try Identities.web.get())
        let client = try OpenSSL.applicationClient(
          in: mesh.client, to: one.family.endpoint(one.family.server, 7444),
          trusting: authority.bundle)
        #expect(
          client.exchangesReversed("hello", seconds: one.refusal == nil ? 20 : 2)
            == (one.refusal == nil))
        client.closeInput()
      }
      let record = try proxy.waitForRecord { $0.direction == "inbound" }
      if let refusal = one.refusal {
        #expect(record.end == "refused")
        #expect(record.reason == refusal)
        #expect(echo.accepted == 0)
      } else {
        #expect(record.security == one.security)
        #expect(record["src.identity"] == (one.speech == .mesh ? Identities.clientID : nil))
        #expect(record["src.addr"]?.contains(one.family.client) == true)
      }
    }

    @Test("Inbound disabled: the rules keep the proxy out of it", arguments: Family.allCases)
    func inboundDisabledIsExcluded(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          plan.server?.inboundMode = "disabled"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let outcome = try attempt("hello", from: mesh.client, to: family.server, port: echo.port)
        #expect(outcome == .answered)
        #expect(try mesh.serverProxy?.status().connections.accepted == 0)
      }
    }

    @Test("The mode of a single port wins over the workload's", arguments: Family.allCases)
    func portModes(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          plan.server?.inboundPorts = [7001: "strict", 7002: "disabled", 7003: "permissive"]
        }
      ) { mesh in
        let ports: [(UInt16, Attempt)] = [
          (7000, .answered), (7001, .refused), (7002, .answered), (7003, .answered),
        ]
        for (port, expected) in ports {
          let echo = try mesh.server.echoServer(port: port)
          let outcome = try attempt("hello", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == expected, "port \(port)")
        }
      }
    }

    @Test("Outbound: what is reached, and how", arguments: OutboundCase.all)
    func outbound(_ one: OutboundCase) throws {
      try Mesh.run(
        .standard { plan in
          plan.client?.outboundMode = one.mode
          if one.mode != "auto" { plan.client?.peers = [] }
          if one.speech != .mesh {
            plan.server = nil
            plan.client?.peers = []
          }
        }
      ) { mesh in
        let recording = try mesh.captured { try Self.checkOutbound(one, mesh) }
        let isInTheOpen = one.isServed && !one.isEncrypted && one.speech != .applicationTLS
        #expect(recording.count(of: "canary-of-outbound") == (isInTheOpen ? 2 : 0))
      }
    }

    private static func checkOutbound(_ one: OutboundCase, _ mesh: Mesh) throws {
      let family = one.family
      if one.speech == .applicationTLS {
        let application = try OpenSSL.applicationServer(
          in: mesh.server, port: 7444, try Identities.web.get())
        let client = try OpenSSL.applicationClient(
          in: mesh.client, to: family.endpoint(family.server, 7444),
          trusting: try Identities.authority.get().bundle)
        #expect(client.exchangesReversed("canary-of-outbound") == one.isServed)
        application.kill()
      } else {
        let echo = try mesh.server.echoServer()
        let outcome = try attempt(
          "canary-of-outbound", from: mesh.client, to: family.server, port: echo.port)
        #expect(outcome == (one.isServed ? .answered : .refused))
        if one.isEncrypted {
          let record = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
          #expect(record.security == "mutual_tls")
          #expect(record["dst.identity"] == Identities.serverID)
        }
      }
    }

    @Test("A proxy on both sides: served or refused, never in the open", arguments: PairCase.all)
    func pair(_ one: PairCase) throws {
      try Mesh.run(
        .standard { plan in
          plan.client?.outboundMode = one.outbound
          if one.outbound != "auto" { plan.client?.peers = [] }
          plan.server?.inboundMode = one.inbound
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let outcome = try attempt(
            "canary-of-pair", from: mesh.client, to: one.family.server, port: echo.port)
          #expect(outcome == (one.isServed ? .answered : .refused))
        }
        if one.isServed {
          #expect(recording.count(of: "canary-of-pair") == (one.isEncrypted ? 0 : 2))
        } else if one.outbound != "disabled" {
          #expect(recording.count(of: "canary-of-pair") == 0)
        }
        let isAnswered = echo.received == Array("canary-of-pair".utf8)
        #expect(isAnswered == one.isServed)
      }
    }
  }
}
