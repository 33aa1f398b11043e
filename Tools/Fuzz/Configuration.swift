import Configuration
import Identity
import Net
import Policy

/// A text is settings or one error of one line, with its place in the text.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(ConfigurationError) {
    let settings = try Settings.parse(yaml: bytes, file: "fuzz", directory: "/etc/culvert")
    let ports = settings.listeners
    precondition(Set([ports.outboundPort, ports.inboundPort, ports.meshPort]).count == 3)
    precondition(settings.adminSocket.hasPrefix("/") && settings.adminSocket.utf8.count <= 107)
    check(settings)
    check(settings.authorization)
  } catch {
    precondition((error.line ?? 0) >= 1 && (error.column ?? 0) >= 1)
    let lines = bytes.count { $0 == 10 || $0 == 13 || $0 == 0x85 || $0 == 0xa8 || $0 == 0xa9 } + 2
    precondition((error.line ?? 0) <= lines, "beyond the text")
    precondition(!error.description.utf8.contains { $0 < 0x20 }, "more than one line")
  }
  return 0
}

/// An ID that is expected has a path, and a bundle unless only its source knows whose there are.
private func check(_ settings: Settings) {
  var domains: Set<TrustDomain>? = []
  switch settings.identity {
  case .files(let files):
    precondition(files.privateKey.hasPrefix("/") && files.certificate.hasPrefix("/"))
    precondition(!settings.trustBundles.isEmpty)
  case .embeddedCA(let source):
    precondition(source.directory.hasPrefix("/") && !source.id.path.isEmpty)
    precondition((60...31_536_000).contains(source.lifetimeSeconds))
    domains?.insert(source.id.trustDomain)
  case .workloadAPI: domains = nil
  }
  for source in settings.trustBundles {
    switch source {
    case .domain(let bundle):
      precondition(bundle.file != nil || bundle.federation != nil)
      precondition(bundle.file?.path.hasPrefix("/") ?? true)
      domains?.insert(bundle.trustDomain)
    case .directory(let path), .bundleMap(let path):
      precondition(path.hasPrefix("/"))
      domains = nil
    case .workloadAPI: domains = nil
    }
  }
  let peers = settings.peers.compactMap { peer in
    if case .mesh(let id) = peer.kind { id } else { nil }
  }
  for id in settings.outbound.rules.flatMap(\.expect) + peers {
    precondition(!id.path.isEmpty && domains?.contains(id.trustDomain) ?? true)
  }
  check(settings.outbound, domains)
  for probe in settings.inbound.probes {
    precondition(!probe.sources.isEmpty && !probe.ports.isEmpty, "every source, or every port")
  }
}

/// A rule says what its action needs, and nothing that would be passed over.
private func check(_ outbound: OutboundPolicy, _ domains: Set<TrustDomain>?) {
  for rule in outbound.rules {
    precondition(!rule.to.isEmpty && (rule.action == .tls) == (rule.origination != nil))
    precondition(rule.serverNames.isEmpty || !rule.ports.isEmpty && rule.action != .tls)
    guard let origination = rule.origination else { continue }
    precondition(ServerName(origination.serverName) != nil)
    precondition(origination.authorities?.hasPrefix("/") ?? true)
    precondition(origination.credential?.privateKey.hasPrefix("/") ?? true)
  }
  precondition(outbound.pins.map { outbound.mode == .auto && $0.ttlSeconds > 0 } ?? true)
  for domain in outbound.expectTrustDomains { precondition(domains?.contains(domain) ?? true) }
}

/// Names differ, and a pattern is what it is written as.
private func check(_ authorization: Authorization) {
  let rules = authorization.rules
  precondition(rules.count <= Authorization.maximumRules)
  precondition(Set(rules.map(\.name)).count == rules.count)
  for rule in rules {
    precondition((1...128).contains(rule.name.utf8.count))
    let fields = [
      rule.principals, rule.notPrincipals, rule.trustDomains, rule.notTrustDomains,
      rule.namespaces, rule.notNamespaces, rule.serviceAccounts, rule.notServiceAccounts,
    ]
    for pattern in fields.joined() { precondition(TextPattern(pattern.description) == pattern) }
    for case .exact(let text) in rule.principals + rule.notPrincipals {
      precondition((try? SPIFFEID(text))?.path.isEmpty == false, "no workload")
    }
    precondition(Set(rule.principals).isDisjoint(with: rule.notPrincipals))
  }
}
