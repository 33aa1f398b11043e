import ArgumentParser
import Configuration
import Net
import Netfilter
import Policy

/// The options that say what is intercepted.
struct PlanOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Take ports, ranges and modes from the proxy's configuration. Options given beside it win: "
        + "ports replace the file's, lists are added to them.", valueName: "file"))
  var config: String?

  @Option(help: "Where the proxy takes outbound connections (default: 15001).")
  var outboundPort: UInt16?
  @Option(help: "Where the proxy takes inbound connections (default: 15006).")
  var inboundPort: UInt16?
  @Option(help: "Where the proxy takes mesh connections; never redirected (default: 15008).")
  var meshPort: UInt16?

  @Option(
    help: ArgumentHelp(
      "Intercept these inbound ports only, such as 80,8000-8099.", valueName: "ports"))
  var includeInboundPorts: [String] = []
  @Option(help: ArgumentHelp("Leave these inbound ports alone.", valueName: "ports"))
  var excludeInboundPorts: [String] = []
  @Option(help: ArgumentHelp("Intercept these destination ports only.", valueName: "ports"))
  var includeOutboundPorts: [String] = []
  @Option(help: ArgumentHelp("Leave these destination ports alone.", valueName: "ports"))
  var excludeOutboundPorts: [String] = []
  @Option(
    help: ArgumentHelp(
      "Intercept these destinations only, such as 10.0.0.0/8,fd00::/8.", valueName: "cidrs"))
  var includeOutboundCidrs: [String] = []
  @Option(help: ArgumentHelp("Leave these destinations alone.", valueName: "cidrs"))
  var excludeOutboundCidrs: [String] = []

  @Option(
    help: ArgumentHelp(
      "Leave outbound connections of these users alone, by number.", valueName: "uids"))
  var excludeUids: [String] = []
  @Option(
    help: ArgumentHelp(
      "Leave outbound connections of these groups alone, by number.", valueName: "gids"))
  var excludeGids: [String] = []
  @Option(
    help: ArgumentHelp(
      "Leave traffic by these interfaces alone, in both directions.", valueName: "names"))
  var excludeInterfaces: [String] = []

  @Option(
    help: "The low 16 bits of the packet mark on the proxy's own sockets (default: 0xc17).")
  var mark: String?
  @Flag(help: "Do not drop what should have been intercepted and was not.")
  var noGuard = false
  @Flag(help: "Drop UDP in both directions, except to port 53 and on lo.")
  var blockUdp = false

  /// The plan of the configuration file, if one is named, and of the options beside it.
  func plan() throws -> InterceptionPlan {
    var plan = InterceptionPlan()
    if let config { plan = InterceptionPlan(try Settings.load(path: config)) }
    if let outboundPort { plan.outboundPort = outboundPort }
    if let inboundPort { plan.inboundPort = inboundPort }
    if let meshPort { plan.meshPort = meshPort }
    try addLists(to: &plan)
    if let mark { plan.mark = try Self.mark(mark) }
    plan.guardsLeaks = !noGuard
    plan.blocksUDP = blockUdp
    let ports = [plan.outboundPort, plan.inboundPort, plan.meshPort]
    guard !ports.contains(0), Set(ports).count == 3 else {
      throw OptionError("the outbound, inbound and mesh ports must be three different ports from 1")
    }
    return plan
  }

  private func addLists(to plan: inout InterceptionPlan) throws {
    let inbound = try Self.ports("--include-inbound-ports", includeInboundPorts)
    // Naming a port turns interception on where the file's modes had left nothing to intercept.
    if !inbound.isEmpty, !plan.interceptsInbound { plan.interceptsInbound = true }
    plan.includeInboundPorts = plan.includeInboundPorts.union(inbound)
    plan.excludeInboundPorts = plan.excludeInboundPorts.union(
      try Self.ports("--exclude-inbound-ports", excludeInboundPorts))
    plan.includeOutboundPorts = plan.includeOutboundPorts.union(
      try Self.ports("--include-outbound-ports", includeOutboundPorts))
    plan.excludeOutboundPorts = plan.excludeOutboundPorts.union(
      try Self.ports("--exclude-outbound-ports", excludeOutboundPorts))
    plan.includeOutboundCIDRs += try Self.cidrs("--include-outbound-cidrs", includeOutboundCidrs)
    plan.excludeOutboundCIDRs += try Self.cidrs("--exclude-outbound-cidrs", excludeOutboundCidrs)
    plan.excludedUsers += try Self.numbers("--exclude-uids", excludeUids)
    plan.excludedGroups += try Self.numbers("--exclude-gids", excludeGids)
    plan.excludedInterfaces += try Self.list(
      "--exclude-interfaces", excludeInterfaces, "an interface name of 1 to 15 characters"
    ) { InterceptionPlan.isInterfaceName($0) ? $0 : nil }
  }

  /// Reads the comma-separated items of an option that may be given several times; the same item
  /// twice counts once.
  private static func list<Item: Hashable>(
    _ option: String, _ values: [String], _ expected: String, _ read: (String) -> Item?
  ) throws -> [Item] {
    var result: [Item] = []
    for value in values {
      for item in value.split(separator: ",", omittingEmptySubsequences: false) {
        guard let item = read(String(item)) else {
          throw OptionError("\(option): \"\(printable(item))\" is not \(expected)")
        }
        if !result.contains(item) { result.append(item) }
      }
    }
    return result
  }

  /// What the user gave, on one line.
  private static func printable(_ item: Substring) -> String {
    String(
      String.UnicodeScalarView(item.unicodeScalars.map { $0.value < 0x20 ? "?" : $0 }).prefix(60))
  }

  private static func ports(_ option: String, _ values: [String]) throws -> PortSet {
    let sets = try list(option, values, "a port (1-65535) or a range such as 8000-8099") {
      PortSet($0)
    }
    return sets.reduce(PortSet()) { $0.union($1) }
  }

  private static func cidrs(_ option: String, _ values: [String]) throws -> [CIDR] {
    try list(
      option, values,
      "an address or a range such as 10.0.0.0/8 or fd00::/8, with no bits beyond its prefix"
    ) { CIDR($0) }
  }

  private static func numbers(_ option: String, _ values: [String]) throws -> [UInt32] {
    try list(option, values, "a number from 0 to 4294967294") { text in
      guard text.utf8.allSatisfy({ (48...57).contains($0) }), let number = UInt32(text),
        number < .max
      else { return nil }
      return number
    }
  }

  private static func mark(_ text: String) throws -> UInt16 {
    let isHexadecimal = text.hasPrefix("0x")
    let digits = isHexadecimal ? text.dropFirst(2) : text[...]
    guard digits.utf8.first.map({ $0 != UInt8(ascii: "+") }) == true,
      let mark = UInt16(digits, radix: isHexadecimal ? 16 : 10), mark > 0
    else {
      throw OptionError("--mark: \"\(printable(text[...]))\" is not a number from 1 to 0xffff")
    }
    return mark
  }
}

