internal import Policy
internal import TLS

// Sealing: plaintext for the TLS peer becomes records, and what the record layer itself has to say
// goes out between them.
extension Worker where IO: ~Copyable {
  /// Seals what a receive brought and sends it.
  mutating func seal(_ handle: Handle, to side: Side, buffer: Int32, count: Int) {
    considerKernel(handle)
    if handle.it.sendMessage != nil {
      handle.it[side.other].receivedBytes += UInt64(count)
      handle.it[side].outgoing = Outgoing(
        storage: .receiveBuffer, buffer: buffer, offset: 0, end: count)
      return startSend(handle, side)
    }
    let size = BufferPools.size(of: buffer)
    if size == .large, !sendBuffers.hasFree(.large) {
      // So many bulk connections are stalled: this one waits until another moves.
      handle.it[side.other].waiting = (buffer, Int32(count))
      return starve(handle, side.other)
    }
    guard var output = takeOutput(handle, to: side, size) else {
      return io.recycle(buffer: buffer)
    }
    handle.it[side.other].receivedBytes += UInt64(count)
    let bytes = unsafe UnsafeRawBufferPointer(start: io.memory(ofBuffer: buffer), count: count)
    let isSealed: Bool
    if let layer = unsafe handle.it.records {
      isSealed = unsafe layer.pointee.seal(bytes, to: &output.window, with: &ciphers)
    } else {
      isSealed = unsafe handle.it.session?.pointee.seal(bytes, output: &output.window) ?? false
    }
    io.recycle(buffer: buffer)
    send(handle, side, output)
    guard isSealed else {
      return protocolFailed(handle, HandshakeFailure(detail: "a record could not be sealed"))
    }
  }

  /// Sends what the record layer or the session itself has to say, if the leg is free; if it is
  /// not, the next send's completion comes back here.
  ///
  /// - Returns: whether something is being sent.
  @discardableResult
  mutating func sendControl(_ handle: Handle, _ side: Side) -> Bool {
    let leg = handle.it[side]
    if leg.isSending { return true }
    guard hasControl(handle), !leg.isClosing, leg.ending != .done,
      var output = takeOutput(handle, to: side)
    else { return false }
    if let layer = unsafe handle.it.records, unsafe layer.pointee.sendEngine == .kernel {
      guard let control = unsafe layer.pointee.takeControl() else {
        sendBuffers.release(output.buffer)
        return false
      }
      for index in 0..<control.count { output.window.append(control.bytes[index]) }
      send(handle, side, output, type: control.type)
      return true
    }
    if let session = unsafe handle.it.session {
      unsafe session.pointee.flush(output: &output.window)
    }
    if let layer = unsafe handle.it.records {
      let isSealed = unsafe layer.pointee.sealControl(to: &output.window, with: &ciphers)
      if !isSealed {
        send(handle, side, output)
        protocolFailed(handle, HandshakeFailure(detail: "a record could not be sealed"))
        return true
      }
      if handle.it.sessionDeadline == 0 { releaseSession(handle) }
    }
    send(handle, side, output)
    return handle.it[side].isSending
  }

  private func hasControl(_ handle: Handle) -> Bool {
    if let session = unsafe handle.it.session, unsafe session.pointee.hasPendingOutput {
      return true
    }
    return unsafe handle.it.records?.pointee.hasControl ?? false
  }

  /// The TLS peer is to learn that nothing more will come.
  mutating func oweCloseNotify(_ handle: Handle) {
    if let layer = unsafe handle.it.records {
      unsafe layer.pointee.oweCloseNotify()
    } else if let session = unsafe handle.it.session {
      var nowhere = unsafe OutputWindow(base: UnsafeMutableRawPointer(session), capacity: 0)
      unsafe session.pointee.sealCloseNotify(output: &nowhere)
    }
  }
}
