internal import CLinux
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

/// How far a connection is on its way to the kernel engine, which it takes once, or never.
enum KernelStep: UInt8 {
  /// It has not carried enough yet.
  case undecided
  /// It goes there as soon as a record's end is reached and nothing is in flight on the TLS leg.
  case approaching
  case taken
  /// The kernel is of no use to it, or did not take it.
  case declined
}

// The kernel engine: a long flow's records are handed to kTLS, each direction on its own, at a
// record boundary, with nothing in flight on the socket.
extension Worker where IO: ~Copyable {
  /// Looks whether the connection has carried enough; to be called when bytes were relayed.
  mutating func considerKernel(_ handle: Handle) {
    guard handle.it.kernelStep == .undecided, let side = handle.it.tlsSide,
      let layer = unsafe handle.it.records, unsafe handle.it.session == nil
    else { return }
    let bytes = handle.it.client.receivedBytes + handle.it.server.receivedBytes
    guard bytes >= UInt64(policy(handle).records.kernelTLSAfterBytes) else { return }
    let ways = unsafe kernelWays(handle, layer)
    guard ways.send || ways.receive, !handle.it[side].hasEnded, handle.it[side].ending == .open
    else {
      handle.it.kernelStep = .declined
      return
    }
    handle.it.kernelStep = .approaching
  }

  /// What was being sent to the TLS peer has left: if a receive is all that is in the way, it is
  /// cancelled, and nothing is sent until that has completed, which needs no peer.
  mutating func pauseForKernel(_ handle: Handle, _ side: Side) {
    guard handle.it.state == .relaying, handle.it[side].ending == .open,
      let layer = unsafe handle.it.records
    else { return }
    guard handle.it[side].isReceiving else { return pump(handle, from: side) }
    let isMidRecord = unsafe handle.it.held.count > 0 && kernelWays(handle, layer).receive
    guard !isMidRecord, !handle.it.isPausing else { return }
    handle.it.isPausing = true
    io.cancel(handle.it[side].descriptor, handle.token(side.receive))
  }

  @unsafe private func kernelWays(
    _ handle: Handle, _ layer: UnsafeMutablePointer<RecordLayer>
  ) -> (send: Bool, receive: Bool) {
    let suite = unsafe layer.pointee.suite
    let isCulvert = handle.it.details?.alpn == TLSContext.culvertProtocol
    return (kernel.maySend(suite), kernel.mayReceive(suite, peerUpdatesKeys: isCulvert))
  }

  /// Instead of the usual receive from the TLS leg: goes to the kernel if nothing is in the way,
  /// else receives, where a record has begun only what is missing of it.
  mutating func approachKernel(_ handle: Handle, _ side: Side) {
    guard let layer = unsafe handle.it.records else { return }
    let ways = unsafe kernelWays(handle, layer)
    guard handle.it[side].ending == .open else {
      handle.it.kernelStep = .declined
      return startReceive(handle, side)
    }
    if ways.receive, handle.it.held.count > 0 {
      return startReceive(handle, side, limit: missingOfHeldRecord(handle))
    }
    // The peer may read again only when it has been heard.
    guard !handle.it[side].isSending else { return startReceive(handle, side) }
    handle.it.kernelStep = .taken
    do throws(Errno) {
      try unsafe enterKernel(handle, side, layer, ways)
    } catch Errno(ENOTCONN) {
      // Its FIN is here already: there is nothing left to gain.
      handle.it.kernelStep = .declined
    } catch {
      handle.it.kernelStep = .declined
      handle.it.details?.engineReason = "kernel_tls_failed"
      handle.it.details?.detail = "kTLS: \(error)"
      if policy(handle).records.kernelTLS == .require { return refuse(handle, .kernelTLSFailed) }
    }
    startReceive(handle, side)
    relayOn(handle, from: side.other)
  }

