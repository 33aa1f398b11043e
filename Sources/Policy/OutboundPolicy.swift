package import Identity
package import Net

/// What an outbound workload does where no rule and no peer entry names the destination.
package enum OutboundMode: String, Hashable, Sendable, CaseIterable {
  /// mTLS to whoever is found to be mesh, otherwise plaintext, counted with its reason.
  case auto
  /// mTLS on the real port, or refuse.
  case strict
  /// Relay as it is.
  case disabled
}

/// What to do with an outbound connection.
package enum OutboundPlan: Hashable, Sendable {
  /// Originate mTLS; the peer must present one of the IDs, or any that verifies if empty.
  case originate(expect: [SPIFFEID])
  /// Originate TLS as this rule says.
  case originateTLS(rule: Int)
  /// Find out whether the other end is mesh, then plan again.
  case discover
  case relay(RelayReason)
  case refuse(Refusal)
}

/// The outbound half of a namespace's policy.
package struct OutboundPolicy: Hashable, Sendable {
  package var mode: OutboundMode
  package var rules: [OutboundRule]
  package var peers: PeerTable
  /// Refuse what no rule and no peer entry names.
  package var isRegistryOnly = false
  /// Trust domains in which a peer must be where no rule and no peer entry names an ID; empty:
  /// every one that has a bundle.
  package var expectTrustDomains: [TrustDomain] = []
  /// nil: no pins.
  package var pins: PinSettings?

  package init(mode: OutboundMode = .auto, rules: [OutboundRule] = [], peers: [Peer] = []) {
    self.mode = mode
    self.rules = rules
    self.peers = PeerTable(peers)
  }

  /// Whether the plan depends on the server name in the client's ClientHello.
  package func needsServerName(for destination: SocketAddress) -> Bool {
    let first = rules.first { $0.covers(destination) }
    return first.map { !$0.serverNames.isEmpty } ?? false
  }

  /// Pure: rules in order, then the peer with the longest matching prefix, then the mode.
  ///
  /// - Parameter serverName: what the client's ClientHello asks for; nil if it asks for none, or
  ///   was not looked into.
  package func plan(to destination: SocketAddress, serverName: String? = nil) -> OutboundPlan {
    if let index = rules.firstIndex(where: {
      $0.matches(destination, serverName: serverName)
    }) {
      switch rules[index].action {
      case .mtls: return .originate(expect: rules[index].expect)
      case .tls: return .originateTLS(rule: index)
      case .passthrough: return .relay(.rulePassthrough)
      case .plaintext: return .relay(.rulePlaintext)
      case .deny: return .refuse(.deniedByRule)
      }
    }
    switch peers.find(destination.address) {
    case .mesh(let identity): return .originate(expect: identity.map { [$0] } ?? [])
    case .notMesh where mode == .strict: return .refuse(.notMesh)
    case .notMesh: return .relay(.peerNotMesh)
    case nil: break
    }
    if isRegistryOnly { return .refuse(.notInRegistry) }
    switch mode {
    case .auto: return .discover
    case .strict: return .originate(expect: [])
    case .disabled: return .relay(.modeDisabled)
    }
  }

  /// Pure: the plan once discovery has an answer.
  package func plan(found answer: DiscoveryAnswer, isPinned: Bool) -> OutboundPlan {
    switch answer {
    case .mesh: .originate(expect: [])
    case _ where isPinned: .refuse(.pinnedMeshLost)
    case .silent: .relay(.notAnnounced)
    case .noMeshPort: .relay(.noMeshPort)
    case .notAsked: .relay(.notKnownAsMesh)
    }
  }

  /// Whether a mesh peer may be the one at the other end, where `expect` was empty.
  package func admits(_ peer: SPIFFEID) -> Bool {
    expectTrustDomains.isEmpty || expectTrustDomains.contains(peer.trustDomain)
  }
}
