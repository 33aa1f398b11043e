internal import Net

extension Table {
  /// The rules for a plan. Pure.
  package init(_ plan: InterceptionPlan) {
    let builder = RuleBuilder(plan: plan)
    var chains: [Chain] = []
    if plan.interceptsOutbound {
      chains.append(Chain("output", .nat, .output, builder.output))
    }
    if plan.interceptsInbound {
      chains.append(Chain("prerouting", .nat, .prerouting, builder.prerouting))
    }
    if plan.guardsLeaks, plan.interceptsOutbound || plan.interceptsInbound {
      chains.append(Chain("guard-output", .filter, .postrouting, builder.guardOutput))
    }
    if plan.guardsLeaks, plan.interceptsInbound {
      chains.append(Chain("guard-input", .filter, .input, builder.guardInput))
    }
    if plan.blocksUDP {
      chains.append(Chain("udp-output", .filter, .postrouting, builder.udpOutput))
      chains.append(Chain("udp-input", .filter, .input, builder.udpInput))
    }
    self.init(chains: chains)
  }

  /// This table while it is being removed: connections that are redirected stay so (an empty nat
  /// chain keeps the kernel translating them), none begins, and none leaves unredirected.
  package var closing: Table {
    var result = Table()
    for chain in chains where chain.kind == .nat {
      result.chains.append(Chain(chain.name, .nat, chain.hook, []))
    }
    let wouldRedirect = chain(.nat, at: .output)?.rules ?? []
    let blocked = wouldRedirect.map { rule in
      if case .redirect = rule.statement { Rule(rule.matches, .drop) } else { rule }
    }
    result.chains.append(
      Chain(
        "guard-output", .filter, .postrouting,
        [
          Rule(.transport(.tcp, negated: true), .pass),
          Rule(.forwarded, .pass),
          Rule(.flag(.rst), .pass),
          Rule(.replyDirection, .pass),
        ] + blocked))
    return result
  }
}

/// The rules of each chain, in the order the kernel tries them.
private struct RuleBuilder {
  let plan: InterceptionPlan

  var output: [Rule] {
    [
      Rule(.mark(plan.mark), .pass),
      Rule(.loopback(.outgoing), .pass),
    ]
      + interfaces(.outgoing)
      + owners(.pass)
      + olderServed(plan.excludeInboundPorts)
      + outboundDestinations
      + [Rule(.transport(.tcp), .redirect(plan.outboundPort))]
  }

  var prerouting: [Rule] {
    [
      Rule(.loopback(.incoming), .pass),
      Rule(.port(.destination, PortSet([plan.meshPort...plan.meshPort])), .pass),
    ]
      + interfaces(.incoming)
      + olderServed(plan.interceptsOutbound ? plan.excludeOutboundPorts : PortSet())
      + inboundPorts
      + [Rule([.localDestination, .transport(.tcp)], .redirect(plan.inboundPort))]
  }

  /// Postrouting, because in the output hook a redirected packet still shows its old interface.
  /// The last rule names TCP once more: a packet whose protocol the kernel cannot tell (an IPv6
  /// header chain without a next header) passes no match on it, the first rule's included.
  var guardOutput: [Rule] {
    var rules = [
      Rule(.transport(.tcp, negated: true), .pass),
      Rule(.loopback(.outgoing), .pass),
      Rule(.forwarded, .pass),
      Rule(.mark(plan.mark), .pass),
    ]
    if marksConnections { rules.append(Rule(.connectionMark(plan.mark), .pass)) }
    rules += interfaces(.outgoing)
    rules.append(Rule(.flag(.rst), .pass))
    rules += replies
    guard plan.interceptsOutbound else { return rules }
    rules += owners(.markConnection(plan.mark))
    rules += owners(.pass)
    rules += outboundDestinations
    rules.append(Rule(.transport(.tcp), .drop))
    return rules
  }