  /// The header's, if that is not whole, else the record's.
  private func missingOfHeldRecord(_ handle: Handle) -> Int {
    let length = unsafe Self.recordLength(handle.it.held.bytes) ?? RecordLayer.headerBytes
    return max(length - handle.it.held.count, 1)
  }

  @unsafe private func enterKernel(
    _ handle: Handle, _ side: Side, _ layer: UnsafeMutablePointer<RecordLayer>,
    _ ways: (send: Bool, receive: Bool)
  ) throws(Errno) {
    let descriptor = handle.it[side].descriptor
    let suite = unsafe layer.pointee.suite
    try KernelTLS.attach(descriptor)
    if ways.send {
      try unsafe KernelTLS.install(.send, suite, &layer.pointee.send, on: descriptor)
      unsafe layer.pointee.sendEngine = .kernel
      handle.it.sendMessage = KernelMessage()
      link.counters.protected(by: .kernelSend)
    }
    if ways.receive {
      try unsafe KernelTLS.install(.receive, suite, &layer.pointee.receive, on: descriptor)
      unsafe layer.pointee.receiveEngine = .kernel
      handle.it.receiveMessage = KernelMessage()
      link.counters.protected(by: .kernelReceive)
    }
  }

  // MARK: Receiving

  /// Takes what the kernel has opened: plaintext, or a record of another type.
  mutating func openedByKernel(_ handle: Handle, buffer: Int32, count: Int) -> OpenedBatch {
    var batch = OpenedBatch()
    guard let layer = unsafe handle.it.records, let side = handle.it.tlsSide,
      let type = handle.it.receiveMessage?.receivedType
    else { return batch }
    let content = unsafe UnsafeRawBufferPointer(start: io.memory(ofBuffer: buffer), count: count)
    switch unsafe layer.pointee.take(content, type: type, with: &ciphers) {
    case .data(let bytes): batch.count = bytes
    case .nothing, .tickets: break
    case .closeNotify: batch.hasEnded = true
    case .failed(let fault): batch.fault = fault
    case .keyUpdate:
      let descriptor = handle.it[side].descriptor
      do throws(Errno) {
        let suite = unsafe layer.pointee.suite
        try unsafe KernelTLS.install(.receive, suite, &layer.pointee.receive, on: descriptor)
      } catch {
        handle.it.details?.engineReason = "key_update_unsupported"
        batch.fault = unsafe layer.pointee.fail(
          RecordFault(.internalError, "the kernel does not take the peer's next key"))
      }
    }
    return batch
  }

  /// What the kernel says of a record it does not open.
  func kernelFault(_ error: Errno) -> RecordFault? {
    switch error {
    case Errno(EBADMSG): RecordFault(.badRecordMAC, "a record that does not authenticate")
    case Errno(EMSGSIZE): RecordFault(.recordOverflow, "a record longer than RFC 8446 §5.2 allows")
    case Errno(EINVAL): RecordFault(.unexpectedMessage, "no TLS record")
    default: nil
    }
  }

  // MARK: Sending

  /// A record ends with each send, also where the kernel took only a part.
  func countKernelRecords(_ handle: Handle, bytes: Int) {
    unsafe handle.it.records?.pointee.countKernelRecords(bytes: bytes)
  }

  /// A KeyUpdate of ours has left: what follows has the next key.
  ///
  /// - Returns: false if the connection had to be ended.
  mutating func updateKernelKey(_ handle: Handle, _ side: Side) -> Bool {
    guard let layer = unsafe handle.it.records else { return false }
    let suite = unsafe layer.pointee.suite
    do throws(Errno) {
      guard unsafe ciphers.update(&layer.pointee.send, suite) else { throw Errno(ENOMEM) }
      try unsafe KernelTLS.install(
        .send, suite, &layer.pointee.send, on: handle.it[side].descriptor)
      return true
    } catch {
      handle.it.details?.engineReason = "key_update_unsupported"
      handle.it.details?.detail = "kTLS: \(error)"
      end(handle, .protocolError)
      return false
    }
  }
}
