package import Telemetry

// The admin socket's wire types. One request per connection: a line of JSON, answered by a line of
// JSON. `version` changes when an older reader could misunderstand a newer writer; fields may be
// added without.

package struct AdminRequest: Codable, Sendable {
  package static let currentVersion = 1

  package var version = currentVersion
  package var request: Kind
  /// Of `clearPins`: only those of this address, and of this port there.
  package var address: String?
  package var port: UInt16?

  package enum Kind: String, Codable, Sendable {
    case status
    /// The own SVID and every bundle, whole.
    case identity
    /// In the Prometheus text format.
    case metrics
    /// Who was seen without mesh mTLS.
    case migration
    /// End live connections that would not be let in, or sent, now.
    case enforce
    case pins
    case clearPins
  }

  package init(_ request: Kind, address: String? = nil, port: UInt16? = nil) {
    self.request = request
    self.address = address
    self.port = port
  }
}

package struct AdminResponse: Codable, Sendable {
  package var version = AdminRequest.currentVersion
  package var error: String?
  package var status: StatusReport?
  package var identity: IdentityReport?
  package var metrics: String?
  package var migration: MigrationReport?
  package var pins: [PinReport]?
  /// Of `clearPins`, how many there were.
  package var cleared: Int?

  package init(error: String) { self.error = error }
  package init(status: StatusReport) { self.status = status }
  package init(identity: IdentityReport) { self.identity = identity }
  package init(metrics: String) { self.metrics = metrics }
  package init(migration: MigrationReport) { self.migration = migration }
  package init(pins: [PinReport]) { self.pins = pins }
  package init(cleared: Int) { self.cleared = cleared }
  package init() {}
}

/// A destination that is not spoken to in plaintext for a while.
package struct PinReport: Codable, Sendable {
  package var address: String
  package var port: UInt16
  /// RFC 3339.
  package var until: String
  package var secondsLeft: Int64
}

/// What `culvert status` shows.
package struct StatusReport: Codable, Sendable {
  package struct Listener: Codable, Sendable {
    package var role: String
    package var address: String
  }
  package struct Inbound: Codable, Sendable {
    package var mode: String
    /// Modes of single ports, by port.
    package var ports: [String: String]
  }
  package struct Outbound: Codable, Sendable {
    package var mode: String
    package var rules: Int
    package var peers: Int
    package var registryOnly: Bool
    /// Destinations that proved mesh; absent without `outbound.pins`.
    package var pins: Int?
  }
  package struct Discovery: Codable, Sendable {
    /// `works`, `off` or `failed`.
    package var announce: String
    /// Why announcing failed.
    package var announceReason: String?
    /// `on` or `off`.
    package var probe: String
    package var meshRanges: [String]
    /// Addresses whose mesh port has answered as mesh, or has not, a moment ago.
    package var meshAddresses: Int
    package var noMeshAddresses: Int
    /// Mesh ports asked since the start, by result.
    package var probes: [String: UInt64]
    /// Mesh peers with another identity than the last one at their address and port.
    package var identityChanges: UInt64
  }
  package struct Authorization: Codable, Sendable {
    package var rules: Int
    /// Of them, those that are only audited.
    package var audited: Int
  }
  package struct Outcome: Codable, Sendable {
    package var direction: String
    package var security: String
    /// Why bytes are relayed as they are; absent where they are protected.
    package var reason: String?
    package var connections: UInt64
  }
  package struct Identity: Codable, Sendable {
    /// `files`, `workload_api` or `embedded_ca`.
    package var source: String
    /// `ready`, `expired`, `awaited` (connections that need one are held) or `unavailable` (they are
    /// refused).
    package var state: String
    /// Of the newest identity, also when it has expired; absent without one.
    package var id: String?
    /// RFC 3339.
    package var notBefore: String?
    package var notAfter: String?
    /// Negative once it has expired.
    package var expiresInSeconds: Int64?
    /// Counts the pairs of certificate and key, and the sets of bundles and revocation lists.
    package var svidEpoch: UInt64
    package var trustEpoch: UInt64
    package var rotations: UInt64
    /// Why the newest of what the sources gave is not in force; absent if it is.
    package var lastError: String?
    /// What the clients of the Workload API do, by method.
    package var workloadAPI: [String: String]?
  }
  package struct Bundle: Codable, Sendable {
    package var trustDomain: String
    /// `pem`, `jwks`, `directory`, `bundle_map`, `federation`, `workload_api` or `embedded_ca`.
    package var source: String
    /// 0: the trust domain is distrusted.
    package var authorities: Int
    package var revocationLists: Int
    /// Of them, those whose next one should have come already.
    package var lateRevocationLists: Int
    package var sequence: UInt64?
    /// Since its source confirmed it; absent before the first time.
    package var ageSeconds: Int64?
    /// Of a bundle endpoint.
    package var url: String?
    package var lastError: String?
  }
  package struct KernelTLS: Codable, Sendable {
    package var mode: String
    /// Cipher suites whose records the kernel protects for us, by direction.
    package var send: [String]
    package var receive: [String]
    /// Whether it takes the next key of a connection.
    package var rekey: Bool
    /// Why not all of it; absent if it is.
    package var sendReason: String?
    package var receiveReason: String?
  }
  package struct Connections: Codable, Sendable {
    /// Open now, by security; `undecided` are still being sniffed, dialled or handshaken.
    package var open: [String: UInt64]
    /// Decided since the start, by security.
    package var total: [String: UInt64]
    /// Accepted since the start.
    package var accepted: UInt64
    /// mTLS connections since the start by what has protected their records: `user`, `openssl`,
    /// `kernel_send`, `kernel_receive`; one that moved to the kernel counts under each.
    package var engines: [String: UInt64]
    /// Handshakes finished since the start: `full`, `resumed`.
    package var handshakes: [String: UInt64]
    /// Refused since the start, by reason; reasons never seen are left out.
    package var refused: [String: UInt64]
    /// Decided since the start, by direction, security and reason; what never was is left out.
    package var outcomes: [Outcome]
    /// Seconds from accepting to deciding, by direction.
    package var undecidedSeconds: [String: Histogram]
  }

  package var version = AdminRequest.currentVersion
  package var culvert: String
  package var pid: Int32
  package var uptimeSeconds: Int64
  /// The number of the configuration in force; the first is 1.
  package var epoch: UInt64
  package var configuration: String
  /// Why the newest configuration was not taken; absent if it was.
  package var lastReloadError: String?
  package var backend: String
  package var workers: Int
  package var listeners: [Listener]
  package var inbound: Inbound
  package var outbound: Outbound
  package var discovery: Discovery
  package var authorization: Authorization
  package var identity: Identity
  package var bundles: [Bundle]
  package var kernelTLS: KernelTLS
  package var connections: Connections
  package var draining: Bool
  /// Lines of the connection log that were dropped because they could not be written in time.
  package var droppedLogLines: UInt64
}
