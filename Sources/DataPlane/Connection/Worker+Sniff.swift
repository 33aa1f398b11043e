internal import CLinux
internal import Net
internal import Policy
internal import Sniff
internal import TLS
internal import Telemetry

// Sniff and plan: what the client speaks decides what is done with it.
extension Worker where IO: ~Copyable {
  /// Bounds of the grace in which a ClientHello already under way may still arrive.
  private static var graceMinimumNanoseconds: UInt64 { 2_000_000 }
  private static var graceMaximumNanoseconds: UInt64 { 200_000_000 }

  /// The client's bytes, or its end, while it is not known what it speaks.
  mutating func sniffReceived(_ handle: Handle, _ completion: Completion) {
    handle.it.graceDeadline = 0
    guard completion.result > 0 else { return clientEndedUndecided(handle) }
    let count = Int(completion.result)
    let bytes = unsafe UnsafeRawBufferPointer(
      start: io.memory(ofBuffer: completion.buffer), count: count)
    // The usual case: everything is in one piece and nothing has to be kept.
    if handle.it.held.count == 0, let kind = unsafe classify(handle, bytes) {
      return unsafe decide(handle, kind, bytes, buffer: completion.buffer)
    }
    guard handle.it.state == .sniffing, !handle.it.client.isClosing else {
      return io.recycle(buffer: completion.buffer)
    }
    let isKept = unsafe hold(handle, bytes)
    io.recycle(buffer: completion.buffer)
    guard isKept else { return refuse(handle, .sniffMemoryLimit) }
    if handle.it.held.count > count, let kind = unsafe classify(handle, handle.it.held.bytes) {
      return unsafe decide(
        handle, kind, UnsafeRawBufferPointer(start: nil, count: 0), buffer: -1)
    }
    guard handle.it.state == .sniffing, !handle.it.client.isClosing else { return }
    if handle.it.helloDeadline == 0 { startHelloDeadline(handle) } else { scheduleDeadline(handle) }
    startReceive(handle, .client)
  }

  /// The kind of client, or nil if it cannot be told yet or was refused.
  private mutating func classify(_ handle: Handle, _ bytes: UnsafeRawBufferPointer) -> ClientKind? {
    guard let details = handle.it.details else { return nil }
    switch unsafe details.scan.classify(RawSpan(_unsafeBytes: bytes)) {
    case .incomplete:
      return nil
    case .malformed:
      refuse(handle, .malformedClientHello)
      return nil
    case .tooLarge:
      refuse(handle, .clientHelloTooLarge)
      return nil
    case .plaintext:
      return .plaintext
    case .tls(let hello):
      details.hello = hello
      return hello.offersMesh ? .mesh : .applicationTLS
    }
  }

  /// Plans and goes on.
  ///
  /// - Parameters:
  ///   - bytes: what arrived last and is not held yet.
  ///   - buffer: the receive buffer `bytes` lies in, or -1; this function sees to its recycling.
  private mutating func decide(
    _ handle: Handle, _ kind: ClientKind, _ bytes: UnsafeRawBufferPointer, buffer: Int32
  ) {
    switch plan(handle, kind) {
    case .refuse(let refusal):
      if buffer >= 0 { io.recycle(buffer: buffer) }
      refuse(handle, refusal)
    case .terminate:
      unsafe terminate(handle, bytes)
      if buffer >= 0 { io.recycle(buffer: buffer) }
    case .relay(let reason):
      handle.it.helloDeadline = 0
      scheduleDeadline(handle)
      handle.it.details?.reason = nil
      handle.it.details?.relayReason = reason
      handle.it.security = reason.security
      if let refusal = authorize(handle) {
        if buffer >= 0 { io.recycle(buffer: buffer) }
        return refuse(handle, refusal)
      }
      handle.it.client.receivedBytes += UInt64(handle.it.held.count + bytes.count)
      if handle.it.server.isConnected, buffer >= 0 {
        handle.it.server.outgoing = Outgoing(
          storage: .receiveBuffer, buffer: buffer, offset: 0, end: bytes.count)
        startRelay(handle)
        return
      }
      let isKept = unsafe hold(handle, bytes)
      if buffer >= 0 { io.recycle(buffer: buffer) }
      guard isKept else { return refuse(handle, .sniffMemoryLimit) }
      if handle.it.server.isConnected { return startRelay(handle) }
      handle.it.state = .connecting
      // Under strict nothing was dialled; a reload may have made it permissive since.
      if handle.it.server.inFlight == 0 { dial(handle) }
    }
  }

  private func plan(_ handle: Handle, _ kind: ClientKind) -> InboundPlan {
    if handle.it.direction == .mesh {
      return kind == .mesh ? .terminate : .refuse(.notMesh)
    }
    guard let facts = inboundFacts(handle) else { return .refuse(.noOriginalDestination) }
    return policy(handle).inbound.plan(client: kind, facts)
  }

  /// FIN, RST or another error of a client that has not said what it speaks.
  private mutating func clientEndedUndecided(_ handle: Handle) {
    // Part of a ClientHello and then the end is no plaintext; in strict there is none.
    if handle.it.held.count > 0 || handle.it.direction == .mesh || admitsMeshOnly(handle) {
      return refuse(handle, .clientClosedBeforeHello)
    }
    // A client that says nothing and half-closes is served like any other that says nothing.
    handle.it.client.hasEnded = true
    unsafe decide(handle, .silent, UnsafeRawBufferPointer(start: nil, count: 0), buffer: -1)
  }

