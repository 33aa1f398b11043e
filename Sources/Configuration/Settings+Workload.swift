package import Identity
internal import Net
internal import Policy

// `workload`: who this is, and whom it believes.
extension Settings {
  init(workload: Field, directory: String) throws(Problem) {
    let fields = try workload.fields([
      "identity", "trustBundles", "connectionLifetime", "bundleEndpoint", "holdUntilReady",
    ])
    let identity = try fields.required("identity", in: workload)
    let parts = try identity.fields([
      "files", "workloadAPI", "embeddedCA", "startupDeadlineMilliseconds",
    ])
    let source = try IdentitySource(identity, parts, directory: directory)
    var bundles: [TrustBundleSource] = []
    if let field = fields["trustBundles"] {
      bundles = try TrustBundleSource.list(field, source, directory: directory)
    } else if case .files = source {
      throw workload.problem("missing field \"trustBundles\"")
    }
    self.init(identity: source, trustBundles: bundles)
    if let field = parts["startupDeadlineMilliseconds"] {
      startupDeadlineMilliseconds = try field.integer(0...600_000)
    }
    if let field = fields["connectionLifetime"] {
      connectionLifetime = try field.choice(ConnectionLifetime.self)
    }
    if let field = fields["holdUntilReady"] { holdUntilReady = try field.boolean() }
    if let field = fields["bundleEndpoint"] { bundleEndpoint = try BundleEndpoint(field) }
  }

  /// The trust domains that will have a bundle; nil if only their sources know.
  package var trustedDomains: Set<TrustDomain>? {
    var domains: Set<TrustDomain> = []
    switch identity {
    case .files: break
    case .embeddedCA(let source): domains.insert(source.id.trustDomain)
    case .workloadAPI: return nil
    }
    for bundle in trustBundles {
      guard case .domain(let bundle) = bundle else { return nil }
      domains.insert(bundle.trustDomain)
    }
    return domains
  }
}

// MARK: - The own identity

extension IdentitySource {
  fileprivate init(
    _ field: Field, _ parts: [String: Field], directory: String
  ) throws(Problem) {
    let sources = ["files", "workloadAPI", "embeddedCA"].compactMap { parts[$0] }
    guard let source = sources.first else {
      throw field.problem("needs one of \"files\", \"workloadAPI\" and \"embeddedCA\"")
    }
    guard sources.count == 1 else {
      throw sources[1].problem("an identity has one source, and there is \(source.path) already")
    }
    if parts["files"] != nil {
      self = .files(try IdentityFiles(source, directory: directory))
    } else if parts["workloadAPI"] != nil {
      self = .workloadAPI(try WorkloadAPISource(source))
    } else {
      self = .embeddedCA(try EmbeddedCASource(source, directory: directory))
    }
  }
}

extension IdentityFiles {
  fileprivate init(_ files: Field, directory: String) throws(Problem) {
    let fields = try files.fields(["certificate", "privateKey"])
    self.init(
      certificate: try fields.required("certificate", in: files).path(in: directory),
      privateKey: try fields.required("privateKey", in: files).path(in: directory))
  }
}

extension WorkloadAPISource {
  fileprivate init(_ field: Field) throws(Problem) {
    let fields = try field.fields(["socket", "hint"])
    self.init(endpoint: try fields["socket"]?.workloadEndpoint(), hint: try fields["hint"]?.text())
  }
}

extension EmbeddedCASource {
  /// A year: longer-lived SVIDs belong into files.
  private static let lifetimeSecondsRange = 60...31_536_000

  fileprivate init(_ field: Field, directory: String) throws(Problem) {
    let fields = try field.fields(["directory", "id", "lifetimeSeconds"])
    self.init(
      directory: try fields.required("directory", in: field).path(in: directory),
      id: try fields.required("id", in: field).workloadID(trusted: nil))
    if let field = fields["lifetimeSeconds"] {
      lifetimeSeconds = try field.integer(Self.lifetimeSecondsRange)
    }
  }
}

extension BundleEndpoint {
  fileprivate init(_ field: Field) throws(Problem) {
    let fields = try field.fields(["address", "port", "refreshHintSeconds"])
    let port = try fields.required("port", in: field).port()
    var address = IPAddress.anyV6
    if let field = fields["address"] {
      let text = try field.text()
      guard let parsed = IPAddress(text) else {
        throw field.problem("\(YAMLNode.quote(text)) is not an IP address")
      }
      address = parsed
    }
    self.init(address: SocketAddress(address, port: port))
    if let field = fields["refreshHintSeconds"] {
      refreshHintSeconds = try field.integer(10...86_400)
    }
  }
}

// MARK: - Trust bundles

