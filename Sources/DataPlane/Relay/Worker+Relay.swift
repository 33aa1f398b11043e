internal import CLinux
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

// Relay: each direction is a receive on one leg followed by a send on the other, never both at
// once, so a slow reader slows its writer and nothing queues.
extension Worker where IO: ~Copyable {
  /// How often a half-closed connection is looked at.
  private static var halfCloseLookNanoseconds: UInt64 { 2_000_000_000 }

  /// Both ends are ready: bytes may flow.
  mutating func startRelay(_ handle: Handle) {
    handle.it.state = .relaying
    setResetOnCrash(handle)
    handle.it.helloDeadline = 0
    handle.it.graceDeadline = 0
    scheduleDeadline(handle)
    decided(handle)
    if handle.it.held.isCounted {
      undecidedBytes -= handle.it.held.capacity
      handle.it.held.isCounted = false
    }
    if handle.it.tlsSide == nil, handle.it.held.count > 0 {
      let held = handle.it.held
      handle.it.server.outgoing = Outgoing(
        storage: .held, buffer: -1, offset: held.start, end: held.start + held.count)
    }
    if handle.it.server.outgoing.storage != .none, !handle.it.server.isSending {
      startSend(handle, .server)
    }
    considerKernel(handle)
    pump(handle, from: .client)
    guard handle.it.state == .relaying else { return }
    pump(handle, from: .server)
    if handle.it.state == .relaying, handle.it.client.hasEnded {
      passEnd(handle, from: .client)
    }
  }

  /// Receives from a leg if what came from it before has been sent.
  func mayReceive(_ handle: Handle, from side: Side) -> Bool {
    handle.it.state == .relaying && !handle.it[side].hasEnded && !handle.it[side].isReceiving
      && !isBusy(handle, side.other) && handle.it[side].waiting.buffer < 0
  }

  /// Whether nothing more may be sent to a leg now.
  private func isBusy(_ handle: Handle, _ side: Side) -> Bool {
    handle.it[side].isSending || handle.it.isPausing && side == handle.it.tlsSide
  }

  mutating func pump(_ handle: Handle, from side: Side) {
    guard mayReceive(handle, from: side) else { return }
    if handle.it.tlsSide == side, hasHeldRecord(handle) {
      openHeld(handle, side)
    } else if handle.it.tlsSide == side, handle.it.kernelStep == .approaching {
      approachKernel(handle, side)
    } else {
      startReceive(handle, side)
    }
  }

  // MARK: Receiving

  mutating func receiveCompleted(_ side: Side, _ completion: Completion) {
    guard let handle = landed(completion, side) else { return }
    handle.it[side].isReceiving = false
    noteReceived(handle, side, completion)
    if completion.result <= 0, completion.buffer >= 0 { io.recycle(buffer: completion.buffer) }
    if completion.result == -ENOBUFS { return receiveFoundNoBuffer(handle, side) }
    switch handle.it.state {
    case .sniffing:
      if completion.result < 0 { return end(handle, side.reset) }
      sniffReceived(handle, completion)
    case .handshaking:
      handshakeReceived(handle, side, completion)
    case .relaying:
      relayReceived(handle, side, completion)
    case .draining:
      lingerReceived(handle, side, completion)
    case .planning, .connecting, .vacant, .closed:
      assertionFailure("nothing is received in this state")
      if completion.result > 0 { io.recycle(buffer: completion.buffer) }
      end(handle, .stopped)
    }
  }

  /// A leg that waits for a large buffer takes a usual one. With buffers left this was a burst
  /// larger than what the kernel had been given: try again at once. Without, wait for some to come
  /// back.
  private mutating func receiveFoundNoBuffer(_ handle: Handle, _ side: Side) {
    let wasPausing = handle.it.isPausing && side == handle.it.tlsSide
    if wasPausing { handle.it.isPausing = false }
    if handle.it[side].fullReceives >= Self.fullReceivesBeforeLarge {
      handle.it[side].fullReceives = 0
      startReceive(handle, side)
    } else if io.hasFreeBuffer(.usual) {
      startReceive(handle, side)
    } else {
      starve(handle, side)
    }
    if wasPausing { relayOn(handle, from: side.other) }
  }

