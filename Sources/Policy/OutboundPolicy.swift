package import Identity
package import Net

/// What an outbound workload does where no rule and no peer entry names the destination.
package enum OutboundMode: String, Hashable, Sendable, CaseIterable {
  /// mTLS to peers known to be mesh, otherwise plaintext, counted with its reason.
  case auto
  /// mTLS on the real port, or refuse.
  case strict
  /// Relay as it is.
  case disabled
}

/// What an explicit outbound rule does.
package enum OutboundAction: String, Hashable, Sendable, CaseIterable {
  case mtls
  /// The application brings its own TLS: bytes are relayed as they are.
  case passthrough
  case plaintext
  case deny
}

/// One entry of `outbound.rules`; the first that matches wins.
package struct OutboundRule: Hashable, Sendable {
  /// Destination ranges; never empty.
  package var to: [CIDR]
  /// Destination ports; empty means every port.
  package var ports: PortSet
  package var action: OutboundAction
  /// SPIFFE IDs, one of which the peer must present; empty means any ID that verifies.
  package var expect: [SPIFFEID]

  package init(
    to: [CIDR], ports: PortSet = PortSet(), action: OutboundAction, expect: [SPIFFEID] = []
  ) {
    self.to = to
    self.ports = ports
    self.action = action
    self.expect = expect
  }

  package func matches(_ destination: SocketAddress) -> Bool {
    (ports.isEmpty || ports.contains(destination.port))
      && to.contains { $0.contains(destination.address) }
  }
}

/// One entry of `outbound.peers`: addresses known to be one mesh workload.
package struct Peer: Hashable, Sendable {
  package var address: CIDR
  package var identity: SPIFFEID

  package init(address: CIDR, identity: SPIFFEID) {
    self.address = address
    self.identity = identity
  }
}

/// What to do with an outbound connection.
package enum OutboundPlan: Hashable, Sendable {
  /// Originate mTLS; the peer must present one of the IDs, or any that verifies if empty.
  case originate(expect: [SPIFFEID])
  case relay(RelayReason)
  case refuse(Refusal)
}

/// The outbound half of a namespace's policy.
package struct OutboundPolicy: Hashable, Sendable {
  package var mode: OutboundMode
  package var rules: [OutboundRule]
  package var peers: [Peer]

  package init(mode: OutboundMode = .auto, rules: [OutboundRule] = [], peers: [Peer] = []) {
    self.mode = mode
    self.rules = rules
    self.peers = peers
  }

  /// Pure: rules in order, then the peer with the longest matching prefix, then the mode.
  package func plan(to destination: SocketAddress) -> OutboundPlan {
    if let rule = rules.first(where: { $0.matches(destination) }) {
      switch rule.action {
      case .mtls: return .originate(expect: rule.expect)
      case .passthrough: return .relay(.rulePassthrough)
      case .plaintext: return .relay(.rulePlaintext)
      case .deny: return .refuse(.deniedByRule)
      }
    }
    let peer = peers.filter { $0.address.contains(destination.address) }
      .max { $0.address.prefixLength < $1.address.prefixLength }
    if let peer { return .originate(expect: [peer.identity]) }
    switch mode {
    case .auto: return .relay(.notKnownAsMesh)
    case .strict: return .originate(expect: [])
    case .disabled: return .relay(.modeDisabled)
    }
  }
}
