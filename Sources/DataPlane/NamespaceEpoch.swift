package import Policy
package import TLS

/// Everything a namespace's new connections are judged by, loaded together and replaced together.
package final class NamespaceEpoch: Sendable {
  /// Counts loaded configurations from 1.
  package let number: UInt64
  package let identity: IdentityState
  package let connectionLifetime: ConnectionLifetime
  /// Whether every connection is held while an identity is awaited.
  package let holdsUntilReady: Bool
  package let inbound: InboundPolicy
  package let outbound: OutboundPolicy
  /// What the rules that originate TLS need, by their index.
  package let originations: [Int: OriginationMaterial]
  package let discovery: DiscoverySettings
  package let authorization: Authorization
  package let limits: ConnectionLimits
  package let records: RecordSettings

  package init(
    number: UInt64, identity: IdentityState, connectionLifetime: ConnectionLifetime,
    holdsUntilReady: Bool = false, inbound: InboundPolicy, outbound: OutboundPolicy,
    originations: [Int: OriginationMaterial] = [:],
    discovery: DiscoverySettings = DiscoverySettings(),
    authorization: Authorization = Authorization(), limits: ConnectionLimits,
    records: RecordSettings
  ) {
    self.number = number
    self.identity = identity
    self.connectionLifetime = connectionLifetime
    self.holdsUntilReady = holdsUntilReady
    self.inbound = inbound
    self.outbound = outbound
    self.originations = originations
    self.discovery = discovery
    self.authorization = authorization
    self.limits = limits
    self.records = records
  }
}

/// Whether a namespace has an identity to speak with.
package enum IdentityState: Sendable {
  case ready(IdentityMaterial)
  /// The source has not given one yet: connections that need it are held.
  case awaited
  /// There is none: connections that need it are refused.
  case unavailable

  package var material: IdentityMaterial? {
    if case .ready(let material) = self { return material }
    return nil
  }
}

/// How records are protected; see `dataPlane` in Docs/CONFIGURATION.md.
package struct RecordSettings: Hashable, Sendable {
  package var kernelTLS: KernelTLSMode
  /// Application bytes, both ways together, after which a connection goes to the kernel engine.
  package var kernelTLSAfterBytes: Int
  /// Own records after which an AES-GCM key is updated: 64…2^24.
  package var keyUpdateAfterRecords: Int

  package init(kernelTLS: KernelTLSMode, kernelTLSAfterBytes: Int, keyUpdateAfterRecords: Int) {
    self.kernelTLS = kernelTLS
    self.kernelTLSAfterBytes = kernelTLSAfterBytes
    self.keyUpdateAfterRecords = keyUpdateAfterRecords
  }
}

/// Bounds that a reload may change; see Docs/CONFIGURATION.md.
package struct ConnectionLimits: Sendable {
  package var maximumConnections: Int
  package var handshakeTimeoutMilliseconds: Int
  package var connectTimeoutMilliseconds: Int
  package var halfCloseTimeoutMilliseconds: Int
  package var sniffMemoryMaximumBytes: Int

  package init(
    maximumConnections: Int, handshakeTimeoutMilliseconds: Int, connectTimeoutMilliseconds: Int,
    halfCloseTimeoutMilliseconds: Int, sniffMemoryMaximumBytes: Int
  ) {
    self.maximumConnections = maximumConnections
    self.handshakeTimeoutMilliseconds = handshakeTimeoutMilliseconds
    self.connectTimeoutMilliseconds = connectTimeoutMilliseconds
    self.halfCloseTimeoutMilliseconds = halfCloseTimeoutMilliseconds
    self.sniffMemoryMaximumBytes = sniffMemoryMaximumBytes
  }
}

/// The ports of a namespace's listeners; connections to them are the proxy's own.
package struct ListenerPortSet: Sendable {
  package var outbound: UInt16
  package var inbound: UInt16
  package var mesh: UInt16

  package init(outbound: UInt16, inbound: UInt16, mesh: UInt16) {
    self.outbound = outbound
    self.inbound = inbound
    self.mesh = mesh
  }
}
