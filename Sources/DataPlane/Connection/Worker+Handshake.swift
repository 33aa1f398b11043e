internal import Identity
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

// Handshake and judge: mutual TLS with the peer, then what its identity may do.
extension Worker where IO: ~Copyable {
  /// Inbound and mesh: the client's ClientHello is ours to answer.
  ///
  /// - Parameter bytes: what arrived last and is not held yet.
  mutating func terminate(_ handle: Handle, _ bytes: UnsafeRawBufferPointer) {
    switch readiness(handle) {
    case .ready: break
    case .refused(let refusal): return refuse(handle, refusal)
    case .held:
      handle.it.helloDeadline = 0
      scheduleDeadline(handle)
      guard unsafe hold(handle, bytes) else { return refuse(handle, .sniffMemoryLimit) }
      handle.it.isHeld = true
      return
    }
    handle.it.tlsSide = .client
    if handle.it.helloDeadline == 0 { startHelloDeadline(handle) } else { scheduleDeadline(handle) }
    let role: TLSRole = handle.it.direction == .mesh ? .meshServer : .server
    guard openSession(handle, role: role, expect: []) else { return }
    unsafe handshake(handle, bytes)
  }

  /// Outbound: we open the handshake.
  mutating func originate(_ handle: Handle) {
    // A probe has its own, for the whole of it.
    if !handle.it.isProbe { startHelloDeadline(handle) }
    let role: TLSRole = handle.it.isProbe ? .meshClient : .client
    guard openSession(handle, role: role, expect: handle.it.details?.expect ?? []) else {
      return
    }
    guard var output = takeOutput(handle, to: .server) else { return }
    guard let session = unsafe handle.it.session else { return }
    let step = unsafe session.pointee.handshake(
      record: UnsafeRawBufferPointer(start: nil, count: 0), output: &output.window)
    send(handle, .server, output)
    if case .failed(let failure) = step { return handshakeFailed(handle, failure) }
    startReceive(handle, .server)
  }

  private mutating func openSession(
    _ handle: Handle, role: TLSRole, expect: [SPIFFEID]
  ) -> Bool {
    handle.it.state = .handshaking
    let origination = handle.it.details?.origination
    let context = namespaces[Int(handle.it.namespace)].context
    guard origination != nil || context != nil else {
      refuse(handle, .identityUnavailable)
      return false
    }
    do throws(TLSSetupError) {
      let session: TLSSession
      if let origination {
        session = try TLSSession(origination: origination.context)
      } else if let context {
        session = try TLSSession(
          context, role: role, expect: expect,
          server: role.isClient ? handle.it.details?.destination : nil)
      } else {
        return false
      }
      let place = UnsafeMutablePointer<TLSSession>.allocate(capacity: 1)
      unsafe place.initialize(to: session)
      unsafe handle.it.session = unsafe place
      return true
    } catch {
      refuse(handle, .handshakeFailed, detail: error.description)
      return false
    }
  }

  mutating func handshakeReceived(_ handle: Handle, _ side: Side, _ completion: Completion) {
    guard completion.result > 0 else {
      noteProbeFailure(handle, isUntrusted: false)
      return refuse(handle, .peerClosedInHandshake)
    }
    let bytes = unsafe UnsafeRawBufferPointer(
      start: io.memory(ofBuffer: completion.buffer), count: Int(completion.result))
    unsafe handshake(handle, bytes)
    io.recycle(buffer: completion.buffer)
  }

  /// Feeds the handshake record by record. What is left over when it is finished is held for the
  /// relay.
  private mutating func handshake(_ handle: Handle, _ bytes: UnsafeRawBufferPointer) {
    guard let side = handle.it.tlsSide, let session = unsafe handle.it.session,
      var output = takeOutput(handle, to: side)
    else { return }
    var rest = unsafe bytes
    var failure: HandshakeFailure?
    var isFinished = false
    loop: while true {
      switch unsafe nextRecord(handle, &rest) {
      case .none: break loop
      case .tooLong:
        failure = HandshakeFailure(detail: "a record is longer than RFC 8446 §5.2 allows")
        break loop
      case .record(let record):
        switch unsafe session.pointee.handshake(record: record, output: &output.window) {
        case .needsRecord: continue
        case .finished:
          isFinished = true
          break loop
        case .failed(let reason):
          failure = reason
          break loop
        }
      }
    }
    let isKept = unsafe hold(handle, rest)
    send(handle, side, output)
    if let failure { return handshakeFailed(handle, failure) }
    guard isKept else { return refuse(handle, .relayMemoryLimit) }
    if isFinished { judge(handle) } else { startReceive(handle, side) }
  }

  /// The alert is on its way; the other side, if any, is reset.
  private mutating func handshakeFailed(_ handle: Handle, _ failure: HandshakeFailure) {
    let reason = failure.refusal == nil ? Refusal.handshakeFailed.rawValue : failure.word
    noteProbeFailure(handle, isUntrusted: failure.refusal != nil)
    handle.it.details?.detail = failure.description
    refuseAfterAlert(handle, reason)
  }

  /// The peer's identity is verified: what may it do?
  private mutating func judge(_ handle: Handle) {
    guard let session = unsafe handle.it.session, let side = handle.it.tlsSide else { return }
    handle.it.helloDeadline = 0
    scheduleDeadline(handle)
    if handle.it.details?.origination != nil {
      handle.it.security = .originatedTLS
      noteAgreement(handle)
      if handOver(handle) { startRelay(handle) }
      return
    }
    handle.it.security = .mutualTLS
    let kind: HandshakeKind = unsafe session.pointee.isResumed ? .resumed : .full
    if !handle.it.isProbe { link.counters.shaken(kind) }
    noteAgreement(handle)
    if let details = handle.it.details {
      details.peer = unsafe session.pointee.verifiedPeer
      details.handshake = kind
      // Who announces does so whenever it means mTLS: its silence without is meant as well.
      if side == .client, !handle.it.isAnnounced, let source = details.source {
        shared.meshSources.insert(source.address)
      }
    }
    guard isStillTrusted(handle) else { return }
    if handle.it.isProbe { return probeShaken(handle) }
    guard handle.it.direction != .outbound || notePeer(handle) else { return }
    startLifetime(handle)
    guard handOver(handle) else { return }
    if let refusal = authorize(handle) {
      return end(handle, as: .refused, refusal.rawValue, .accessDenied)
    }
    switch handle.it.direction {
    case .mesh:
      decided(handle)
      answerMeshProbe(handle)
    case .outbound:
      startRelay(handle)
    case .inbound:
      if handle.it.server.isConnected { return startRelay(handle) }
      handle.it.state = .connecting
      // Strict has dialled nothing before this point.
      if handle.it.server.inFlight == 0 { dial(handle) }
    }
  }

  private func noteAgreement(_ handle: Handle) {
    guard let session = unsafe handle.it.session, let details = handle.it.details else { return }
    details.alpn = unsafe session.pointee.alpn
    details.cipher = unsafe session.pointee.cipher
    details.reason = nil
  }

  /// The mesh port carries no application data: the handshake was the answer.
  private mutating func answerMeshProbe(_ handle: Handle) {
    handle.it.end = .closed
    handle.it.state = .draining
    startLinger(handle)
    notifyEnd(handle, .client)
  }
}
