/// What an inbound workload or port lets in.
package enum InboundMode: String, Hashable, Sendable, CaseIterable {
  /// Mesh mTLS, the application's own TLS and plaintext are all served.
  case permissive
  /// Mesh mTLS only.
  case strict
  /// The rules exclude such traffic; what still arrives is served as under `permissive`.
  case disabled
}

/// What the client turned out to be speaking.
package enum ClientKind: Hashable, Sendable {
  /// A ClientHello that offers a mesh ALPN: `culvert/1` or `istio`.
  case mesh
  /// Any other ClientHello: the application's own TLS.
  case applicationTLS
  /// Bytes that do not begin a ClientHello.
  case plaintext
  /// Nothing, while the application spoke first and the grace passed.
  case silent
}

/// Why bytes are relayed as they are; the raw value is the word in logs and metrics.
package enum RelayReason: String, Hashable, Sendable, CaseIterable {
  case clientPlaintext = "client_plaintext"
  case clientTLS = "client_tls"
  case serverFirst = "server_first"
  case notKnownAsMesh = "not_known_as_mesh"
  case modeDisabled = "mode_disabled"
  case rulePlaintext = "rule_plaintext"
  case rulePassthrough = "rule_passthrough"
}

/// What to do with an inbound connection once its client is known.
package enum InboundPlan: Hashable, Sendable {
  case terminate
  case relay(RelayReason)
  case refuse(Refusal)
}

/// The inbound half of a namespace's policy.
package struct InboundPolicy: Hashable, Sendable {
  package var mode: InboundMode
  /// Modes of single ports; they win over `mode`.
  package var ports: [UInt16: InboundMode]

  package init(mode: InboundMode = .permissive, ports: [UInt16: InboundMode] = [:]) {
    self.mode = mode
    self.ports = ports
  }

  package func mode(ofPort port: UInt16) -> InboundMode { ports[port] ?? mode }

  /// Pure: the same facts always give the same plan.
  package func plan(client: ClientKind, port: UInt16) -> InboundPlan {
    switch (client, mode(ofPort: port)) {
    case (.mesh, _): .terminate
    case (.applicationTLS, .strict): .refuse(.applicationTLSInStrict)
    case (.applicationTLS, _): .relay(.clientTLS)
    case (.plaintext, .strict), (.silent, .strict): .refuse(.plaintextInStrict)
    case (.plaintext, _): .relay(.clientPlaintext)
    case (.silent, _): .relay(.serverFirst)
    }
  }
}