  private mutating func relayReceived(_ handle: Handle, _ side: Side, _ completion: Completion) {
    let wasPausing = handle.it.isPausing && side == handle.it.tlsSide
    if wasPausing { handle.it.isPausing = false }
    if wasPausing, completion.result == -ECANCELED {
      // A drain that began meanwhile waits for this leg's end.
      if isFinishing(handle) { return startReceive(handle, side) }
      pump(handle, from: side)
      return relayOn(handle, from: side.other)
    }
    if isFinishing(handle) { return drainedReceived(handle, side, completion) }
    guard completion.result >= 0 else { return receiveFailed(handle, side, completion) }
    guard completion.result > 0 else {
      // Without close_notify the stream may have been cut by anyone on the path (RFC 8446 §6.1).
      // In the middle of a record it certainly was.
      let mayEnd =
        handle.it.details?.origination?.takesBareEnd == true && handle.it.held.count == 0
      if handle.it.tlsSide == side, !mayEnd { return end(handle, .truncated) }
      handle.it[side].hasEnded = true
      return passEnd(handle, from: side)
    }
    if isBusy(handle, side.other) {
      handle.it[side].waiting = (completion.buffer, completion.result)
    } else {
      relay(handle, side, buffer: completion.buffer, count: Int(completion.result))
    }
    if wasPausing { relayOn(handle, from: side.other) }
  }

  private mutating func receiveFailed(_ handle: Handle, _ side: Side, _ completion: Completion) {
    guard side == handle.it.tlsSide, handle.it.receiveMessage != nil,
      let layer = unsafe handle.it.records,
      let fault = kernelFault(Errno(-completion.result))
    else { return end(handle, side.reset) }
    // kTLS leaves the error on the socket, where it would fail the alert instead.
    _ = Socket.pendingError(handle.it[side].descriptor)
    protocolFailed(handle, HandshakeFailure(unsafe layer.pointee.fail(fault)))
  }

  private mutating func relay(_ handle: Handle, _ side: Side, buffer: Int32, count: Int) {
    if handle.it.tlsSide == side {
      open(handle, side, buffer: buffer, count: count)
    } else if handle.it.tlsSide == side.other {
      seal(handle, to: side.other, buffer: buffer, count: count)
    } else {
      handle.it[side].receivedBytes += UInt64(count)
      handle.it[side.other].outgoing = Outgoing(
        storage: .receiveBuffer, buffer: buffer, offset: 0, end: count)
      startSend(handle, side.other)
    }
  }

  // MARK: Sending

  mutating func sendCompleted(_ side: Side, _ completion: Completion) {
    guard let handle = landed(completion, side) else { return }
    handle.it[side].isSending = false
    guard completion.result > 0 else {
      return handle.it.state == .draining
        ? closeLegs(handle, reset: false) : end(handle, side.reset)
    }
    handle.it[side].outgoing.offset += Int(completion.result)
    let outgoing = handle.it[side].outgoing
    let isByKernel = handle.it.tlsSide == side && handle.it.sendMessage != nil
    if isByKernel { countKernelRecords(handle, bytes: Int(completion.result)) }
    if outgoing.offset < outgoing.end { return startSend(handle, side) }
    releaseOutgoing(handle, side)
    if handle.it.tlsSide == side {
      if isByKernel, outgoing.type == ContentType.handshake.rawValue {
        guard updateKernelKey(handle, side) else { return }
      }
      if sendControl(handle, side) || handle.it[side].isClosing { return }
      if handle.it.kernelStep == .approaching {
        pauseForKernel(handle, side)
        guard !handle.it[side].isSending, !handle.it[side].isClosing else { return }
      }
    }
    if handle.it[side].ending == .notifying { return shutDown(handle, side) }
    switch handle.it.state {
    case .relaying:
      relayOn(handle, from: side.other)
    case .draining:
      shutDown(handle, side)
    case .vacant, .sniffing, .planning, .connecting, .handshaking, .closed:
      break
    }
  }