/// A wrong option; the text is one line.
struct OptionError: Error, CustomStringConvertible {
  let description: String
  init(_ description: String) { self.description = description }
}

extension InterceptionPlan {
  /// What the proxy's configuration asks for: a port whose mode is `disabled` is excluded; where
  /// the whole direction is, only what is named otherwise is intercepted.
  init(_ settings: Settings) {
    self.init()
    outboundPort = settings.listeners.outboundPort
    inboundPort = settings.listeners.inboundPort
    meshPort = settings.listeners.meshPort
    let interception = settings.interception
    includeInboundPorts = interception.includeInboundPorts
    excludeInboundPorts = interception.excludeInboundPorts
    includeOutboundPorts = interception.includeOutboundPorts
    excludeOutboundPorts = interception.excludeOutboundPorts
    includeOutboundCIDRs = interception.includeOutboundCIDRs
    excludeOutboundCIDRs = interception.excludeOutboundCIDRs
    mark = interception.mark

    let modes = settings.inbound.ports
    func ports(_ isWanted: (UInt16) -> Bool) -> PortSet {
      PortSet(modes.keys.filter(isWanted).map { $0...$0 })
    }
    excludeInboundPorts = excludeInboundPorts.union(ports { modes[$0] == .disabled })
    // The proxy serves it itself, to whoever asks.
    if let port = settings.bundleEndpoint?.address.port {
      excludeInboundPorts = excludeInboundPorts.union(PortSet([port...port]))
    }
    if settings.inbound.mode == .disabled {
      let enabled = ports { modes[$0] != .disabled }
      interceptsInbound = !enabled.isEmpty
      includeInboundPorts = enabled
    }
    let outbound = settings.outbound
    interceptsOutbound =
      outbound.mode != .disabled || outbound.isRegistryOnly || !outbound.rules.isEmpty
      || !settings.peers.isEmpty || settings.peersFile != nil
  }
}
