package import Identity
package import Net
package import Policy

/// A whole configuration file, validated: every value in it may be used as it stands.
package struct Settings: Hashable, Sendable {
  package var identity: IdentityFiles
  package var trustBundles: [TrustBundleFile]
  package var listeners = ListenerPorts()
  package var inbound = InboundPolicy()
  package var outbound = OutboundPolicy()
  package var interception = Interception()
  package var limits = Limits()
  package var dataPlane = DataPlaneSettings()
  package var workers: Int?
  package var adminSocket = "/run/culvert/admin.sock"

  package init(identity: IdentityFiles, trustBundles: [TrustBundleFile]) {
    self.identity = identity
    self.trustBundles = trustBundles
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

/// One entry of `workload.trustBundles`.
package struct TrustBundleFile: Hashable, Sendable {
  package var trustDomain: TrustDomain
  /// Absolute path of a PEM file with one or more CA certificates.
  package var pem: String

  package init(trustDomain: TrustDomain, pem: String) {
    self.trustDomain = trustDomain
    self.pem = pem
  }
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
