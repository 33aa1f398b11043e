/// Why bytes are relayed as they are; the raw value is the word in logs and metrics.
package enum RelayReason: String, Hashable, Sendable, CaseIterable {
  // Inbound
  case clientPlaintext = "client_plaintext"
  case clientTLS = "client_tls"
  case serverFirst = "server_first"
  case declaredProbe = "declared_probe"
  // Outbound
  case rulePlaintext = "rule_plaintext"
  case rulePassthrough = "rule_passthrough"
  /// The peer table says that it is no mesh workload.
  case peerNotMesh = "peer_not_mesh"
  /// Nobody was asked: discovery is off, or the address is outside the mesh ranges.
  case notKnownAsMesh = "not_known_as_mesh"
  /// Asked in the TCP handshake, the other end did not answer.
  case notAnnounced = "not_announced"
  /// Nobody with a mesh identity answers on the mesh port of the address.
  case noMeshPort = "no_mesh_port"
  case modeDisabled = "mode_disabled"

  /// What the client of an inbound connection turned out to be.
  package var client: ClientKind {
    switch self {
    case .clientTLS: .applicationTLS
    case .serverFirst: .silent
    case .clientPlaintext, .declaredProbe, .rulePlaintext, .rulePassthrough, .peerNotMesh,
      .notKnownAsMesh, .notAnnounced, .noMeshPort, .modeDisabled:
      .plaintext
    }
  }

  /// What the relayed bytes are, as far as the reason tells.
  package var security: Security {
    switch self {
    case .clientTLS: .applicationTLS
    case .rulePassthrough: .passthrough
    case .clientPlaintext, .serverFirst, .declaredProbe, .rulePlaintext, .peerNotMesh,
      .notKnownAsMesh, .notAnnounced, .noMeshPort, .modeDisabled:
      .plaintext
    }
  }
}
