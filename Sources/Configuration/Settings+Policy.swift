internal import Identity
internal import Net
package import Policy

// `inbound`, `outbound` and `discovery`: what is let in, whom to speak to, and how.

extension InboundPolicy {
  init(_ field: Field) throws(Problem) {
    self.init()
    let fields = try field.fields(["mode", "ports", "probes"])
    if let field = fields["mode"] { mode = try field.choice(InboundMode.self) }
    if let field = fields["probes"] {
      for item in try field.nonEmptyItems() { probes.append(try ProbeDeclaration(item)) }
    }
    guard let ports = fields["ports"] else { return }
    for (key, mark, value) in try ports.entries() {
      guard let port = Field.decimal(key[...]).flatMap(UInt16.init(exactly:)), port > 0 else {
        throw Problem(
          mark, "\(ports.path): expected a port from 1 to 65535, found \(YAMLNode.quote(key))")
      }
      self.ports[port] = try value.choice(InboundMode.self)
    }
  }
}

extension ProbeDeclaration {
  fileprivate init(_ field: Field) throws(Problem) {
    let fields = try field.fields(["sources", "ports"])
    let sources = try fields.required("sources", in: field)
    let ports = try fields.required("ports", in: field)
    _ = try sources.nonEmptyItems()
    _ = try ports.nonEmptyItems()
    self.init(sources: try sources.cidrs(), ports: try ports.ports())
  }
}

extension DiscoverySettings {
  init(_ field: Field) throws(Problem) {
    self.init()
    let fields = try field.fields(["announce", "meshRanges", "probe"])
    if let field = fields["announce"] { announce = try field.choice(Announce.self) }
    if let field = fields["probe"] { probe = try field.choice(Probe.self) }
    if let field = fields["meshRanges"] {
      _ = try field.nonEmptyItems()
      meshRanges = try field.cidrs()
    }
  }
}

extension Settings {
  /// Trust domains that can be proven, if the file says which: nobody else's identity can ever
  /// verify.
  mutating func readOutbound(_ field: Field, directory: String) throws(Problem) {
    let fields = try field.fields([
      "mode", "rules", "peers", "peersFile", "pins", "registryOnly", "expectTrustDomains",
    ])
    let trusted = trustedDomains
    if let field = fields["mode"] { outbound.mode = try field.choice(OutboundMode.self) }
    if let field = fields["rules"] {
      for item in try field.items() {
        outbound.rules.append(try OutboundRule(item, trusted: trusted, directory: directory))
      }
    }
    if let field = fields["peers"] { peers = try Peer.list(field, trusted: trusted) }
    outbound.peers = PeerTable(peers)
    if let field = fields["peersFile"] { peersFile = try field.path(in: directory) }
    if let field = fields["pins"] {
      outbound.pins = try PinSettings(field, directory: directory)
    }
    if let field = fields["registryOnly"] { outbound.isRegistryOnly = try field.boolean() }
    if let field = fields["expectTrustDomains"] {
      outbound.expectTrustDomains = try field.trustDomains(trusted: trusted)
    }
  }
}

extension Field {
  fileprivate func trustDomains(trusted: Set<TrustDomain>?) throws(Problem) -> [TrustDomain] {
    var domains: [TrustDomain] = []
    for item in try nonEmptyItems() {
      let domain = try item.trustDomain()
      guard !domains.contains(domain) else {
        throw item.problem("\(YAMLNode.quote(domain.name)) is already in the list")
      }
      guard trusted?.contains(domain) ?? true else {
        throw item.problem(
          "no bundle in workload.trustBundles for trust domain \(YAMLNode.quote(domain.name))")
      }
      domains.append(domain)
    }
    return domains
  }
}

extension PinSettings {
  fileprivate init(_ field: Field, directory: String) throws(Problem) {
    let fields = try field.fields(["ttlSeconds", "file"])
    self.init(
      ttlSeconds: try fields.required("ttlSeconds", in: field).integer(1...31_536_000),
      file: try fields["file"]?.path(in: directory))
  }
}

// MARK: - Peers

extension Peer {
  /// `trusted`: see `Field.workloadID`.
  static func list(_ field: Field, trusted: Set<TrustDomain>?) throws(Problem) -> [Peer] {
    var peers: [Peer] = []
    var seen: Set<CIDR> = []
    for item in try field.items() {
      let fields = try item.fields(["address", "identity", "mesh"])
      let address = try fields.required("address", in: item)
      let range = try address.cidr()
      guard seen.insert(range).inserted else {
        throw address.problem("\"\(range)\" already has an entry")
      }
      peers.append(Peer(address: range, kind: try Kind(item, fields, trusted: trusted)))
    }
    return peers
  }
}

extension Peer.Kind {
  fileprivate init(
    _ item: Field, _ fields: [String: Field], trusted: Set<TrustDomain>?
  ) throws(Problem) {
    let isMesh = try fields["mesh"]?.boolean()
    guard let identity = fields["identity"] else {
      guard let isMesh else { throw item.problem("missing field \"identity\" or \"mesh\"") }
      self = isMesh ? .mesh(nil) : .notMesh
      return
    }
    guard isMesh ?? true else {
      throw identity.problem("goes with a mesh workload only, and \"mesh\" is false here")
    }
    self = .mesh(try identity.workloadID(trusted: trusted))
  }
}

