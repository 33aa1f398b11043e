internal import CLinux
internal import Net
internal import Policy
internal import Sniff
internal import Synchronization
internal import TLS
internal import Telemetry

// Drain and close: every way a connection ends comes through here.
extension Worker where IO: ~Copyable {
  /// How long an alert or close_notify is given to arrive before the socket is closed; closing at
  /// once with unread bytes would send RST and could overtake it.
  private static var lingerNanoseconds: UInt64 { 1_000_000_000 }

  // MARK: Reasons to end

  /// Refuses by name: the client sees RST at once.
  mutating func refuse(_ handle: Handle, _ refusal: Refusal, detail: String? = nil) {
    guard handle.it.end == nil else { return }
    handle.it.details?.reason = refusal.rawValue
    if let detail { handle.it.details?.detail = detail }
    if !handle.it.isProbe { link.counters.refused(refusal.rawValue) }
    noteBrokenPromise(handle, refusal.rawValue)
    end(handle, .refused)
  }

  /// Refuses the TLS peer: the alert goes out before its socket is closed, the other end is reset.
  mutating func refuseAfterAlert(_ handle: Handle, _ reason: String) {
    guard handle.it.end == nil else { return }
    handle.it.details?.reason = reason
    // Somebody waits for the answer.
    if handle.it.isProbe { return end(handle, .refused) }
    link.counters.refused(reason)
    noteBrokenPromise(handle, reason)
    handle.it.end = .refused
    leaveAfterAlert(handle)
  }

  /// The TLS peer broke the protocol, or sent an alert, while data was relayed.
  mutating func protocolFailed(_ handle: Handle, _ failure: HandshakeFailure) {
    guard handle.it.end == nil else { return }
    handle.it.details?.reason = failure.word
    handle.it.details?.detail = failure.detail
    handle.it.end = .protocolError
    leaveAfterAlert(handle)
  }

  /// Ends a connection that was let in and would not be now: the TLS peer gets an alert if the
  /// records are ours, all else is reset. One that is not relayed yet was refused.
  mutating func end(
    _ handle: Handle, as relayedEnd: ConnectionEnd, _ reason: String, _ alert: Alert
  ) {
    guard handle.it.end == nil else { return }
    handle.it.details?.reason = reason
    if !handle.it.isProbe { link.counters.refused(reason) }
    let end = handle.it.state == .relaying ? relayedEnd : .refused
    guard let layer = unsafe handle.it.records else { return self.end(handle, end) }
    unsafe layer.pointee.owe(alert)
    handle.it.end = end
    leaveAfterAlert(handle)
  }

  mutating func leaveAfterAlert(_ handle: Handle) {
    guard let side = handle.it.tlsSide else { return }
    handle.it.state = .draining
    startLinger(handle)
    closeLeg(handle, side.other, reset: true)
    if !sendControl(handle, side) { shutDown(handle, side) }
  }

  /// Ends the connection as `end` says; whatever is not an orderly end is a reset to both sides.
  mutating func end(_ handle: Handle, _ end: ConnectionEnd) {
    if handle.it.end == nil { handle.it.end = end }
    closeLegs(handle, reset: end != .closed)
  }

  // MARK: Lingering

  mutating func startLinger(_ handle: Handle) {
    handle.it.helloDeadline = 0
    handle.it.connectDeadline = 0
    handle.it.graceDeadline = 0
    handle.it.closeDeadline = now + Self.lingerNanoseconds
    scheduleDeadline(handle)
  }

  /// What still comes is not wanted; its end means that ours has arrived.
  mutating func lingerReceived(_ handle: Handle, _ side: Side, _ completion: Completion) {
    if completion.result < 0, handle.it.receiveMessage != nil, side == handle.it.tlsSide,
      kernelFault(Errno(-completion.result)) != nil
    {
      // The record that kTLS refuses stays in its queue; closing now would overtake the alert.
      return
    }
    guard completion.result > 0 else { return closeLegs(handle, reset: false) }
    io.recycle(buffer: completion.buffer)
    startReceive(handle, side)
  }

  // MARK: Closing

  mutating func closeLegs(_ handle: Handle, reset: Bool) {
    guard handle.it.state != .vacant else { return }
    handle.it.state = .closed
    handle.it.isHeld = false
    handle.it.helloDeadline = 0
    handle.it.connectDeadline = 0
    handle.it.graceDeadline = 0
    handle.it.closeDeadline = 0
    handle.it.sessionDeadline = 0
    handle.it.lifetimeDeadline = 0
    scheduleDeadline(handle)
    closeLeg(handle, .client, reset: reset)
    // Closing the first has made the slot vacant if the other was closed before.
    if handle.it.state == .closed { closeLeg(handle, .server, reset: reset) }
  }

