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
  /// The client announced mesh in its SYN and then opened no mesh handshake.
  case announcedThenPlaintext = "announced_then_plaintext"
  /// The address and port proved mesh within the pins' time, and does not answer as mesh now.
  case pinnedMeshLost = "pinned_mesh_lost"
  /// Under `outbound.registryOnly`, a destination that no rule and no peer entry names.
  case notInRegistry = "not_in_registry"
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
  // Judge
  /// A mesh peer outside `outbound.expectTrustDomains`.
  case unexpectedTrustDomain = "unexpected_trust_domain"
  /// A DENY rule of `authorization` matches.
  case deniedByPolicy = "denied_by_policy"
  /// `authorization` has ALLOW rules, and none matches.
  case notAllowedByPolicy = "not_allowed_by_policy"
  // Relay
  case relayMemoryLimit = "relay_memory_limit"
  /// kTLS is required and cannot be had for this connection.
  case kernelTLSFailed = "kernel_tls_failed"
}