  var guardInput: [Rule] {
    [
      Rule(.transport(.tcp, negated: true), .pass),
      Rule(.loopback(.incoming), .pass),
    ]
      + plan.excludedInterfaces.map {
        Rule(.interface(.incoming, $0), .markConnection(plan.mark))
      }
      + interfaces(.incoming)
      + [Rule(.port(.destination, proxyPorts), .pass)]
      + olderServed(plan.interceptsOutbound ? plan.excludeOutboundPorts : PortSet())
      + inboundPorts
      + [
        Rule(.flag(.rst), .pass),
        Rule(.replyDirection, .pass),
        Rule(.transport(.tcp), .drop),
      ]
  }

  /// Queries to port 53 and their answers are one connection, told by where it began.
  var udpOutput: [Rule] {
    [
      Rule(.transport(.udp, negated: true), .pass),
      Rule(.loopback(.outgoing), .pass),
      Rule(.forwarded, .pass),
      Rule([.transport(.udp), .originalPort(53)], .pass),
      Rule(.transport(.udp), .drop),
    ]
  }

  var udpInput: [Rule] {
    [
      Rule(.transport(.udp, negated: true), .pass),
      Rule(.loopback(.incoming), .pass),
      Rule([.transport(.udp), .originalPort(53)], .pass),
      Rule(.transport(.udp), .drop),
    ]
  }

  /// What a server here answers. Only the proxy, or an excluded port, may answer anyone outside:
  /// a server that still talks on a connection older than the rules would do so in plaintext.
  private var replies: [Rule] {
    guard plan.interceptsInbound else { return [Rule(.replyDirection, .pass)] }
    var rules = olderServed(plan.excludeInboundPorts)
    rules.append(Rule([.replyDirection, .port(.source, proxyPorts)], .pass))
    if !plan.includeInboundPorts.isEmpty {
      rules.append(
        Rule([.replyDirection, .port(.source, plan.includeInboundPorts, negated: true)], .pass))
    }
    rules.append(Rule(.replyDirection, .drop))
    return rules
  }

  private var proxyPorts: PortSet {
    PortSet([plan.inboundPort...plan.inboundPort, plan.meshPort...plan.meshPort])
  }

  /// Packets from an excluded port that cannot begin a connection. Where connection tracking was
  /// off before the rules, a connection is taken to begin with the first packet seen, and that may
  /// be the server's.
  private func olderServed(_ ports: PortSet) -> [Rule] {
    ports.isEmpty ? [] : [Rule([.port(.source, ports), .flag(.ack)], .pass)]
  }

  private func interfaces(_ way: Match.Way) -> [Rule] {
    plan.excludedInterfaces.map { Rule(.interface(way, $0), .pass) }
  }

  private func owners(_ statement: Statement) -> [Rule] {
    plan.excludedUsers.map { Rule(.user($0), statement) }
      + plan.excludedGroups.map { Rule(.group($0), statement) }
  }

  /// A packet does not always show why its connection is excluded: one of a closed socket has no
  /// owner, an answer may leave by another interface. The connection's mark remembers.
  private var marksConnections: Bool {
    !owners(.pass).isEmpty && plan.interceptsOutbound
      || !plan.excludedInterfaces.isEmpty && plan.interceptsInbound
  }

  private var outboundDestinations: [Rule] {
    var rules: [Rule] = []
    for family in [IPAddress.Family.v4, .v6] {
      let excluded = AddressSet(family, plan.excludeOutboundCIDRs)
      if !excluded.isEmpty { rules.append(Rule(.destination(excluded), .pass)) }
    }
    rules += ports(plan.excludeOutboundPorts, negated: false)
    if !plan.includeOutboundCIDRs.isEmpty {
      for family in [IPAddress.Family.v4, .v6] {
        let included = AddressSet(family, plan.includeOutboundCIDRs)
        rules.append(
          Rule(included.isEmpty ? .family(family) : .destination(included, negated: true), .pass))
      }
    }
    return rules + ports(plan.includeOutboundPorts, negated: true)
  }

  private var inboundPorts: [Rule] {
    ports(plan.excludeInboundPorts, negated: false) + ports(plan.includeInboundPorts, negated: true)
  }

  private func ports(_ set: PortSet, negated: Bool) -> [Rule] {
    set.isEmpty ? [] : [Rule(.port(.destination, set, negated: negated), .pass)]
  }
}