  private mutating func closeLeg(_ handle: Handle, _ side: Side, reset: Bool) {
    guard handle.it[side].descriptor >= 0, !handle.it[side].isClosing else { return }
    // A socket that is gone already needs neither.
    try? Socket.setResetOnClose(handle.it[side].descriptor, reset)
    handle.it[side].isClosing = true
    if handle.it[side].inFlight == 0 {
      closeNow(handle, side)
    } else {
      cancelAll(handle, side)
    }
  }

  private mutating func cancelAll(_ handle: Handle, _ side: Side) {
    let leg = handle.it[side]
    if leg.isReceiving { io.cancel(leg.descriptor, handle.token(side.receive)) }
    if leg.isSending { io.cancel(leg.descriptor, handle.token(side.send)) }
    if leg.isPolling { io.cancel(leg.descriptor, handle.token(side.poll)) }
    if leg.isConnecting { io.cancel(leg.descriptor, handle.token(.connectServer)) }
  }

  /// While bytes are relayed the kernel must not end a connection in order by itself: should the
  /// process be killed, both ends see RST and not a stream that seems complete.
  mutating func setResetOnCrash(_ handle: Handle) {
    // A socket that is gone already needs nothing.
    try? Socket.setResetOnClose(handle.it.client.descriptor, true)
    try? Socket.setResetOnClose(handle.it.server.descriptor, true)
  }

  mutating func closeNow(_ handle: Handle, _ side: Side) {
    closeDescriptor(handle, side)
    releaseOutgoing(handle, side)
    if handle.it[side].waiting.buffer >= 0 { io.recycle(buffer: handle.it[side].waiting.buffer) }
    if handle.it[side.other].descriptor < 0 { vacate(handle) }
  }

  mutating func closeDescriptor(_ handle: Handle, _ side: Side) {
    io.forget(handle.it[side].descriptor)
    _ = close(handle.it[side].descriptor)
    handle.it[side].descriptor = -1
  }

  mutating func vacate(_ handle: Handle) {
    let probed = handle.it.isProbe ? handle.it.details?.destination?.address : nil
    let outcome = handle.it.probeOutcome
    let reason = handle.it.details?.reason.flatMap(Refusal.init)
    if probed == nil {
      report(handle)
      link.counters.ended(handle.it.isDecided ? handle.it.security : nil)
      noteSightingEnded(handle)
    }
    releaseSession(handle)
    releaseRecords(handle)
    releaseHeld(handle)
    deadlines.clear(handle.slot)
    shared.openConnections.wrappingSubtract(1, ordering: .relaxed)
    openSlots -= 1
    slab.vacate(handle)
    if let probed { probeEnded(probed, outcome, reason) }
  }

  mutating func decided(_ handle: Handle) {
    handle.it.isDecided = true
    let outcome: ConnectionOutcome
    if let reason = handle.it.details?.relayReason {
      outcome = .relayed(reason)
      noteSighting(handle, reason)
    } else {
      outcome = handle.it.details?.origination == nil ? .mutualTLS : .originatedTLS
    }
    link.counters.decided(
      handle.it.direction, outcome,
      undecidedMicroseconds: (Clock.monotonicNanoseconds() - handle.it.acceptedAt) / 1000)
  }

  // MARK: Sightings

  private func sighting(_ handle: Handle, _ reason: RelayReason) -> Sightings.Key? {
    guard let details = handle.it.details, let source = details.source,
      let destination = details.destination
    else { return nil }
    let peer = handle.it.direction == .outbound ? destination : source
    return Sightings.Key(
      direction: handle.it.direction, reason: reason, address: peer.address,
      port: destination.port)
  }

  private mutating func noteSighting(_ handle: Handle, _ reason: RelayReason) {
    guard let key = sighting(handle, reason) else { return }
    let hello = handle.it.details?.hello
    handle.it.isSighted = shared.sightings.began(
      key, name: hello.map { Sightings.Name(serverName: $0.serverName, alpn: $0.alpn.first) },
      nowMilliseconds: Timestamp.nowMilliseconds())
  }

  private func noteSightingEnded(_ handle: Handle) {
    guard handle.it.isSighted, let reason = handle.it.details?.relayReason,
      let key = sighting(handle, reason)
    else { return }
    shared.sightings.ended(key, nowMilliseconds: Timestamp.nowMilliseconds())
  }

  // MARK: The connection's line in the log

