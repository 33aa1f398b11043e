/// Which listener a connection came in by.
package enum Direction: String, Hashable, Sendable, CaseIterable {
  case outbound, inbound, mesh
}

/// How a connection's bytes are protected on the wire; the raw value is the word in logs, metrics
/// and tools.
package enum Security: String, Hashable, Sendable, CaseIterable {
  case mutualTLS = "mutual_tls"
  /// TLS that a `tls` rule originates to a server outside the mesh.
  case originatedTLS = "originated_tls"
  /// The application's own TLS, relayed as it is.
  case applicationTLS = "application_tls"
  /// Relayed as it is because a `passthrough` rule says so; not looked into.
  case passthrough
  case plaintext
  /// Not decided: refused or ended before a plan.
  case none
}

/// What protects one direction's records; the raw value is the word in logs, metrics and tools.
package enum RecordEngine: String, Hashable, Sendable, CaseIterable {
  /// The TLS library's own stream, where a peer negotiated what the other engines lack.
  case openssl
  /// The proxy's record layer.
  case user
  /// kTLS.
  case kernel
}

/// `dataPlane.kernelTLS`.
package enum KernelTLSMode: String, Hashable, Sendable, CaseIterable {
  /// Where the self-test has shown that it is sound.
  case auto
  case off
  /// For every mTLS connection, or it is refused.
  case require
}

/// `workload.connectionLifetime`: how long an mTLS connection may last.
package enum ConnectionLifetime: String, Hashable, Sendable, CaseIterable {
  /// As long as the applications want.
  case unlimited
  /// Until the first of both ends' certificates ends.
  case certificate
}
