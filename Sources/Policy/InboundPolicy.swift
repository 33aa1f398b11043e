package import Net

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

/// What to do with an inbound connection once its client is known.
package enum InboundPlan: Hashable, Sendable {
  case terminate
  case relay(RelayReason)
  case refuse(Refusal)
}

/// One entry of `inbound.probes`: health checks that may come in plaintext under every mode.
package struct ProbeDeclaration: Hashable, Sendable {
  /// Where they come from; never empty.
  package var sources: [CIDR]
  /// Where they go to; never empty.
  package var ports: PortSet

  package init(sources: [CIDR], ports: PortSet) {
    self.sources = sources
    self.ports = ports
  }
}

/// What is known of an inbound connection before its client has said anything.
package struct InboundFacts: Hashable, Sendable {
  package var source: IPAddress
  package var port: UInt16
  /// The client's SYN announced mesh: it will open a mesh handshake, and nothing else.
  package var isAnnounced: Bool

  package init(source: IPAddress, port: UInt16, isAnnounced: Bool = false) {
    self.source = source
    self.port = port
    self.isAnnounced = isAnnounced
  }
}

/// The inbound half of a namespace's policy.
package struct InboundPolicy: Hashable, Sendable {
  package var mode: InboundMode
  /// Modes of single ports; they win over `mode`.
  package var ports: [UInt16: InboundMode]
  /// Their plaintext is let in under `strict`, too, and not judged by authorization.
  package var probes: [ProbeDeclaration]

  package init(
    mode: InboundMode = .permissive, ports: [UInt16: InboundMode] = [:],
    probes: [ProbeDeclaration] = []
  ) {
    self.mode = mode
    self.ports = ports
    self.probes = probes
  }

  package func mode(ofPort port: UInt16) -> InboundMode { ports[port] ?? mode }

  package func isProbe(_ facts: InboundFacts) -> Bool {
    probes.contains { probe in
      probe.ports.contains(facts.port) && probe.sources.contains { $0.contains(facts.source) }
    }
  }

  /// Whether nothing but a mesh handshake can be let in, so that the application is not dialled
  /// before the peer is judged.
  package func admitsMeshOnly(_ facts: InboundFacts) -> Bool {
    facts.isAnnounced || mode(ofPort: facts.port) == .strict && !isProbe(facts)
  }

  /// Pure: the same facts always give the same plan.
  package func plan(client: ClientKind, _ facts: InboundFacts) -> InboundPlan {
    switch client {
    case .mesh: .terminate
    // Whoever announced and now speaks otherwise was made to believe that nobody answered.
    case _ where facts.isAnnounced: .refuse(.announcedThenPlaintext)
    case _ where isProbe(facts): .relay(.declaredProbe)
    case .applicationTLS where mode(ofPort: facts.port) == .strict:
      .refuse(.applicationTLSInStrict)
    case _ where mode(ofPort: facts.port) == .strict: .refuse(.plaintextInStrict)
    case .applicationTLS: .relay(.clientTLS)
    case .plaintext: .relay(.clientPlaintext)
    case .silent: .relay(.serverFirst)
    }
  }
}