extension TrustBundleSource {
  fileprivate static func list(
    _ field: Field, _ identity: IdentitySource, directory: String
  ) throws(Problem) -> [TrustBundleSource] {
    var sources: [TrustBundleSource] = []
    var workloadAPI: Field?
    var seen: Set<TrustDomain> = []
    for item in try field.nonEmptyItems() {
      let fields = try item.fields([
        "trustDomain", "pem", "jwks", "crl", "federation", "directory", "bundleMap", "workloadAPI",
      ])
      let many = ["directory", "bundleMap", "workloadAPI"].filter { fields[$0] != nil }
      guard let kind = many.first, let source = fields[kind] else {
        let bundle = try DomainBundle(item, fields, directory: directory)
        guard seen.insert(bundle.trustDomain).inserted else {
          throw (fields["trustDomain"] ?? item).problem(
            "\"\(bundle.trustDomain)\" already has a bundle")
        }
        sources.append(.domain(bundle))
        continue
      }
      guard fields.count == 1 else {
        throw item.problem("\"\(kind)\" stands alone: it brings the trust domains with it")
      }
      switch kind {
      case "directory": sources.append(.directory(try source.path(in: directory)))
      case "bundleMap": sources.append(.bundleMap(try source.path(in: directory)))
      default:
        if let workloadAPI {
          throw source.problem(
            "there is one Workload API, and \(workloadAPI.path) names it already")
        }
        workloadAPI = source
        let endpoint = try source.fields(["socket"])["socket"]?.workloadEndpoint()
        sources.append(.workloadAPI(endpoint))
      }
    }
    try checkEndpoints(sources, identity, field)
    return sources
  }

  /// An `https_spiffe` endpoint is verified by the bundle of its own trust domain, which must come
  /// from somewhere (SPIFFE Federation §5.2.2.2).
  private static func checkEndpoints(
    _ sources: [TrustBundleSource], _ identity: IdentitySource, _ field: Field
  ) throws(Problem) {
    var brought: TrustDomain?
    switch identity {
    case .files: break
    case .embeddedCA(let source): brought = source.id.trustDomain
    case .workloadAPI: return
    }
    let domains = sources.compactMap { source -> DomainBundle? in
      if case .domain(let bundle) = source { bundle } else { nil }
    }
    // A directory, a map or a Workload API may bring it.
    guard domains.count == sources.count else { return }
    for bundle in domains {
      guard let id = bundle.federation?.endpointID else { continue }
      let isKnown = domains.contains {
        $0.trustDomain == id.trustDomain
          && ($0.file != nil || $0.trustDomain != bundle.trustDomain)
      }
      let isBrought =
        brought == id.trustDomain
        && !domains.contains { $0.trustDomain == id.trustDomain }
      guard isKnown || isBrought else {
        throw field.problem(
          "nothing verifies \(id), the endpoint of \(bundle.trustDomain): give a first bundle of "
            + "\(id.trustDomain) (\"pem\" or \"jwks\")")
      }
    }
  }
}

extension DomainBundle {
  fileprivate init(
    _ item: Field, _ fields: [String: Field], directory: String
  ) throws(Problem) {
    self.init(trustDomain: try fields.required("trustDomain", in: item).trustDomain())
    switch (fields["pem"], fields["jwks"]) {
    case (let pem?, nil): file = .pem(try pem.path(in: directory))
    case (nil, let jwks?): file = .jwks(try jwks.path(in: directory))
    case (_, let jwks?): throw jwks.problem("\"pem\" is given already")
    case (nil, nil): break
    }
    revocationLists = try fields["crl"]?.path(in: directory)
    federation = try fields["federation"].map { field throws(Problem) in
      try FederationEndpoint(field)
    }
    guard file != nil || federation != nil else {
      throw item.problem("needs \"pem\", \"jwks\" or \"federation\"")
    }
  }
}

extension FederationEndpoint {
  private enum Profile: String, CaseIterable {
    case web = "https_web"
    case spiffe = "https_spiffe"
  }

  fileprivate init(_ field: Field) throws(Problem) {
    let fields = try field.fields(["url", "profile", "endpointID"])
    let urlField = try fields.required("url", in: field)
    let text = try urlField.text()
    do throws(HTTPSURLError) {
      self.init(url: try HTTPSURL(text))
    } catch {
      throw urlField.problem("\(YAMLNode.quote(text)): \(error.rawValue)")
    }
    // Never guessed from the other fields (SPIFFE Federation §7.2).
    switch try fields.required("profile", in: field).choice(Profile.self) {
    case .web:
      if let id = fields["endpointID"] {
        throw id.problem("goes with profile https_spiffe only")
      }
    case .spiffe:
      endpointID = try fields.required("endpointID", in: field).workloadID(trusted: nil)
    }
  }
}

extension Field {
  fileprivate func workloadEndpoint() throws(Problem) -> WorkloadEndpoint {
    let text = try text()
    do throws(WorkloadEndpointError) {
      return try WorkloadEndpoint(text)
    } catch {
      throw problem("\(YAMLNode.quote(text)): \(error)")
    }
  }
}
