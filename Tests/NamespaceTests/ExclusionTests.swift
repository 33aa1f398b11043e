import TestSupport
import Testing

/// One way to keep outbound traffic to some destinations away from the proxy.
struct OutboundExclusion: Sendable, CustomTestStringConvertible {
  let testDescription: String
  var configuration: [String: String] = [:]
  var options: [String] = []
  /// Served without the proxy: address (nil: the server's first) and port.
  var excluded: @Sendable (Family) -> (String, UInt16) = { ($0.server, 7001) }
  var intercepted: @Sendable (Family) -> (String, UInt16) = { ($0.server, 7000) }

  private static let otherServers = "10.90.0.20/32,fd90::20/128"
  private static let firstServers = "10.90.0.2/32,fd90::2/128"

  static let all: [OutboundExclusion] = [
    Self(
      testDescription: "excludeOutboundPorts",
      configuration: ["excludeOutboundPorts": "[7001, 7100-7200]"]),
    Self(
      testDescription: "excludeOutboundPorts, a range",
      configuration: ["excludeOutboundPorts": "[7100-7200]"], excluded: { ($0.server, 7150) }),
    Self(
      testDescription: "includeOutboundPorts",
      configuration: ["includeOutboundPorts": "[7000]"]),
    Self(
      testDescription: "excludeOutboundCIDRs",
      configuration: ["excludeOutboundCIDRs": "[10.90.0.20/32, \"fd90::20/128\"]"],
      excluded: { ($0.otherServer, 7000) }),
    Self(
      testDescription: "includeOutboundCIDRs",
      configuration: ["includeOutboundCIDRs": "[10.90.0.2/32, \"fd90::2/128\"]"],
      excluded: { ($0.otherServer, 7000) }),
    Self(
      testDescription: "--exclude-outbound-ports", options: ["--exclude-outbound-ports", "7001"]),
    Self(
      testDescription: "--include-outbound-ports", options: ["--include-outbound-ports", "7000"]),
    Self(
      testDescription: "--exclude-outbound-cidrs",
      options: ["--exclude-outbound-cidrs", otherServers], excluded: { ($0.otherServer, 7000) }),
    Self(
      testDescription: "--include-outbound-cidrs",
      options: ["--include-outbound-cidrs", firstServers], excluded: { ($0.otherServer, 7000) }),
  ]
}

/// One way to keep inbound traffic to some ports away from the proxy.
struct InboundExclusion: Sendable, CustomTestStringConvertible {
  let testDescription: String
  var configuration: [String: String] = [:]
  var options: [String] = []

  /// Each excludes port 7001 and leaves port 7000 to the proxy.
  static let all: [InboundExclusion] = [
    Self(
      testDescription: "excludeInboundPorts",
      configuration: ["excludeInboundPorts": "[7001-7010]"]),
    Self(
      testDescription: "includeInboundPorts", configuration: ["includeInboundPorts": "[7000]"]),
    Self(
      testDescription: "--exclude-inbound-ports",
      options: ["--exclude-inbound-ports", "7001-7010"]),
    Self(
      testDescription: "--include-inbound-ports", options: ["--include-inbound-ports", "7000"]),
  ]
}

extension InNamespaces {
  @Suite("Exclusions")
  struct Exclusions {
    @Test(
      "Outbound: what is excluded goes out untouched, the rest through the proxy",
      arguments: OutboundExclusion.all, Family.allCases)
    func outbound(_ exclusion: OutboundExclusion, family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundRules = ["{ to: [0.0.0.0/0, \"::/0\"], action: deny }"]
          plan.client?.interception = exclusion.configuration
          plan.clientRules = exclusion.options
        }
      ) { mesh in
        let (excluded, intercepted) = (exclusion.excluded(family), exclusion.intercepted(family))
        let ports = Set([excluded.1, intercepted.1])
        let servers = try ports.map { try mesh.server.echoServer(port: $0) }
        let direct = try attempt("hello", from: mesh.client, to: excluded.0, port: excluded.1)
        #expect(direct == .answered)
        let denied = try attempt("hello", from: mesh.client, to: intercepted.0, port: intercepted.1)
        #expect(denied == .refused)
        #expect(servers.map(\.accepted).reduce(0, +) == 1)
        try #require(mesh.clientProxy).waitForRefusal("denied_by_rule")
      }
    }

    @Test(
      "Inbound: what is excluded comes in untouched, the rest through the proxy",
      arguments: InboundExclusion.all, Family.allCases)
    func inbound(_ exclusion: InboundExclusion, family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          plan.server?.inboundMode = "strict"
          plan.server?.interception = exclusion.configuration
          plan.serverRules = exclusion.options
        }
      ) { mesh in
        for (expected, port) in [(Attempt.answered, UInt16(7001)), (.refused, 7000)] {
          let echo = try mesh.server.echoServer(port: port)
          let outcome = try attempt("hello", from: mesh.client, to: family.server, port: port)
          #expect(outcome == expected, "port \(port)")
          #expect(echo.accepted == (expected == .answered ? 1 : 0))
        }
      }
    }

    @Test(
      "A user or a group can be excluded", arguments: ["--exclude-uids", "--exclude-gids"],
      Family.allCases)
    func users(option: String, family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.peers = []
          plan.client?.outboundRules = ["{ to: [0.0.0.0/0, \"::/0\"], action: deny }"]
          plan.clientRules = [option, "54321"]
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        #expect(try Self.echo(as: 54321, in: mesh.client, to: family.server, port: echo.port))
        #expect(try !Self.echo(as: 54322, in: mesh.client, to: family.server, port: echo.port))
        #expect(echo.accepted == 1)
      }
    }

    /// Bash connects by itself, as another user and group.
    private static func echo(
      as user: Int, in namespace: Namespace, to address: String, port: UInt16
    ) throws -> Bool {
      let script =
        "exec 3<>/dev/tcp/\(address)/\(port); echo hello >&3; read -r line <&3; echo $line"
      let outcome = try namespace.run([
        "setpriv", "--reuid", "\(user)", "--regid", "\(user)", "--clear-groups", "bash", "-c",
        script,
      ])
      return outcome.output == "hello\n" || outcome.output.hasPrefix("hello")
    }

    @Test("An interface can be excluded", arguments: Family.allCases)
    func interfaces(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.client = nil
          plan.hasOutsider = true
          plan.server?.inboundMode = "strict"
          plan.serverRules = ["--exclude-interfaces", "eth1"]
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let outsider = try #require(mesh.outsider)
        #expect(
          try attempt("hello", from: outsider, to: family.serverForOutsider, port: echo.port)
            == .answered)
        #expect(
          try attempt("hello", from: mesh.client, to: family.server, port: echo.port) == .refused)
      }
    }
  }
}
