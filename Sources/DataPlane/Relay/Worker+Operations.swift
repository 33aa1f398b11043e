internal import CLinux
internal import Net
internal import Policy
internal import TLS

/// A send buffer being filled with records or plaintext.
@safe struct Output {
  /// -1 if the leg is busy and nothing may be written now; the session keeps what it has to say.
  let buffer: Int32
  var window: OutputWindow
}

// Starting operations on a leg, and what every completion has in common.
extension Worker where IO: ~Copyable {
  /// - Parameter limit: the most bytes to take; 0 is whatever a buffer holds.
  mutating func startReceive(_ handle: Handle, _ side: Side, limit: Int = 0) {
    guard !handle.it[side].isReceiving, !handle.it[side].isClosing else { return }
    handle.it[side].isReceiving = true
    handle.it[side].inFlight += 1
    let descriptor = handle.it[side].descriptor
    let size = receiveSize(handle, side)
    if side == handle.it.tlsSide, let message = handle.it.receiveMessage {
      io.receive(descriptor, size, message, handle.token(side.receive))
    } else {
      io.receive(descriptor, size, limit: limit, handle.token(side.receive))
    }
  }

  /// A leg that keeps filling buffers gets larger ones: fewer system calls for as many bytes.
  private func receiveSize(_ handle: Handle, _ side: Side) -> BufferSize {
    handle.it[side].fullReceives >= Self.fullReceivesBeforeLarge ? .large : .usual
  }

  /// Counts what says whether the leg's buffers should be larger.
  mutating func noteReceived(_ handle: Handle, _ side: Side, _ completion: Completion) {
    guard completion.result > 0 else { return }
    if Int(completion.result) >= Self.receiveBufferBytes {
      // OpenSSL's stream takes what a usual buffer holds, and no more.
      let isStream = unsafe handle.it.tlsSide != nil && handle.it.records == nil
      if !isStream, handle.it[side].fullReceives < Self.fullReceivesBeforeLarge {
        handle.it[side].fullReceives += 1
      }
    } else {
      handle.it[side].fullReceives = 0
    }
  }

  mutating func startPoll(_ handle: Handle, _ side: Side, events: Int16) {
    guard !handle.it[side].isPolling, !handle.it[side].isClosing else { return }
    handle.it[side].isPolling = true
    handle.it[side].inFlight += 1
    io.poll(handle.it[side].descriptor, events: events, handle.token(side.poll))
  }

  /// Sends, or goes on sending, what the leg's `outgoing` says.
  mutating func startSend(_ handle: Handle, _ side: Side) {
    let outgoing = handle.it[side].outgoing
    let base: UnsafeMutableRawPointer?
    switch outgoing.storage {
    case .none: return
    case .receiveBuffer: unsafe base = unsafe io.memory(ofBuffer: outgoing.buffer)
    case .sendBuffer: unsafe base = unsafe sendBuffers.memory(outgoing.buffer)
    case .held: unsafe base = unsafe handle.it.held.base
    }
    handle.it[side].isSending = true
    handle.it[side].inFlight += 1
    let descriptor = handle.it[side].descriptor
    let bytes = unsafe UnsafeMutableRawBufferPointer(
      start: base.map { unsafe $0 + outgoing.offset }, count: outgoing.end - outgoing.offset)
    if side == handle.it.tlsSide, let message = handle.it.sendMessage {
      unsafe message.prepareToSend(bytes, type: outgoing.type)
      io.send(descriptor, message, handle.token(side.send))
    } else {
      unsafe io.send(
        descriptor, UnsafeRawBufferPointer(bytes),
        endsStream: handle.it[side].ending == .notifying, handle.token(side.send))
    }
  }

  /// The connection a completion belongs to, unless that is gone or this end of it is closing.
  mutating func landed(_ completion: Completion, _ side: Side) -> Handle? {
    guard let handle = slab.find(completion.token) else {
      if completion.buffer >= 0 { io.recycle(buffer: completion.buffer) }
      return nil
    }
    handle.it[side].inFlight -= 1
    guard handle.it[side].isClosing else { return handle }
    if completion.buffer >= 0 { io.recycle(buffer: completion.buffer) }
    if handle.it[side].inFlight == 0 { closeNow(handle, side) }
    return nil
  }

