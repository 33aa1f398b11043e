internal import CLinux
internal import Identity
internal import Net
internal import Policy
internal import Sniff
internal import TLS
internal import Telemetry

// Plan, outbound: what to do with a connection whose destination is known, and, where nothing says
// so, finding out whether a mesh proxy owns the other end.
extension Worker where IO: ~Copyable {
  mutating func planOutbound(_ handle: Handle) {
    guard let details = handle.it.details, let destination = details.destination else { return }
    handle.it.state = .planning
    if holdUntilReady(handle) { return }
    let policy = policy(handle).outbound
    if !handle.it.isSniffed, policy.needsServerName(for: destination) {
      return sniffServerName(handle)
    }
    follow(handle, policy.plan(to: destination, serverName: details.hello?.serverName))
  }

  private mutating func follow(_ handle: Handle, _ plan: OutboundPlan) {
    switch plan {
    case .refuse(let refusal):
      refuse(handle, refusal)
    case .relay(let reason):
      handle.it.details?.relayReason = reason
      handle.it.security = reason.security
      if handle.it.server.isConnected { startRelay(handle) } else { connect(handle) }
    case .originate(let expect):
      handle.it.details?.expect = expect
      beginOrigination(handle)
    case .originateTLS(let rule):
      guard let origination = namespaces[Int(handle.it.namespace)].originations[rule] else {
        return refuse(handle, .identityUnavailable)
      }
      handle.it.details?.origination = origination
      handle.it.tlsSide = .server
      connect(handle)
    case .discover:
      discover(handle)
    }
  }

  /// Nothing is dialled before there is an identity to speak with: the other proxy would wait for
  /// our ClientHello in vain.
  private mutating func beginOrigination(_ handle: Handle) {
    switch readiness(handle) {
    case .refused(let refusal): return refuse(handle, refusal)
    case .held:
      if handle.it.server.isConnected { dropServer(handle) }
      handle.it.isHeld = true
      return
    case .ready: break
    }
    handle.it.tlsSide = .server
    // Answered in the handshake of this very connection.
    if handle.it.server.isConnected, handle.it.details?.discovery == .announced {
      return originate(handle)
    }
    // Dialled in silence, and found to be mesh since: it is dropped unused.
    if handle.it.server.isConnected { dropServer(handle) }
    connect(handle, announces: mayAnnounce(handle))
  }

  private mutating func connect(_ handle: Handle, announces: Bool = false) {
    handle.it.state = .connecting
    if openServer(handle, bindingTo: nil, announces: announces) { dial(handle) }
  }

  /// Nothing is under way on it.
  private mutating func dropServer(_ handle: Handle) {
    try? Socket.setResetOnClose(handle.it.server.descriptor, true)
    closeDescriptor(handle, .server)
    handle.it.server = Leg()
  }

  // MARK: Finding out

  /// Whether our SYN may say that we are mesh.
  private func mayAnnounce(_ handle: Handle) -> Bool {
    guard namespaces[Int(handle.it.namespace)].announces,
      let destination = handle.it.details?.destination
    else { return false }
    return policy(handle).discovery.mayAsk(destination.address)
  }

  private mutating func discover(_ handle: Handle) {
    guard let destination = handle.it.details?.destination else { return }
    let settings = policy(handle).discovery
    let mayAnnounce = mayAnnounce(handle)
    guard settings.mayAsk(destination.address), mayAnnounce || settings.probe == .on else {
      return conclude(handle, .notAsked)
    }
    switch readiness(handle) {
    case .held: handle.it.isHeld = true
    // The SYN can still tell that the other end must not be spoken to in plaintext; a probe cannot.
    case .refused(let refusal) where !mayAnnounce: refuse(handle, refusal)
    case .ready, .refused:
      // Whoever was found by the mesh port does not hear the announcement, or is not heard.
      if !mayAnnounce || settings.probe == .on && isKnownAsMesh(handle) {
        probe(handle)
      } else {
        handle.it.isDiscovering = true
        connect(handle, announces: true)
      }
    }
  }