  /// The other leg is free again: what waits goes first, then the source's end, then more of it.
  mutating func relayOn(_ handle: Handle, from side: Side) {
    guard handle.it.state == .relaying, !isBusy(handle, side.other) else { return }
    let waiting = handle.it[side].waiting
    if waiting.buffer >= 0 {
      handle.it[side].waiting = (-1, 0)
      relay(handle, side, buffer: waiting.buffer, count: Int(waiting.count))
    } else if handle.it[side].hasEnded {
      passEnd(handle, from: side)
    } else {
      pump(handle, from: side)
    }
  }

  // MARK: Ending a direction

  /// The source will send nothing more: tell the other side, once everything before it is sent.
  mutating func passEnd(_ handle: Handle, from side: Side) {
    let sink = side.other
    if handle.it.end == nil { watchHalfClosed(handle) }
    guard !handle.it[sink].isSending, handle.it[sink].ending == .open else { return }
    notifyEnd(handle, sink)
  }

  /// close_notify and FIN on the TLS leg, FIN on a plain one.
  mutating func notifyEnd(_ handle: Handle, _ side: Side) {
    guard handle.it.tlsSide == side else { return shutDown(handle, side) }
    oweCloseNotify(handle)
    handle.it[side].ending = .notifying
    let isSending = sendControl(handle, side)
    guard handle.it[side].descriptor >= 0, !handle.it[side].isClosing else { return }
    if !isSending { shutDown(handle, side) }
  }

  mutating func shutDown(_ handle: Handle, _ side: Side) {
    _ = shutdown(handle.it[side].descriptor, Int32(SHUT_WR))
    handle.it[side].ending = .done
    if handle.it.state == .draining { return startReceive(handle, side) }
    // Draining waits for what the peers still have to say.
    if handle.it[side.other].ending == .done, handle.it.end == nil { end(handle, .closed) }
  }

  /// One direction is closed. A look now and then tells whether the other still moves, and whether
  /// the end that closed has been reset since, which no receive reports after a FIN.
  private mutating func watchHalfClosed(_ handle: Handle) {
    guard handle.it.closeDeadline == 0 else { return }
    renewHalfClose(handle)
    handle.it.closeDeadline = now + Self.halfCloseLookNanoseconds
    scheduleDeadline(handle)
  }

  private mutating func renewHalfClose(_ handle: Handle) {
    let limit = policy(handle).limits.halfCloseTimeoutMilliseconds
    handle.it.bytesAtLastCheck = handle.it.client.receivedBytes + handle.it.server.receivedBytes
    handle.it.halfCloseExpiry = now + UInt64(limit) * 1_000_000
  }

  mutating func closeExpired(_ handle: Handle) {
    guard handle.it.state == .relaying, handle.it.end == nil else {
      return closeLegs(handle, reset: false)
    }
    for side in [Side.client, .server] where handle.it[side].hasEnded {
      if Socket.pendingError(handle.it[side].descriptor).code != 0 {
        return end(handle, side.reset)
      }
    }
    let bytes = handle.it.client.receivedBytes + handle.it.server.receivedBytes
    if bytes != handle.it.bytesAtLastCheck {
      renewHalfClose(handle)
    } else if now >= handle.it.halfCloseExpiry {
      return end(handle, .halfCloseTimeout)
    }
    handle.it.closeDeadline = min(
      now + Self.halfCloseLookNanoseconds, max(handle.it.halfCloseExpiry, now + 1))
  }

  mutating func pollCompleted(_ side: Side, _ completion: Completion) {
    guard let handle = landed(completion, side) else { return }
    handle.it[side].isPolling = false
    guard handle.it.state == .sniffing else { return }
    if side == .server { serverSpokeFirst(handle) } else { peekServerName(handle) }
  }
}