  // MARK: Buffers

  /// A send buffer to write records into that go to `side`; nil if the connection had to be refused.
  mutating func takeOutput(
    _ handle: Handle, to side: Side, _ size: BufferSize = .usual
  ) -> Output? {
    if handle.it[side].isSending, let session = unsafe handle.it.session {
      // Never written to: the capacity is 0.
      let base = UnsafeMutableRawPointer(session)
      return unsafe Output(buffer: -1, window: OutputWindow(base: base, capacity: 0))
    }
    guard let buffer = sendBuffers.acquire(size) else {
      refuse(handle, .relayMemoryLimit)
      return nil
    }
    return unsafe Output(
      buffer: buffer,
      window: OutputWindow(
        base: sendBuffers.memory(buffer), capacity: sendBuffers.bufferBytes(of: buffer)))
  }

  /// Sends what was written, or gives the buffer back if nothing was.
  ///
  /// - Parameter type: of the record the kernel is to make of it; nil is application data.
  mutating func send(
    _ handle: Handle, _ side: Side, _ output: borrowing Output, type: ContentType? = nil
  ) {
    send(handle, side, buffer: output.buffer, count: output.window.count, type: type)
  }

  mutating func send(
    _ handle: Handle, _ side: Side, buffer: Int32, count: Int, type: ContentType? = nil
  ) {
    guard buffer >= 0 else { return }
    guard count > 0 else { return sendBuffers.release(buffer) }
    handle.it[side].outgoing = Outgoing(
      storage: .sendBuffer, buffer: buffer, offset: 0, end: count, type: type?.rawValue)
    startSend(handle, side)
  }

  mutating func releaseOutgoing(_ handle: Handle, _ side: Side) {
    let outgoing = handle.it[side].outgoing
    handle.it[side].outgoing = Outgoing()
    switch outgoing.storage {
    case .none: break
    case .receiveBuffer: io.recycle(buffer: outgoing.buffer)
    case .sendBuffer: sendBuffers.release(outgoing.buffer)
    case .held: releaseHeld(handle)
    }
  }

  // MARK: Held bytes

  /// Keeps bytes until they can be passed on; false if there is no room for them.
  mutating func hold(_ handle: Handle, _ bytes: UnsafeRawBufferPointer) -> Bool {
    guard let source = bytes.baseAddress, bytes.count > 0 else { return true }
    let needed = handle.it.held.count + bytes.count
    if handle.it.held.capacity < needed {
      guard growHeld(handle, needed) else { return false }
    }
    guard let base = unsafe handle.it.held.base else { return false }
    if handle.it.held.start + needed > handle.it.held.capacity {
      unsafe memmove(base, base + handle.it.held.start, handle.it.held.count)
      handle.it.held.start = 0
    }
    unsafe (base + handle.it.held.start + handle.it.held.count).copyMemory(
      from: source, byteCount: bytes.count)
    handle.it.held.count = needed
    return true
  }

  private mutating func growHeld(_ handle: Handle, _ needed: Int) -> Bool {
    let capacity = BlockCache.capacity(for: needed)
    guard needed <= capacity else { return false }
    // While relaying there is at most one partial record; before, anyone may make us hold bytes.
    let isCounted = handle.it.state != .relaying
    if isCounted {
      let limit = policy(handle).limits.sniffMemoryMaximumBytes
      guard undecidedBytes + capacity <= limit else { return false }
      undecidedBytes += capacity
    }
    let block = unsafe blocks.take(capacity)
    let held = handle.it.held
    if let base = unsafe held.base {
      unsafe block.copyMemory(from: base + held.start, byteCount: held.count)
      unsafe blocks.give(base, held.capacity)
      if held.isCounted { undecidedBytes -= held.capacity }
    }
    unsafe handle.it.held.base = unsafe block
    handle.it.held.isCounted = isCounted
    handle.it.held.capacity = capacity
    handle.it.held.start = 0
    return true
  }

  mutating func releaseHeld(_ handle: Handle) {
    if let base = unsafe handle.it.held.base {
      unsafe blocks.give(base, handle.it.held.capacity)
      if handle.it.held.isCounted { undecidedBytes -= handle.it.held.capacity }
    }
    handle.it.held = Held()
  }
}
