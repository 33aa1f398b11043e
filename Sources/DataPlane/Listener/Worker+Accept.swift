internal import CLinux
internal import Net
internal import Policy
internal import Synchronization
internal import Telemetry

// Accept: a new descriptor becomes a connection with a known destination, or is refused.
extension Worker where IO: ~Copyable {
  mutating func startAccepting(_ index: Int) {
    guard let listener = listeners[index].listener else { return }
    listeners[index].resumeAt = 0
    io.accept(
      listener.descriptor.number, Token(.accept, slot: UInt32(index), generation: 0))
  }

  mutating func acceptCompleted(_ completion: Completion) {
    let index = Int(completion.token.slot)
    guard let listener = listeners[index].listener else { return }
    let isEnding = isStopping || isDraining && listener.direction != .outbound
    if completion.result >= 0 {
      let descriptor = Descriptor(owning: completion.result)
      if isEnding {
        try? Socket.setResetOnClose(descriptor.number, true)
      } else {
        accepted(descriptor, on: listener)
      }
    }
    guard !completion.more else { return }
    guard !isEnding else { return closeListener(index) }
    switch Errno(-completion.result) {
    case Errno(ECONNABORTED), .interrupted:
      startAccepting(index)
    case _ where completion.result >= 0:
      startAccepting(index)
    default:
      // Out of descriptors, most likely. Accepting again at once would spin; the backlog keeps the
      // clients meanwhile.
      listeners[index].resumeAt = now + Self.acceptRetryNanoseconds
    }
  }

  mutating func retryAccepts() {
    for index in listeners.indices
    where listeners[index].resumeAt > 0 && now >= listeners[index].resumeAt {
      startAccepting(index)
    }
  }

  private mutating func closeListener(_ index: Int) {
    guard let listener = listeners[index].listener else { return }
    io.forget(listener.descriptor.number)
    listeners[index].listener = nil
  }

  /// Ends a listener; it is closed when its accept has completed.
  mutating func stopAccepting(_ index: Int) {
    guard let listener = listeners[index].listener else { return }
    if listeners[index].resumeAt > 0 {
      listeners[index].resumeAt = 0
      closeListener(index)
    } else {
      io.cancel(
        listener.descriptor.number, Token(.accept, slot: UInt32(index), generation: 0))
    }
  }

  private mutating func accepted(_ descriptor: consuming Descriptor, on listener: Listener) {
    let configured = namespaces[Int(listener.namespace)].epoch.limits.maximumConnections
    let limit = min(configured, slab.limit)
    let open = shared.openConnections.wrappingAdd(1, ordering: .relaxed).newValue
    link.counters.accepted()
    guard let handle = slab.take() else {
      shared.openConnections.wrappingSubtract(1, ordering: .relaxed)
      link.counters.refused(Refusal.connectionLimit.rawValue)
      link.counters.ended(nil)
      // Its own end of the loop: there is no slot to log from.
      try? Socket.setResetOnClose(descriptor.number, true)
      return
    }
    openSlots += 1
    connectionCount = (connectionCount + 1) & Self.connectionCountMask
    handle.it.state = .sniffing
    handle.it.id = firstID | connectionCount
    handle.it.direction = listener.direction
    handle.it.namespace = listener.namespace
    handle.it.acceptedAt = now
    handle.it.details = ConnectionDetails()
    handle.it.client.isConnected = true
    handle.it.client.descriptor = descriptor.release()
    guard open <= limit else { return refuse(handle, .connectionLimit) }
    begin(handle)
  }

  private mutating func begin(_ handle: Handle) {
    let client = handle.it.client.descriptor
    do throws(Errno) {
      handle.it.details?.source = try Socket.peerAddress(client)
      try Socket.setNoDelay(client)
      try Socket.setKeepAlive(client)
    } catch {
      // The client has gone again already.
      return end(handle, .clientReset)
    }
    switch handle.it.direction {
    case .mesh: beginMesh(handle)
    case .inbound: beginInbound(handle)
    case .outbound: beginOutbound(handle)
    }
  }

  private mutating func beginMesh(_ handle: Handle) {
    handle.it.details?.destination = try? Socket.localAddress(handle.it.client.descriptor)
    startHelloDeadline(handle)
    startReceive(handle, .client)
  }

  private mutating func beginInbound(_ handle: Handle) {
    guard let destination = recoverDestination(handle) else { return }
    let ports = namespaces[Int(handle.it.namespace)].ports
    guard destination.port != ports.inbound, destination.port != ports.outbound else {
      return refuse(handle, .selfCall)
    }
    // Localhost is trusted by many applications; nothing from outside may be dialled there.
    guard !destination.address.isLoopback, !destination.address.isUnspecified else {
      return refuse(handle, .notLocal)
    }
    if namespaces[Int(handle.it.namespace)].announces {
      let mark = (try? Socket.mark(handle.it.client.descriptor)) ?? 0
      handle.it.isAnnounced = mark & Mark.announced != 0
    }
    guard openServer(handle, bindingTo: destination), !holdUntilReady(handle) else { return }
    sniffInbound(handle)
  }

  mutating func sniffInbound(_ handle: Handle) {
    if admitsMeshOnly(handle) {
      startHelloDeadline(handle)
    } else {
      dial(handle)
    }
    guard handle.it.state == .sniffing, !handle.it.client.isClosing else { return }
    startReceive(handle, .client)
  }

  private mutating func beginOutbound(_ handle: Handle) {
    if recoverDestination(handle) != nil { planOutbound(handle) }
  }

  /// Where the connection was going before the redirect; refuses what cannot be known or is ours.
  private mutating func recoverDestination(_ handle: Handle) -> SocketAddress? {
    let client = handle.it.client.descriptor
    do throws(Errno) {
      let local = try Socket.localAddress(client)
      let original = try Socket.originalDestination(client, family: local.address.family)
      handle.it.details?.destination = original
      // Not redirected: the client dialled the listener itself.
      guard original != local else {
        refuse(handle, .selfCall)
        return nil
      }
      return original
    } catch {
      refuse(handle, .noOriginalDestination, detail: error.description)
      return nil
    }
  }

  mutating func startHelloDeadline(_ handle: Handle) {
    let limit = policy(handle).limits.handshakeTimeoutMilliseconds
    handle.it.helloDeadline = now + UInt64(limit) * 1_000_000
    scheduleDeadline(handle)
  }

  func policy(_ handle: Handle) -> NamespaceEpoch { namespaces[Int(handle.it.namespace)].epoch }

  func inboundFacts(_ handle: Handle) -> InboundFacts? {
    guard let source = handle.it.details?.source, let destination = handle.it.details?.destination
    else { return nil }
    return InboundFacts(
      source: source.address, port: destination.port, isAnnounced: handle.it.isAnnounced)
  }

  func admitsMeshOnly(_ handle: Handle) -> Bool {
    inboundFacts(handle).map(policy(handle).inbound.admitsMeshOnly) ?? true
  }
}
