/// Why a connection was refused: one case per reason, the raw value is the word that logs, metrics
/// and tools show. Docs/OPERATIONS.md explains each.
///
/// Refusals of a peer's certificate have their own words, see `TLS.PeerRefusal`.
package enum Refusal: String, Error, Hashable, Sendable, CaseIterable {
  // Accept
  case connectionLimit = "connection_limit"
  case descriptorLimit = "descriptor_limit"
  case selfCall = "self_call"
  case notLocal = "not_local"
  case noOriginalDestination = "no_original_destination"
  // Sniff
  case clientHelloTooLarge = "client_hello_too_large"
  case malformedClientHello = "malformed_client_hello"
  case sniffTimeout = "sniff_timeout"
  case sniffMemoryLimit = "sniff_memory_limit"
  case clientClosedBeforeHello = "client_closed_before_hello"
  case silentMeshSource = "silent_mesh_source"
  // Plan
  case notMesh = "not_mesh"
  case plaintextInStrict = "plaintext_in_strict"
  case applicationTLSInStrict = "application_tls_in_strict"
  case deniedByRule = "denied_by_rule"
  // Connect
  case connectFailed = "connect_failed"
  case connectTimeout = "connect_timeout"
  // Handshake
  /// There is no identity of our own yet, or none any more.
  case identityUnavailable = "identity_unavailable"
  case identityExpired = "identity_expired"
  case handshakeTimeout = "handshake_timeout"
  case handshakeFailed = "handshake_failed"
  case peerClosedInHandshake = "peer_closed_in_handshake"
  // Relay
  case relayMemoryLimit = "relay_memory_limit"
  /// kTLS is required and cannot be had for this connection.
  case kernelTLSFailed = "kernel_tls_failed"
}
