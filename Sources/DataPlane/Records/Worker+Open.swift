internal import CLinux
internal import Policy
internal import TLS

/// What the records of one receive came to: plaintext that lies together in the receive buffer.
struct OpenedBatch {
  /// From the beginning of the received bytes; negative where held bytes came before them.
  var offset = 0
  var count = 0
  var hasEnded = false
  var fault: RecordFault?
  /// What did not make a whole record could be kept.
  var isKept = true
}

// Opening: records from the TLS peer become plaintext for the other leg, by whichever engine the
// connection has.
extension Worker where IO: ~Copyable {
  /// Opens what a receive brought and sends the plaintext on.
  mutating func open(_ handle: Handle, _ side: Side, buffer: Int32, count: Int) {
    guard unsafe handle.it.records != nil else {
      let bytes = unsafe UnsafeRawBufferPointer(start: io.memory(ofBuffer: buffer), count: count)
      unsafe openByStream(handle, side, bytes)
      return io.recycle(buffer: buffer)
    }
    let batch = openReceived(handle, buffer: buffer, count: count)
    pass(handle, side, batch, buffer: buffer)
  }

  /// What a receive brought, by the user engine or the kernel.
  mutating func openReceived(_ handle: Handle, buffer: Int32, count: Int) -> OpenedBatch {
    handle.it.receiveMessage == nil
      ? openRecords(handle, buffer: buffer, count: count)
      : openedByKernel(handle, buffer: buffer, count: count)
  }

  /// Opens records that were received while the handshake went on.
  mutating func openHeld(_ handle: Handle, _ side: Side) {
    guard unsafe handle.it.records != nil else {
      return unsafe openByStream(handle, side, UnsafeRawBufferPointer(start: nil, count: 0))
    }
    guard let buffer = io.takeBuffer() else { return starve(handle, side) }
    let count = min(handle.it.held.count, Self.receiveBufferBytes)
    let memory = unsafe io.memory(ofBuffer: buffer)
    if let source = unsafe handle.it.held.bytes.baseAddress {
      unsafe memory.copyMemory(from: source, byteCount: count)
    }
    // What is left of the handshake's last receive cannot be more.
    guard count == handle.it.held.count else {
      io.recycle(buffer: buffer)
      return refuse(handle, .relayMemoryLimit)
    }
    releaseHeld(handle)
    let batch = openRecords(handle, buffer: buffer, count: count)
    pass(handle, side, batch, buffer: buffer)
  }

  private mutating func pass(
    _ handle: Handle, _ side: Side, _ batch: OpenedBatch, buffer: Int32
  ) {
    if batch.hasEnded { handle.it[side].hasEnded = true }
    handle.it[side].receivedBytes += UInt64(batch.count)
    if batch.count > 0 {
      handle.it[side.other].outgoing = Outgoing(
        storage: .receiveBuffer, buffer: buffer, offset: batch.offset,
        end: batch.offset + batch.count)
      startSend(handle, side.other)
    } else {
      io.recycle(buffer: buffer)
    }
    if let fault = batch.fault { return protocolFailed(handle, HandshakeFailure(fault)) }
    guard batch.isKept else { return refuse(handle, .relayMemoryLimit) }
    sendControl(handle, side)
    considerKernel(handle)
    if batch.count > 0 { return }
    if handle.it[side].hasEnded { passEnd(handle, from: side) } else { pump(handle, from: side) }
  }

  // MARK: The user engine

  /// Opens the whole records in place and moves their plaintext together; what is left is held.
  private mutating func openRecords(_ handle: Handle, buffer: Int32, count: Int) -> OpenedBatch {
    var batch = OpenedBatch()
    let memory = unsafe io.memory(ofBuffer: buffer)
    let held = handle.it.held.count
    // Less than a record: where it does not fit in front, a record was too long already.
    if let source = unsafe handle.it.held.bytes.baseAddress, held > 0 {
      unsafe (memory - held).copyMemory(from: source, byteCount: held)
      handle.it.held.start = 0
      handle.it.held.count = 0
    }
    var position = -held
    var filled = position
    while let length = unsafe Self.recordLength(
      UnsafeRawBufferPointer(start: memory + position, count: count - position)),
      length <= count - position || length > TLSSession.maximumRecordBytes
    {
      let record = unsafe UnsafeMutableRawBufferPointer(start: memory + position, count: length)
      switch unsafe openRecord(handle, record) {
      case .data(let bytes):
        let content = position + RecordLayer.headerBytes
        if batch.count == 0 {
          batch.offset = content
          filled = content
        } else if bytes > 0 {
          unsafe memmove(memory + filled, memory + content, bytes)
        }
        filled += bytes
        batch.count += bytes
      case .nothing, .tickets, .keyUpdate: break
      case .closeNotify:
        batch.hasEnded = true
        return finished(handle, batch)
      case .failed(let fault):
        batch.fault = fault
        return finished(handle, batch)
      }
      position += length
    }
    let rest = unsafe UnsafeRawBufferPointer(start: memory + position, count: count - position)
    batch.isKept = unsafe hold(handle, rest)
    return finished(handle, batch)
  }

