package import Identity
package import Net
package import Policy

/// A whole configuration file, validated: every value in it may be used as it stands.
package struct Settings: Hashable, Sendable {
  package var identity: IdentitySource
  /// From the start of the proxy, how long connections that need an identity are held while its
  /// source has not given one; then they are refused (`identity_unavailable`).
  package var startupDeadlineMilliseconds = 30_000
  package var trustBundles: [TrustBundleSource]
  package var connectionLifetime = ConnectionLifetime.unlimited
  /// Hold every connection while an identity is awaited, not only those that turn out to need one.
  package var holdUntilReady = false
  package var bundleEndpoint: BundleEndpoint?
  package var listeners = ListenerPorts()
  package var inbound = InboundPolicy()
  package var outbound = OutboundPolicy()
  /// `outbound.peers`, as it stands in the file; `outbound.peers` is made of them.
  package var peers: [Peer] = []
  /// `outbound.peersFile`: absolute path; its peers come on top of `outbound.peers`.
  package var peersFile: String?
  package var discovery = DiscoverySettings()
  package var authorization = Authorization()
  package var interception = Interception()
  package var limits = Limits()
  package var dataPlane = DataPlaneSettings()
  package var workers: Int?
  package var adminSocket = "/run/culvert/admin.sock"

  package init(identity: IdentitySource, trustBundles: [TrustBundleSource]) {
    self.identity = identity
    self.trustBundles = trustBundles
  }
}

/// `workload.identity`: where the workload's X.509-SVID comes from.
package enum IdentitySource: Hashable, Sendable {
  case files(IdentityFiles)
  case workloadAPI(WorkloadAPISource)
  case embeddedCA(EmbeddedCASource)
}

/// `workload.identity.workloadAPI`.
package struct WorkloadAPISource: Hashable, Sendable {
  /// nil: what `SPIFFE_ENDPOINT_SOCKET` names.
  package var endpoint: WorkloadEndpoint?
  /// Which of several SVIDs; nil: the first, which is the default identity.
  package var hint: String?

  package init(endpoint: WorkloadEndpoint? = nil, hint: String? = nil) {
    self.endpoint = endpoint
    self.hint = hint
  }
}

/// `workload.identity.embeddedCA`: the proxy signs its own SVIDs, and renews them at half their
/// life.
package struct EmbeddedCASource: Hashable, Sendable {
  /// Absolute path; made by `culvert ca init`.
  package var directory: String
  package var id: SPIFFEID
  package var lifetimeSeconds = 3600

  package init(directory: String, id: SPIFFEID) {
    self.directory = directory
    self.id = id
  }
}

/// `workload.identity.files`: absolute paths (relative ones are resolved against the directory of
/// the configuration file).
package struct IdentityFiles: Hashable, Sendable {
  /// PEM: the X.509-SVID, then its intermediates.
  package var certificate: String
  /// PEM: the private key, readable by its owner only.
  package var privateKey: String

  package init(certificate: String, privateKey: String) {
    self.certificate = certificate
    self.privateKey = privateKey
  }
}

/// One entry of `workload.trustBundles`: the bundle of one trust domain, or a source of several.
package enum TrustBundleSource: Hashable, Sendable {
  case domain(DomainBundle)
  /// Absolute path: one file for each trust domain, named after it.
  case directory(String)
  /// Absolute path: a SPIFFE bundle map (SPIFFE Trust Domain and Bundle §5).
  case bundleMap(String)
  /// What a Workload API's FetchX509Bundles gives; nil: of the endpoint that
  /// `SPIFFE_ENDPOINT_SOCKET` names.
  case workloadAPI(WorkloadEndpoint?)
}

/// The bundle of one trust domain: a file, an endpoint, or a file that an endpoint keeps fresh.
package struct DomainBundle: Hashable, Sendable {
  package var trustDomain: TrustDomain
  package var file: BundleFile?
  /// Absolute path: revocation lists, PEM or DER.
  package var revocationLists: String?
  package var federation: FederationEndpoint?

  package init(
    trustDomain: TrustDomain, file: BundleFile? = nil, revocationLists: String? = nil,
    federation: FederationEndpoint? = nil
  ) {
    self.trustDomain = trustDomain
    self.file = file
    self.revocationLists = revocationLists
    self.federation = federation
  }
}

/// Absolute path of a bundle.
package enum BundleFile: Hashable, Sendable {
  /// One or more CA certificates.
  case pem(String)
  /// A SPIFFE bundle (SPIFFE Trust Domain and Bundle §4).
  case jwks(String)

  package var path: String {
    switch self {
    case .pem(let path), .jwks(let path): path
    }
  }
}

/// Where a bundle is polled, and how its server is known (SPIFFE Federation §5.1).
package struct FederationEndpoint: Hashable, Sendable {
  package var url: HTTPSURL
  /// Under the `https_spiffe` profile, whom the server must prove to be; nil is `https_web`.
  package var endpointID: SPIFFEID?

  package init(url: HTTPSURL, endpointID: SPIFFEID? = nil) {
    self.url = url
    self.endpointID = endpointID
  }
}

/// `workload.bundleEndpoint`: where the bundle of the own trust domain is served.
package struct BundleEndpoint: Hashable, Sendable {
  package var address: SocketAddress
  /// What pollers are told about how often to look.
  package var refreshHintSeconds = 300

  package init(address: SocketAddress) { self.address = address }
}

/// `listeners`: the ports the proxy listens on and the rules redirect to.
package struct ListenerPorts: Hashable, Sendable {
  package var outboundPort: UInt16 = 15001
  package var inboundPort: UInt16 = 15006
  package var meshPort: UInt16 = 15008

  package init() {}
}

/// `interception`: what culvert-init redirects. An empty include list means everything.
package struct Interception: Hashable, Sendable {
  package var includeInboundPorts = PortSet()
  package var excludeInboundPorts = PortSet()
  package var includeOutboundPorts = PortSet()
  package var excludeOutboundPorts = PortSet()
  package var includeOutboundCIDRs: [CIDR] = []
  package var excludeOutboundCIDRs: [CIDR] = []
  /// The low 16 bits of the packet mark of the proxy's own sockets: 1…65535.
  package var mark = UInt16(Mark.proxy)

  package init() {}
}

/// `dataPlane`: how records are protected.
package struct DataPlaneSettings: Hashable, Sendable {
  package var kernelTLS = KernelTLSMode.auto
  /// Application bytes, both ways together, after which a connection's records go to the kernel.
  package var kernelTLSAfterBytes = 262_144
  /// Records we send under one AES-GCM key, the KeyUpdate that ends it among them; at most the 2^24
  /// that RFC 8446 §5.5 comes to.
  package var keyUpdateAfterRecords = 1 << 24

  package init() {}
}

/// `limits`: every bound has a name, its unit comes last.
package struct Limits: Hashable, Sendable {
  /// Open connections of the whole process; beyond it a new one is reset (`connection_limit`).
  package var maximumConnections = 20_000
  /// From the first byte of a ClientHello (strict: from accept) to the end of the handshake.
  package var handshakeTimeoutMilliseconds = 10_000
  /// From dialling to an established TCP connection.
  package var connectTimeoutMilliseconds = 10_000
  /// How long a connection with one direction closed may stay without a byte in the other.
  package var halfCloseTimeoutMilliseconds = 3_600_000
  /// From SIGTERM until what is still open is closed.
  package var drainTimeoutMilliseconds = 30_000
  /// ClientHello bytes one worker holds while it cannot decide yet (`sniff_memory_limit`).
  package var sniffMemoryMaximumBytes = 33_554_432

  package init() {}
}