  private func report(_ handle: Handle) {
    guard let details = handle.it.details else { return }
    var record = ConnectionRecord(
      id: handle.it.id, endedAtMilliseconds: Timestamp.nowMilliseconds(),
      direction: handle.it.direction, end: handle.it.end ?? .closed,
      security: handle.it.isDecided ? handle.it.security : .none,
      bytesSent: handle.it.server.receivedBytes, bytesReceived: handle.it.client.receivedBytes,
      durationMicroseconds: (now - handle.it.acceptedAt) / 1000)
    record.reason = details.reason ?? details.relayReason?.rawValue
    record.detail = details.detail
    record.source = details.source
    record.destination = details.destination
    record.cipher = details.cipher
    record.handshake = details.handshake
    if let layer = unsafe handle.it.records {
      record.sendEngine = unsafe layer.pointee.sendEngine
      record.receiveEngine = unsafe layer.pointee.receiveEngine
    } else if handle.it.security == .mutualTLS || handle.it.security == .originatedTLS {
      record.sendEngine = .openssl
      record.receiveEngine = .openssl
    }
    record.engineReason = details.engineReason
    record.discovery = details.discovery
    record.previousIdentity = details.previousPeer
    record.rule = details.rule
    record.audit = details.audit
    record.serverName = details.hello?.serverName
    record.alpn = details.alpn ?? details.hello?.alpn.first
    let own = namespaces[Int(handle.it.namespace)].ownID
    if handle.it.security == .mutualTLS {
      let peer = details.peer?.id
      record.sourceIdentity = handle.it.direction == .outbound ? own : peer
      record.destinationIdentity = handle.it.direction == .outbound ? peer : own
    }
    shared.records.append(record)
  }

  // MARK: Drain and stop

  /// SIGTERM: nothing new comes in; what is open may finish.
  mutating func drainInbound() {
    isDraining = true
    for index in listeners.indices where listeners[index].listener?.direction != .outbound {
      stopAccepting(index)
    }
  }

  /// The drain deadline: what is open is closed in order.
  mutating func finishAll() {
    for slot in 0..<slab.capacity {
      let handle = slab.handle(UInt32(slot))
      switch handle.it.state {
      case .vacant, .draining, .closed: break
      case .sniffing, .planning, .connecting, .handshaking: end(handle, .stopped)
      case .relaying: finish(handle, as: .drained)
      }
    }
  }

  /// A connection that is idle at this moment is closed in order; one in the middle of something is
  /// reset, since an orderly end would make half of it look like the whole.
  mutating func finish(_ handle: Handle, as end: ConnectionEnd) {
    handle.it.end = end
    guard isIdle(handle) else { return closeLegs(handle, reset: true) }
    handle.it.client.hasEnded = true
    handle.it.server.hasEnded = true
    startLinger(handle)
    passEnd(handle, from: .client)
    if handle.it.state == .relaying { passEnd(handle, from: .server) }
  }

  /// Whether nothing is under way: what was received has been sent, whole.
  func isIdle(_ handle: Handle) -> Bool {
    for side in [Side.client, .server] {
      let leg = handle.it[side]
      if leg.isSending || leg.waiting.buffer >= 0 || (!leg.isReceiving && !leg.hasEnded) {
        return false
      }
    }
    return handle.it.held.count == 0
  }

  /// Whether we are ending it in order, by our own will.
  func isFinishing(_ handle: Handle) -> Bool {
    handle.it.end == .drained || handle.it.end == .lifetimeEnded
  }

  /// What arrives between our end and the peer's: its own end, or bytes that are lost, which
  /// the other side must not take for a whole stream.
  mutating func drainedReceived(_ handle: Handle, _ side: Side, _ completion: Completion) {
    guard completion.result > 0 else {
      if handle.it[side.other].isReceiving { return }
      return closeLegs(handle, reset: completion.result < 0)
    }
    let isEnd = handle.it.tlsSide == side && holdsOnlyCloseNotify(handle, completion)
    io.recycle(buffer: completion.buffer)
    if isEnd { startReceive(handle, side) } else { closeLegs(handle, reset: true) }
  }

  private mutating func holdsOnlyCloseNotify(
    _ handle: Handle, _ completion: Completion
  ) -> Bool {
    if unsafe handle.it.records != nil {
      let batch = openReceived(
        handle, buffer: completion.buffer, count: Int(completion.result))
      return batch.hasEnded && batch.count == 0
    }
    let bytes = unsafe UnsafeRawBufferPointer(
      start: io.memory(ofBuffer: completion.buffer), count: Int(completion.result))
    guard let session = unsafe handle.it.session, let scratch = sendBuffers.acquire() else {
      return false
    }
    defer { sendBuffers.release(scratch) }
    let plaintext = unsafe UnsafeMutableRawBufferPointer(
      start: sendBuffers.memory(scratch), count: Self.sendBufferBytes)
    var answer = unsafe OutputWindow(base: UnsafeMutableRawPointer(session), capacity: 0)
    var rest = unsafe bytes
    while case .record(let record) = unsafe nextRecord(handle, &rest) {
      let step = unsafe session.pointee.open(record: record, into: plaintext, output: &answer)
      if case .closeNotify = step { return true }
      guard case .data(0) = step else { return false }
    }
    return false
  }

  mutating func stopAll() {
    isStopping = true
    for index in listeners.indices { stopAccepting(index) }
    for slot in 0..<slab.capacity {
      let handle = slab.handle(UInt32(slot))
      if handle.it.state != .vacant { end(handle, .stopped) }
    }
  }
}