  private mutating func finished(_ handle: Handle, _ batch: OpenedBatch) -> OpenedBatch {
    if handle.it.held.count == 0 { releaseHeld(handle) }
    return batch
  }

  /// Opens one record, of which a session that waits for tickets gets a copy.
  private mutating func openRecord(
    _ handle: Handle, _ record: UnsafeMutableRawBufferPointer
  ) -> Opened {
    guard let layer = unsafe handle.it.records else { return .nothing }
    guard record.count <= TLSSession.maximumRecordBytes else {
      return unsafe .failed(
        layer.pointee.fail(
          RecordFault(.recordOverflow, "a record longer than RFC 8446 §5.2 allows")))
    }
    guard handle.it.sessionDeadline > 0, let scratch = sendBuffers.acquire() else {
      // A session that misses a record cannot read the next one.
      if handle.it.sessionDeadline > 0 { endTicketWait(handle) }
      return unsafe layer.pointee.open(record, with: &ciphers)
    }
    defer { sendBuffers.release(scratch) }
    let copy = unsafe UnsafeMutableRawBufferPointer(
      start: sendBuffers.memory(scratch), count: Self.sendBufferBytes)
    unsafe copy.copyMemory(from: UnsafeRawBufferPointer(record))
    let opened = unsafe layer.pointee.open(record, with: &ciphers)
    if opened == .tickets {
      unsafe passTicket(handle, copy, count: record.count)
    } else {
      endTicketWait(handle)
    }
    return opened
  }

  // MARK: The OpenSSL stream

  /// Opens the records that are whole, as many as a send buffer takes, and sends the plaintext on.
  private mutating func openByStream(
    _ handle: Handle, _ side: Side, _ bytes: UnsafeRawBufferPointer
  ) {
    guard let session = unsafe handle.it.session, let buffer = sendBuffers.acquire() else {
      return refuse(handle, .relayMemoryLimit)
    }
    let plaintext = unsafe UnsafeMutableRawBufferPointer(
      start: sendBuffers.memory(buffer), count: Self.sendBufferBytes)
    var answer = unsafe OutputWindow(base: UnsafeMutableRawPointer(session), capacity: 0)
    var rest = unsafe bytes
    var filled = 0
    var failure: HandshakeFailure?
    loop: while plaintext.count - filled >= TLSSession.maximumPlaintextBytes {
      switch unsafe nextRecord(handle, &rest) {
      case .none: break loop
      case .tooLong:
        failure = HandshakeFailure(detail: "a record is longer than RFC 8446 §5.2 allows")
        break loop
      case .record(let record):
        let room = unsafe UnsafeMutableRawBufferPointer(rebasing: plaintext[filled...])
        switch unsafe session.pointee.open(record: record, into: room, output: &answer) {
        case .data(let count): filled += count
        case .closeNotify:
          handle.it[side].hasEnded = true
          break loop
        case .failed(let reason):
          failure = reason
          break loop
        }
      }
    }
    let isKept = handle.it[side].hasEnded ? true : unsafe hold(handle, rest)
    if handle.it.held.count == 0 { releaseHeld(handle) }
    handle.it[side].receivedBytes += UInt64(filled)
    send(handle, side.other, buffer: buffer, count: filled)
    if let failure { return protocolFailed(handle, failure) }
    guard isKept else { return refuse(handle, .relayMemoryLimit) }
    sendControl(handle, side)
    if filled > 0 { return }
    if handle.it[side].hasEnded { passEnd(handle, from: side) } else { pump(handle, from: side) }
  }
}

extension HandshakeFailure {
  init(_ fault: RecordFault) {
    if fault.isReceived {
      self.init(alertReceived: fault.alert)
    } else {
      self.init(alertSent: fault.alert, detail: "\(fault.detail)")
    }
  }
}