/// `outbound.peersFile`: more entries of `outbound.peers`, in a file of their own.
package enum PeersFile {
  /// Reads and validates a file whose only field is `peers`.
  ///
  /// - Parameter settings: of the configuration that names it. A range that has an entry there is
  ///   refused here.
  package static func load(
    path: String, for settings: Settings
  ) throws(ConfigurationError) -> [Peer] {
    try parse(yaml: Settings.read(path).bytes, file: path, for: settings)
  }

  /// Validates a text. Pure.
  package static func parse(
    yaml: [UInt8], file: String, for settings: Settings
  ) throws(ConfigurationError) -> [Peer] {
    do throws(Problem) {
      let root = Field(path: "", node: try YAMLReader.read(yaml))
      let list = try root.fields(["peers"]).required("peers", in: root)
      let peers = try Peer.list(list, trusted: settings.trustedDomains)
      let known = Set(settings.peers.map(\.address))
      for (item, peer) in zip(try list.items(), peers) where known.contains(peer.address) {
        throw item.problem("\"\(peer.address)\" already has an entry in the configuration")
      }
      return peers
    } catch {
      throw ConfigurationError(
        file: file, line: error.mark.line, column: error.mark.column, message: error.message)
    }
  }
}

// MARK: - Rules

extension OutboundRule {
  fileprivate init(
    _ field: Field, trusted: Set<TrustDomain>?, directory: String
  ) throws(Problem) {
    let fields = try field.fields(["to", "ports", "sni", "action", "expect", "tls"])
    let action = try fields.required("action", in: field).choice(OutboundAction.self)
    self.init(
      to: try Self.ranges(field, fields), ports: try Self.ports(field, fields),
      serverNames: try fields["sni"]?.serverNames() ?? [], action: action)
    if let list = fields["expect"] {
      guard action == .mtls else {
        throw list.problem("goes with action mtls only, the action here is \(action.rawValue)")
      }
      for item in try list.nonEmptyItems() {
        expect.append(try item.workloadID(trusted: trusted))
      }
    }
    if let sni = fields["sni"], action == .tls {
      throw sni.problem("with action tls the application speaks no TLS of its own to look into")
    }
    if let tls = fields["tls"] {
      guard action == .tls else {
        throw tls.problem("goes with action tls only, the action here is \(action.rawValue)")
      }
      origination = try TLSOrigination(tls, directory: directory)
    } else if action == .tls {
      throw field.problem("missing field \"tls\", which says whom the server must prove to be")
    }
  }

  private static func ranges(
    _ field: Field, _ fields: [String: Field]
  ) throws(Problem) -> [CIDR] {
    guard let to = fields["to"] else {
      guard fields["sni"] != nil else { throw field.problem("missing field \"to\"") }
      return [.allV4, .allV6]
    }
    // An empty list would match nothing here, and every port below.
    _ = try to.nonEmptyItems()
    return try to.cidrs()
  }

  private static func ports(
    _ field: Field, _ fields: [String: Field]
  ) throws(Problem) -> PortSet {
    guard let ports = fields["ports"] else {
      guard let sni = fields["sni"] else { return PortSet() }
      throw sni.problem(
        "needs \"ports\": on a port where servers speak first, waiting for a server name would "
          + "hang every connection")
    }
    _ = try ports.nonEmptyItems()
    return try ports.ports()
  }
}

extension Field {
  fileprivate func serverNames() throws(Problem) -> [ServerNamePattern] {
    var patterns: [ServerNamePattern] = []
    for item in try nonEmptyItems() {
      let text = try item.text()
      guard let pattern = ServerNamePattern(text) else {
        throw item.problem(
          "\(YAMLNode.quote(text)) is no server name such as api.example.com or *.example.com")
      }
      guard !patterns.contains(pattern) else {
        throw item.problem("\(YAMLNode.quote(text)) is already in the list")
      }
      patterns.append(pattern)
    }
    return patterns
  }
}

extension TLSOrigination {
  fileprivate init(_ field: Field, directory: String) throws(Problem) {
    let fields = try field.fields([
      "serverName", "ca", "certificate", "privateKey", "missingCloseNotify",
    ])
    let name = try fields.required("serverName", in: field)
    let serverName = try name.text()
    guard ServerName(serverName) != nil else {
      throw name.problem("\(YAMLNode.quote(serverName)) is neither a DNS name nor an IP address")
    }
    self.init(serverName: serverName)
    authorities = try fields["ca"]?.path(in: directory)
    if let field = fields["missingCloseNotify"] {
      missingCloseNotify = try field.choice(MissingCloseNotify.self)
    }
    switch (fields["certificate"], fields["privateKey"]) {
    case (let certificate?, let privateKey?):
      credential = Credential(
        certificate: try certificate.path(in: directory),
        privateKey: try privateKey.path(in: directory))
    case (nil, nil): break
    case (let only?, nil), (nil, let only?):
      throw only.problem("\"certificate\" and \"privateKey\" go together")
    }
  }
}