  // MARK: Server-first protocols

  /// Waits, beside the client, for the application to speak; its bytes stay in the kernel until
  /// the connection is decided.
  mutating func watchServer(_ handle: Handle) {
    startPoll(handle, .server, events: Int16(POLLIN))
  }

  /// The application has spoken, or hung up, and the client has not.
  mutating func serverSpokeFirst(_ handle: Handle) {
    guard handle.it.held.count == 0 else { return }
    let roundTrip =
      (try? Socket.roundTripMicroseconds(handle.it.client.descriptor)).map(UInt64.init) ?? 0
    let grace = min(
      max(Self.graceMinimumNanoseconds, 2 * roundTrip * 1000), Self.graceMaximumNanoseconds)
    // Not `now`, which may be the start of a long batch: the grace is never shortened.
    handle.it.graceDeadline = Clock.monotonicNanoseconds() + grace
    scheduleDeadline(handle)
  }

  mutating func graceExpired(_ handle: Handle) {
    guard handle.it.state == .sniffing, handle.it.held.count == 0 else { return }
    if Socket.isReadable(handle.it.client.descriptor) {
      // It has spoken; only its completion has not come yet.
      handle.it.graceDeadline = Clock.monotonicNanoseconds() + Self.graceMinimumNanoseconds
      return startReceive(handle, .client)
    }
    if let facts = inboundFacts(handle), !policy(handle).inbound.isProbe(facts),
      shared.meshSources.contains(facts.source)
    {
      // It speaks mesh mTLS: silence is a ClientHello that has not come yet, not plaintext.
      handle.it.details?.reason = Refusal.silentMeshSource.rawValue
      return startHelloDeadline(handle)
    }
    unsafe decide(handle, .silent, UnsafeRawBufferPointer(start: nil, count: 0), buffer: -1)
  }

  /// The total deadline of sniffing and handshaking has passed.
  mutating func helloExpired(_ handle: Handle) {
    if handle.it.isProbe { handle.it.probeOutcome = .silence }
    if handle.it.state == .handshaking || handle.it.isProbe {
      return refuse(handle, .handshakeTimeout)
    }
    if handle.it.isAnnounced, handle.it.held.count == 0 {
      return refuse(handle, .announcedThenPlaintext, detail: "silence")
    }
    let isSilent = handle.it.held.count == 0 && handle.it.details?.reason != nil
    refuse(handle, isSilent ? .silentMeshSource : .sniffTimeout)
  }

  // MARK: Outbound

  /// Waits for the client's ClientHello, which stays in the kernel: it goes on to wherever the plan
  /// says.
  mutating func sniffServerName(_ handle: Handle) {
    handle.it.state = .sniffing
    startPoll(handle, .client, events: Int16(POLLIN))
  }

  /// Something, or an end, waits to be received from an outbound client.
  mutating func peekServerName(_ handle: Handle) {
    guard let details = handle.it.details, let buffer = sendBuffers.acquire(.usual) else {
      return refuse(handle, .sniffMemoryLimit)
    }
    let room = unsafe UnsafeMutableRawBufferPointer(
      start: sendBuffers.memory(buffer), count: Self.sendBufferBytes)
    let count = unsafe Socket.peek(handle.it.client.descriptor, into: room)
    let bytes = unsafe UnsafeRawBufferPointer(rebasing: room[..<max(count, 0)])
    let isWhole = count <= details.peekedBytes
    details.peekedBytes = max(count, 0)
    let found = unsafe details.scan.classify(RawSpan(_unsafeBytes: bytes))
    sendBuffers.release(buffer)
    switch found {
    case .malformed: refuse(handle, .malformedClientHello)
    case .tooLarge: refuse(handle, .clientHelloTooLarge)
    // An end or an error after part of a hello.
    case .incomplete where isWhole: refuse(handle, .clientClosedBeforeHello)
    case .incomplete: peekAgain(handle, after: count)
    case .plaintext: serverNameSniffed(handle)
    case .tls(let hello):
      details.hello = hello
      serverNameSniffed(handle)
    }
  }

  /// Polls for more than what is there already (SO_RCVLOWAT, socket(7)).
  private mutating func peekAgain(_ handle: Handle, after count: Int) {
    do throws(Errno) {
      try Socket.setReceiveLowWatermark(handle.it.client.descriptor, Int32(clamping: count + 1))
    } catch {
      return end(handle, .clientReset)
    }
    if handle.it.helloDeadline == 0 { startHelloDeadline(handle) }
    startPoll(handle, .client, events: Int16(POLLIN))
  }

  private mutating func serverNameSniffed(_ handle: Handle) {
    handle.it.isSniffed = true
    handle.it.helloDeadline = 0
    scheduleDeadline(handle)
    // A socket that is gone already needs nothing.
    try? Socket.setReceiveLowWatermark(handle.it.client.descriptor, 1)
    planOutbound(handle)
  }
}
