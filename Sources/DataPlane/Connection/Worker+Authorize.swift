internal import Net
internal import Policy
internal import Sniff
internal import TLS
internal import Telemetry

// Judge, inbound: authorization on the peer's verified identity, or on its absence.
extension Worker where IO: ~Copyable {
  /// Why an inbound connection may not be; nil if it may.
  mutating func authorize(_ handle: Handle) -> Refusal? {
    guard handle.it.direction == .inbound, let details = handle.it.details,
      let facts = inboundFacts(handle)
    else { return nil }
    if details.relayReason == .declaredProbe, policy(handle).inbound.isProbe(facts) { return nil }
    let policy = policy(handle).authorization
    let verdict = policy.judge(
      AuthorizationFacts(
        principal: details.peer?.id, source: facts.source, port: facts.port))
    details.rule = verdict.outcome.rule.map { policy.rules[$0].name }
    details.audit = verdict.audited.map { audited in
      let word = audited.isAllowed ? "allow" : "deny"
      return audited.rule.map { "\(word):\(policy.rules[$0].name)" } ?? word
    }
    switch verdict.outcome {
    case .allowed: return nil
    case .denied: return .deniedByPolicy
    case .notAllowed: return .notAllowedByPolicy
    }
  }

  /// The policy has changed: whoever it does not allow any more has to go.
  mutating func authorizeAgain(_ handle: Handle) {
    guard handle.it.end == nil, let details = handle.it.details else { return }
    switch handle.it.state {
    case .relaying: break
    // Judged already, and the application is being dialled.
    case .connecting where details.peer != nil || details.relayReason != nil: break
    case .vacant, .sniffing, .planning, .connecting, .handshaking, .draining, .closed: return
    }
    if let refusal = authorize(handle) {
      end(handle, as: .denied, refusal.rawValue, .accessDenied)
    }
  }

  // MARK: Enforcing

  /// Ends what is relayed as it is and would not be now.
  mutating func enforceAll() {
    for slot in 0..<slab.capacity {
      let handle = slab.handle(UInt32(slot))
      // Decided already, be it that the other end is still being dialled.
      guard handle.it.state == .relaying || handle.it.state == .connecting,
        handle.it.end == nil, let refusal = refusalNow(handle)
      else { continue }
      handle.it.details?.reason = refusal.rawValue
      link.counters.refused(refusal.rawValue)
      end(handle, .enforced)
    }
  }

  private func refusalNow(_ handle: Handle) -> Refusal? {
    guard let details = handle.it.details, let reason = details.relayReason else { return nil }
    if handle.it.direction == .outbound {
      guard let destination = details.destination else { return nil }
      let plan = policy(handle).outbound.plan(
        to: destination, serverName: details.hello?.serverName)
      switch plan {
      case .relay, .discover: return nil
      case .originate, .originateTLS: return .plaintextInStrict
      case .refuse(let refusal): return refusal
      }
    }
    guard let facts = inboundFacts(handle),
      case .refuse(let refusal) = policy(handle).inbound.plan(client: reason.client, facts)
    else { return nil }
    return refusal
  }
}
