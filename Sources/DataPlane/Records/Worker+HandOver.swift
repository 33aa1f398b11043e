internal import Policy
internal import TLS
internal import Telemetry

// Hand-over: after the handshake OpenSSL steps aside, and the connection's own record layer keyed
// with the same secrets goes on at the same record boundary.
extension Worker where IO: ~Copyable {
  /// How long a client's session waits for the tickets that follow a handshake.
  private static var ticketWaitNanoseconds: UInt64 { 1_000_000_000 }

  /// - Returns: false if the connection had to be refused.
  mutating func handOver(_ handle: Handle) -> Bool {
    guard let session = unsafe handle.it.session, let side = handle.it.tlsSide else { return false }
    if let obstacle = unsafe session.pointee.handOverObstacle {
      unsafe session.pointee.forgetSecrets()
      handle.it.details?.engineReason = obstacle.rawValue
      if policy(handle).records.kernelTLS == .require {
        refuse(handle, .kernelTLSFailed, detail: obstacle.rawValue)
        return false
      }
      link.counters.protected(by: .openssl)
      return true
    }
    guard let suite = unsafe session.pointee.cipherSuite,
      let layer = unsafe layers.take(
        RecordLayer(
          suite, isClient: side == .server,
          recordsPerKey: policy(handle).records.keyUpdateAfterRecords))
    else {
      refuse(handle, .relayMemoryLimit)
      return false
    }
    unsafe handle.it.records = unsafe layer
    let recordsSent = unsafe session.pointee.ticketRecordsSent
    // Two calls, so that no closure holds on to the worker.
    let isKeyed = unsafe session.pointee.handOver { send, receive in
      unsafe layer.pointee.install(
        send: send, receive: receive, recordsSent: recordsSent, with: &ciphers)
    }
    guard isKeyed else {
      refuse(handle, .relayMemoryLimit)
      return false
    }
    link.counters.protected(by: .user)
    // Sessions with outside servers are not resumed.
    if side == .server, handle.it.details?.origination == nil {
      handle.it.sessionDeadline = now + Self.ticketWaitNanoseconds
      scheduleDeadline(handle)
    } else {
      endTicketWait(handle)
    }
    return true
  }

  /// The session is of no more use, but for what of its last flight may still wait to be sent.
  mutating func endTicketWait(_ handle: Handle) {
    handle.it.sessionDeadline = 0
    scheduleDeadline(handle)
    guard let session = unsafe handle.it.session, unsafe !session.pointee.hasPendingOutput else {
      return
    }
    releaseSession(handle)
  }

  mutating func releaseSession(_ handle: Handle) {
    guard let session = unsafe handle.it.session else { return }
    unsafe session.deinitialize(count: 1)
    unsafe session.deallocate()
    unsafe handle.it.session = nil
  }

  mutating func releaseRecords(_ handle: Handle) {
    guard let layer = unsafe handle.it.records else { return }
    unsafe ciphers.forget(key: layer.pointee.send.identifier)
    unsafe ciphers.forget(key: layer.pointee.receive.identifier)
    unsafe layers.give(layer)
    unsafe handle.it.records = nil
    handle.it.sendMessage?.deallocate()
    handle.it.sendMessage = nil
    handle.it.receiveMessage?.deallocate()
    handle.it.receiveMessage = nil
  }

  /// Gives the session a ticket it waits for. It only ever sees whole records, in order and from
  /// the first one on, so its sequence number agrees with the layer's; whatever else comes ends
  /// its part, or it would answer by itself (a KeyUpdate, for one).
  ///
  /// - Parameter copy: the record as it came, in a send buffer with room behind it.
  mutating func passTicket(_ handle: Handle, _ copy: UnsafeMutableRawBufferPointer, count: Int) {
    guard let session = unsafe handle.it.session, unsafe !session.pointee.hasPendingOutput else {
      return endTicketWait(handle)
    }
    let record = unsafe UnsafeRawBufferPointer(rebasing: copy[..<count])
    let room = unsafe UnsafeMutableRawBufferPointer(rebasing: copy[count...])
    var answer = unsafe OutputWindow(base: UnsafeMutableRawPointer(session), capacity: 0)
    let step = unsafe session.pointee.open(record: record, into: room, output: &answer)
    if case .data = step, unsafe !session.pointee.hasPendingOutput { return }
    // A ticket OpenSSL does not like is no reason to end a connection that is sound. Its alert must
    // not go out: it is sealed with a nonce that the layer uses, too.
    handle.it.sessionDeadline = 0
    scheduleDeadline(handle)
    releaseSession(handle)
  }
}
