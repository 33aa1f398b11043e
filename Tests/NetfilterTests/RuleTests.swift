import Configuration
import Identity
import Net
import Policy
import Testing

@testable import Netfilter
@testable import culvert_init

@Suite struct RuleTests {
  static func full() throws -> InterceptionPlan {
    var plan = InterceptionPlan()
    plan.includeInboundPorts = try #require(PortSet("8080,9000-9099"))
    plan.excludeInboundPorts = try #require(PortSet("22"))
    plan.includeOutboundPorts = try #require(PortSet("80-90"))
    plan.excludeOutboundPorts = try #require(PortSet("85"))
    plan.includeOutboundCIDRs = [try #require(CIDR("10.0.0.0/8"))]
    plan.excludeOutboundCIDRs = [
      try #require(CIDR("10.1.0.0/16")), try #require(CIDR("fd00::/8")),
    ]
    plan.excludedUsers = [1000]
    plan.excludedGroups = [7]
    plan.excludedInterfaces = ["eth1"]
    plan.blocksUDP = true
    return plan
  }

  @Test func `every rule decodes to itself`() throws {
    for rule in Table(try Self.full()).chains.flatMap(\.rules) {
      #expect(Rule(Expression.list(rule)) == rule)
    }
  }

  @Test func `a rule with one step changed does not decode to itself`() throws {
    for rule in Table(try Self.full()).chains.flatMap(\.rules) {
      let steps = Expression.list(rule)
      for index in steps.indices {
        var changed = steps
        changed[index] = .unknown("counter")
        #expect(Rule(changed) == nil)
        changed.remove(at: index)
        #expect(Rule(changed) != rule)
      }
    }
  }

  @Test func `nothing but garbage decodes to nothing`() {
    #expect(Rule([]) == nil)
    #expect(Rule([.meta(0)]) == nil)
    #expect(Rule([.meta(3), .compare([], negated: false), .verdict(0)]) == nil)
    #expect(Rule([.load([]), .redirect]) == nil)
  }

  @Test func `an exclusion wins over an inclusion, and what is not included is excluded`() throws {
    let table = Table(try Self.full())
    func port(_ address: String, _ port: UInt16, user: UInt32 = 0, mark: UInt32 = 0) throws
      -> UInt16?
    {
      table.redirection(
        of: Flow(
          .outgoing, destination: try #require(IPAddress(address)), destinationPort: port,
          mark: mark, user: user, interface: "eth0"))
    }
    #expect(try port("10.2.0.1", 80) == 15001)
    #expect(try port("10.1.0.1", 80) == nil)
    #expect(try port("11.0.0.1", 80) == nil)
    #expect(try port("2001:db8::1", 80) == nil)
    #expect(try port("10.2.0.1", 85) == nil)
    #expect(try port("10.2.0.1", 91) == nil)
    #expect(try port("10.2.0.1", 80, user: 1000) == nil)
    #expect(try port("10.2.0.1", 80, mark: 0xc17) == nil)
    #expect(try port("10.2.0.1", 80, mark: 0x3_0c17) == nil)
    #expect(try port("10.2.0.1", 80, mark: 0x1c17) == 15001)
  }

  @Test func `a v4-mapped address stands for the IPv4 address`() throws {
    var plan = InterceptionPlan()
    plan.excludeOutboundCIDRs = [try #require(CIDR("::ffff:10.0.0.1"))]
    let flow = Flow(
      .outgoing, destination: try #require(IPAddress("10.0.0.1")), destinationPort: 1)
    #expect(Table(plan).redirection(of: flow) == nil)
  }

  @Test func `ranges merge and split as nft prints them`() throws {
    func text(_ list: String...) throws -> String {
      AddressSet(.v4, try list.map { try #require(CIDR($0)) }).description
    }
    #expect(try text("10.0.0.0/9", "10.128.0.0/9") == "10.0.0.0/8")
    #expect(try text("10.0.0.0/24", "10.0.2.0/24", "10.0.1.0/24") == "10.0.0.0-10.0.2.255")
    #expect(try text("255.255.255.255", "0.0.0.0/0") == "0.0.0.0/0")
    #expect(AddressSet(.v6, [try #require(CIDR("::/0"))]).description == "::/0")
  }

  @Test func `while rules are removed nothing is redirected and nothing leaves`() throws {
    let closing = Table(InterceptionPlan()).closing
    #expect(closing.redirectPorts.isEmpty)
    #expect(closing.chain(.nat, at: .output) != nil)
    #expect(closing.chain(.filter, at: .postrouting)?.rules.last?.statement == .drop)
  }

  @Test func `the table reads as JSON`() throws {
    var plan = InterceptionPlan()
    plan.excludedInterfaces = ["eth1"]
    let json = Table(plan).json
    #expect(json.contains(#""oifname \"eth1\" return""#))
    #expect(json.contains(#""priority": -100"#))
  }
}

@Suite struct SettingsTests {
  static func settings() throws -> Settings {
    Settings(
      identity: .files(IdentityFiles(certificate: "/c", privateKey: "/k")), trustBundles: [])
  }

  @Test func `ports and lists come from the settings`() throws {
    var settings = try Self.settings()
    settings.listeners.outboundPort = 1
    settings.listeners.inboundPort = 2
    settings.listeners.meshPort = 3
    settings.interception.excludeOutboundPorts = try #require(PortSet("53"))
    settings.interception.includeOutboundCIDRs = [try #require(CIDR("10.0.0.0/8"))]
    let plan = InterceptionPlan(settings)
    #expect([plan.outboundPort, plan.inboundPort, plan.meshPort] == [1, 2, 3])
    #expect(plan.excludeOutboundPorts.contains(53))
    #expect(plan.includeOutboundCIDRs == settings.interception.includeOutboundCIDRs)
    #expect(plan.interceptsInbound && plan.interceptsOutbound)
  }

  @Test func `a port whose mode is disabled is excluded`() throws {
    var settings = try Self.settings()
    settings.inbound.ports = [8080: .strict, 9090: .disabled]
    let plan = InterceptionPlan(settings)
    #expect(plan.excludeInboundPorts == PortSet("9090"))
    #expect(plan.includeInboundPorts.isEmpty)
  }

  @Test func `where inbound is disabled only ports with another mode are intercepted`() throws {
    var settings = try Self.settings()
    settings.inbound = InboundPolicy(mode: .disabled, ports: [8080: .strict, 9090: .disabled])
    #expect(InterceptionPlan(settings).includeInboundPorts == PortSet("8080"))
    settings.inbound.ports = [:]
    let plan = InterceptionPlan(settings)
    #expect(!plan.interceptsInbound)
    #expect(Table(plan).chain(.nat, at: .prerouting) == nil)
  }

  @Test func `outbound without mode, rules and peers is not intercepted`() throws {
    var settings = try Self.settings()
    settings.outbound.mode = .disabled
    #expect(!InterceptionPlan(settings).interceptsOutbound)
    settings.outbound.rules = [
      OutboundRule(to: [try #require(CIDR("10.0.0.1"))], action: .deny)
    ]
    #expect(InterceptionPlan(settings).interceptsOutbound)
  }
}
