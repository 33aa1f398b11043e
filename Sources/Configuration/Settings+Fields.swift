internal import Identity
internal import Net
internal import Policy

extension Settings {
  init(_ root: Field, directory: String) throws(Problem) {
    let fields = try root.fields([
      "workload", "listeners", "inbound", "outbound", "discovery", "authorization",
      "interception", "limits", "dataPlane", "workers", "admin",
    ])
    try self.init(workload: fields.required("workload", in: root), directory: directory)
    if let field = fields["listeners"] { listeners = try ListenerPorts(field) }
    if let field = fields["inbound"] { inbound = try InboundPolicy(field) }
    if let field = fields["outbound"] { try readOutbound(field, directory: directory) }
    if let field = fields["discovery"] { discovery = try DiscoverySettings(field) }
    if let field = fields["authorization"] {
      authorization = try Authorization(field, trusted: trustedDomains)
    }
    if let field = fields["interception"] { interception = try Interception(field) }
    if let field = fields["limits"] { limits = try Limits(field) }
    if let field = fields["dataPlane"] { dataPlane = try DataPlaneSettings(field) }
    if let field = fields["workers"] { workers = try field.integer(Self.workersRange) }
    if let field = fields["admin"] { adminSocket = try Self.adminSocket(field) }
  }

  private static let workersRange = 1...1024
  /// `sun_path` has 108 bytes, one of them for the terminating zero (unix(7)).
  private static let socketPathMaximumBytes = 107

  private static func adminSocket(_ field: Field) throws(Problem) -> String {
    let fields = try field.fields(["socket"])
    let socket = try fields.required("socket", in: field)
    let path = try socket.text()
    guard path.hasPrefix("/") else { throw socket.expected("an absolute path") }
    guard path.utf8.count <= socketPathMaximumBytes else {
      throw socket.problem("longer than \(socketPathMaximumBytes) bytes")
    }
    return path
  }
}

extension ListenerPorts {
  fileprivate init(_ field: Field) throws(Problem) {
    self.init()
    let fields = try field.fields(["outboundPort", "inboundPort", "meshPort"])
    if let field = fields["outboundPort"] { outboundPort = try field.port() }
    if let field = fields["inboundPort"] { inboundPort = try field.port() }
    if let field = fields["meshPort"] { meshPort = try field.port() }
    guard Set([outboundPort, inboundPort, meshPort]).count == 3 else {
      throw field.problem(
        "the ports must differ: outboundPort \(outboundPort), inboundPort \(inboundPort),"
          + " meshPort \(meshPort)")
    }
  }
}

extension Interception {
  fileprivate init(_ field: Field) throws(Problem) {
    self.init()
    let fields = try field.fields([
      "includeInboundPorts", "excludeInboundPorts", "includeOutboundPorts", "excludeOutboundPorts",
      "includeOutboundCIDRs", "excludeOutboundCIDRs", "mark",
    ])
    includeInboundPorts = try fields["includeInboundPorts"]?.ports() ?? PortSet()
    excludeInboundPorts = try fields["excludeInboundPorts"]?.ports() ?? PortSet()
    includeOutboundPorts = try fields["includeOutboundPorts"]?.ports() ?? PortSet()
    excludeOutboundPorts = try fields["excludeOutboundPorts"]?.ports() ?? PortSet()
    includeOutboundCIDRs = try fields["includeOutboundCIDRs"]?.cidrs() ?? []
    excludeOutboundCIDRs = try fields["excludeOutboundCIDRs"]?.cidrs() ?? []
    if let field = fields["mark"] { mark = UInt16(try field.integer(1...Int(UInt16.max))) }
  }
}

extension Limits {
  /// Docs/CONFIGURATION.md lists the same ranges.
  fileprivate init(_ field: Field) throws(Problem) {
    self.init()
    let fields = try field.fields([
      "maximumConnections", "handshakeTimeoutMilliseconds", "connectTimeoutMilliseconds",
      "halfCloseTimeoutMilliseconds", "drainTimeoutMilliseconds", "sniffMemoryMaximumBytes",
    ])
    func set(
      _ limit: inout Int, _ key: String, _ range: ClosedRange<Int>
    ) throws(Problem) {
      if let field = fields[key] { limit = try field.integer(range) }
    }
    try set(&maximumConnections, "maximumConnections", 1...1_000_000)
    try set(&handshakeTimeoutMilliseconds, "handshakeTimeoutMilliseconds", 10...600_000)
    try set(&connectTimeoutMilliseconds, "connectTimeoutMilliseconds", 10...600_000)
    try set(&halfCloseTimeoutMilliseconds, "halfCloseTimeoutMilliseconds", 10...604_800_000)
    try set(&drainTimeoutMilliseconds, "drainTimeoutMilliseconds", 0...3_600_000)
    // At least one hello of the largest size.
    try set(&sniffMemoryMaximumBytes, "sniffMemoryMaximumBytes", 262_144...1_073_741_824)
  }
}

extension DataPlaneSettings {
  fileprivate init(_ field: Field) throws(Problem) {
    self.init()
    let fields = try field.fields(["kernelTLS", "kernelTLSAfterBytes", "keyUpdateAfterRecords"])
    if let field = fields["kernelTLS"] { kernelTLS = try field.choice(KernelTLSMode.self) }
    if let field = fields["kernelTLSAfterBytes"] {
      kernelTLSAfterBytes = try field.integer(0...1 << 40)
    }
    if let field = fields["keyUpdateAfterRecords"] {
      keyUpdateAfterRecords = try field.integer(64...1 << 24)
    }
  }
}

// MARK: - Values with a meaning

extension Field {
  /// PATH_MAX of Linux, without its terminating zero.
  private static let pathMaximumBytes = 4095

  /// A path, absolute or resolved against `directory`.
  func path(in directory: String) throws(Problem) -> String {
    let text = try text()
    let separator = directory.hasSuffix("/") ? "" : "/"
    let path = text.hasPrefix("/") ? text : directory + separator + text
    guard path.utf8.count <= Self.pathMaximumBytes else {
      throw problem("longer than \(Self.pathMaximumBytes) bytes")
    }
    return path
  }

  func trustDomain() throws(Problem) -> TrustDomain {
    let text = try text()
    do throws(SPIFFEIDError) {
      return try TrustDomain(text)
    } catch {
      throw problem("\(YAMLNode.quote(text)) is not a trust domain: \(error.rawValue)")
    }
  }

  /// The SPIFFE ID of a workload (it has a path) whose trust domain has a bundle.
  func workloadID(trusted: Set<TrustDomain>?) throws(Problem) -> SPIFFEID {
    let text = try text()
    let id: SPIFFEID
    do throws(SPIFFEIDError) {
      id = try SPIFFEID(text)
    } catch {
      throw problem("\(YAMLNode.quote(text)) is not a SPIFFE ID: \(error.rawValue)")
    }
    guard !id.path.isEmpty else {
      throw problem("\(YAMLNode.quote(text)) names a trust domain, not a workload: it has no path")
    }
    try requireBundle(of: id.trustDomain, trusted)
    return id
  }

  func requireBundle(of domain: TrustDomain, _ trusted: Set<TrustDomain>?) throws(Problem) {
    guard trusted?.contains(domain) ?? true else {
      throw problem(
        "no bundle in workload.trustBundles for trust domain \(YAMLNode.quote(domain.name))")
    }
  }
}