  private func isKnownAsMesh(_ handle: Handle) -> Bool {
    guard let destination = handle.it.details?.destination else { return false }
    return shared.meshAnswers.isMesh(destination.address, now: now)
  }

  /// The connection that asked in its SYN is there.
  mutating func discovered(_ handle: Handle) {
    handle.it.isDiscovering = false
    handle.it.state = .planning
    let mark = (try? Socket.mark(handle.it.server.descriptor)) ?? 0
    if mark & Mark.announced != 0 {
      handle.it.details?.discovery = .announced
      return conclude(handle, .mesh)
    }
    guard policy(handle).discovery.probe == .on, case .ready = readiness(handle) else {
      return conclude(handle, .silent)
    }
    probe(handle)
  }

  /// Asks the mesh port of the address, or whoever asked it a moment ago.
  private mutating func probe(_ handle: Handle) {
    guard let destination = handle.it.details?.destination else { return }
    let known = shared.meshAnswers.find(destination.address, now: now)
    if known?.isToRefresh ?? true {
      ask(meshPort(of: destination, handle), waiting: known == nil ? handle : nil)
    }
    if let known { probed(handle, isMesh: known.isMesh) }
  }

  private func meshPort(of destination: SocketAddress, _ handle: Handle) -> SocketAddress {
    SocketAddress(
      destination.address, port: namespaces[Int(handle.it.namespace)].ports.mesh,
      scopeID: destination.scopeID)
  }

  mutating func probed(_ handle: Handle, isMesh: Bool) {
    if isMesh { handle.it.details?.discovery = .meshPort }
    conclude(handle, isMesh ? .mesh : .noMeshPort)
  }

  /// The handshake that the answer of a mesh port promised did not come about: the proxy there may
  /// be gone. A peer that was there and is not trusted changes nothing.
  func noteBrokenPromise(_ handle: Handle, _ reason: String) {
    guard let details = handle.it.details, details.discovery == .meshPort,
      let destination = details.destination
    else { return }
    switch Refusal(rawValue: reason) {
    case .handshakeFailed, .handshakeTimeout, .peerClosedInHandshake:
      shared.meshAnswers.forget(destination.address)
    default: break
    }
  }

  private mutating func conclude(_ handle: Handle, _ answer: DiscoveryAnswer) {
    guard let details = handle.it.details, let destination = details.destination else { return }
    let policy = policy(handle).outbound
    // The policy may have become another one while the answer was waited for.
    let plan = policy.plan(to: destination, serverName: details.hello?.serverName)
    guard plan == .discover else {
      details.discovery = nil
      if handle.it.server.isConnected { dropServer(handle) }
      return follow(handle, plan)
    }
    let isPinned =
      policy.pins != nil && shared.pins.contains(destination, nowSeconds: Int64(time(nil)))
    follow(handle, policy.plan(found: answer, isPinned: isPinned))
  }

  // MARK: What is remembered of a peer

  /// The peer at the other end of an outbound connection is verified.
  ///
  /// - Returns: false if it must not be there.
  mutating func notePeer(_ handle: Handle) -> Bool {
    guard let details = handle.it.details, let destination = details.destination,
      let peer = details.peer?.id
    else { return true }
    let policy = policy(handle).outbound
    guard !details.expect.isEmpty || policy.admits(peer) else {
      refuse(handle, .unexpectedTrustDomain, detail: peer.description)
      return false
    }
    if let before = shared.knownPeers.note(destination, peer) {
      details.previousPeer = before
      link.counters.identityChanged()
    }
    if let pins = policy.pins {
      shared.pins.note(
        destination, ttlSeconds: pins.ttlSeconds, nowSeconds: Int64(time(nil)))
    }
    return true
  }
}
