internal import CLinux
internal import Configuration
internal import Federation
internal import Identity
internal import Net
internal import TLS

/// Serves the bundle of the own trust domain (`https_spiffe`), where that is configured, from when
/// there is an identity.
struct BundleServer: ~Copyable {
  private let endpoint: BundleEndpoint?
  private var server: BundleEndpointServer?

  init(_ endpoint: BundleEndpoint?, _ identity: IdentityManager) throws(LoadError) {
    self.endpoint = endpoint
    try update(identity)
  }

  /// What is served from now on: the newest bundle, with the newest SVID.
  mutating func update(_ identity: IdentityManager) throws(LoadError) {
    guard let endpoint, let material = identity.inForce?.material,
      let bundle = identity.inputs.bundle(of: material.id.trustDomain)
    else { return }
    do {
      let document = try bundle.jwks(
        sequence: UInt64(max(0, identity.trustChangedSeconds)),
        refreshHintSeconds: endpoint.refreshHintSeconds)
      let context = try HTTPSServerContext(material)
      if server != nil {
        server?.update(document: document, context: context)
      } else {
        server = try BundleEndpointServer(
          on: endpoint.address, mark: identity.mark, document: document, context: context)
      }
    } catch {
      throw LoadError(description: "workload.bundleEndpoint \(endpoint.address): \(error)")
    }
  }

  var interests: [pollfd] {
    switch server {
    case .some(let server): server.interests
    case nil: []
    }
  }

  var hasClients: Bool {
    switch server {
    case .some(let server): server.hasClients
    case nil: false
    }
  }

  mutating func serve(now: Int64) { server?.serve(now: now) }
}
