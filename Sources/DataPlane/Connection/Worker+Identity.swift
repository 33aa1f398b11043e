internal import CLinux
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

// Identity: what a connection needs of our own, what it is told when there is none, and what happens
// to live connections when trust or an identity ends.
extension Worker where IO: ~Copyable {
  /// How often a connection whose certificate ends is looked at for a moment of silence.
  private static var lifetimeLookNanoseconds: UInt64 { 50_000_000 }
  /// How much sooner than its certificate a connection may be ended, so that all connections of a
  /// certificate do not come back at once: at random up to this part of its time, and this long.
  private static var lifetimeJitterPart: UInt64 { 10 }
  private static var lifetimeJitterMaximumNanoseconds: UInt64 { 60_000_000_000 }
  /// Ten years. A certificate may say that it never ends (RFC 5280 §4.1.2.5), which a clock in
  /// nanoseconds cannot.
  private static var lifetimeMaximumSeconds: Int64 { 315_360_000 }

  enum Readiness {
    case ready
    /// An identity is awaited; the connection is held until it comes or is given up.
    case held
    case refused(Refusal)
  }

  /// Whether a handshake can begin now.
  func readiness(_ handle: Handle) -> Readiness {
    let namespace = namespaces[Int(handle.it.namespace)]
    switch namespace.epoch.identity {
    case .awaited: return .held
    case .unavailable: return .refused(.identityUnavailable)
    case .ready(let identity):
      return identity.notAfterSeconds <= Int64(time(nil)) ? .refused(.identityExpired) : .ready
    }
  }

  /// Whether the connection waits because every one does while an identity is awaited.
  mutating func holdUntilReady(_ handle: Handle) -> Bool {
    guard policy(handle).holdsUntilReady, case .held = readiness(handle) else { return false }
    handle.it.isHeld = true
    return true
  }

  // MARK: A new epoch

  mutating func install(_ epoch: NamespaceEpoch, _ contexts: WorkerContexts, _ namespace: Int) {
    let trustBefore = namespaces[namespace].context?.identity.trustEpoch
    let before = namespaces[namespace].epoch
    let hasNewPolicy =
      before.authorization != epoch.authorization || before.inbound.probes != epoch.inbound.probes
    let context = contexts.mesh
    namespaces[namespace].epoch = epoch
    namespaces[namespace].context = context
    namespaces[namespace].originations = contexts.originations
    if let identity = context?.identity { namespaces[namespace].ownID = identity.id }
    let hasNewTrust = context != nil && context?.identity.trustEpoch != trustBefore
    for slot in 0..<slab.capacity {
      let handle = slab.handle(UInt32(slot))
      guard handle.it.end == nil, Int(handle.it.namespace) == namespace else { continue }
      switch handle.it.state {
      case .sniffing where handle.it.isHeld, .planning where handle.it.isHeld: release(handle)
      // Judged already, be it that the application is still being dialled. Without an identity a
      // peer may have been marked all the same.
      case .connecting where hasNewTrust || handle.it.details?.peer?.refusal != nil,
        .relaying where hasNewTrust || handle.it.details?.peer?.refusal != nil:
        _ = isStillTrusted(handle)
      case .vacant, .sniffing, .planning, .connecting, .handshaking, .relaying, .draining, .closed:
        break
      }
      if hasNewPolicy { authorizeAgain(handle) }
    }
  }

  /// Goes on with a connection that has waited for an identity, unless it still has to.
  private mutating func release(_ handle: Handle) {
    handle.it.isHeld = false
    // The epoch that brings the identity may bring another plan, too.
    if handle.it.direction == .outbound { return planOutbound(handle) }
    // Held before it was sniffed.
    if handle.it.details?.hello == nil {
      if !holdUntilReady(handle) { sniffInbound(handle) }
      return
    }
    unsafe terminate(handle, UnsafeRawBufferPointer(start: nil, count: 0))
  }

  /// Whether the peer of an mTLS connection would be accepted under the trust of this moment; ends
  /// the connection if not. A handshake may have begun under an earlier one.
  mutating func isStillTrusted(_ handle: Handle) -> Bool {
    guard let peer = handle.it.details?.peer,
      let refusal = peer.refusal
        ?? namespaces[Int(handle.it.namespace)].context?.refusal(of: peer)
    else { return true }
    end(handle, as: .revoked, refusal.rawValue, .certificateRevoked)
    return false
  }

  // MARK: connectionLifetime

  mutating func startLifetime(_ handle: Handle) {
    guard policy(handle).connectionLifetime == .certificate,
      let peer = handle.it.details?.peer, let session = unsafe handle.it.session
    else { return }
    let own = unsafe session.pointee.ownNotAfterSeconds
    let left = min(own, peer.leafNotAfterSeconds) - Int64(time(nil))
    let span = UInt64(min(max(left, 0), Self.lifetimeMaximumSeconds)) * 1_000_000_000
    let jitter = min(span / Self.lifetimeJitterPart, Self.lifetimeJitterMaximumNanoseconds)
    let end = now + max(span, 1)
    handle.it.details?.lifetimeEnd = end
    handle.it.lifetimeDeadline = end - (jitter > 0 ? .random(in: 0..<jitter) : 0)
    scheduleDeadline(handle)
  }

  /// Ends the connection in order at the first moment at which nothing is under way; at the end of
  /// its certificate it ends whatever is.
  mutating func lifetimeExpired(_ handle: Handle) {
    handle.it.lifetimeDeadline = 0
    guard handle.it.end == nil, let last = handle.it.details?.lifetimeEnd else { return }
    let isLast = now >= last
    switch handle.it.state {
    case .vacant, .draining, .closed: break
    case .sniffing, .planning, .connecting, .handshaking:
      if isLast { return end(handle, .lifetimeEnded) }
      handle.it.lifetimeDeadline = last
    case .relaying:
      if isLast || isIdle(handle) { return finish(handle, as: .lifetimeEnded) }
      handle.it.lifetimeDeadline = min(now + Self.lifetimeLookNanoseconds, last)
    }
  }
}
