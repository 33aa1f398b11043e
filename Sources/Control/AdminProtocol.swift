// The admin socket's wire types. One request per connection: a line of JSON, answered by a line of
// JSON. `version` changes when an older reader could misunderstand a newer writer; fields may be
// added without.

package struct AdminRequest: Codable, Sendable {
  package static let currentVersion = 1

  package var version = currentVersion
  package var request: Kind

  package enum Kind: String, Codable, Sendable {
    case status
  }

  package init(_ request: Kind) { self.request = request }
}

package struct AdminResponse: Codable, Sendable {
  package var version = AdminRequest.currentVersion
  package var error: String?
  package var status: StatusReport?

  package init(error: String) { self.error = error }
  package init(status: StatusReport) { self.status = status }
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
  }
  package struct Identity: Codable, Sendable {
    package var id: String
    /// RFC 3339.
    package var notBefore: String
    package var notAfter: String
    /// Negative once it has expired.
    package var expiresInSeconds: Int64
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
    /// Refused since the start, by reason; reasons never seen are left out.
    package var refused: [String: UInt64]
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
  package var identity: Identity
  package var trustDomains: [String]
  package var kernelTLS: KernelTLS
  package var connections: Connections
  package var draining: Bool
  /// Lines of the connection log that were dropped because they could not be written in time.
  package var droppedLogLines: UInt64
}
