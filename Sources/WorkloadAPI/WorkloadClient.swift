internal import CLinux
package import Net

/// What a client of the Workload API learns.
package enum WorkloadEvent: Sendable {
  /// Everything the workload may use; replaces all that came before.
  case svids(X509SVIDResponse)
  case bundles(X509BundlesResponse)
  /// A message that lacks something mandatory or is wrong; what came before stays
  /// (Workload API §4.5).
  case discarded(reason: String)
  case lost(WorkloadFailure)
}

/// A client of the SPIFFE Workload API: one method of one endpoint, called again whenever its
/// stream ends.
///
/// It never blocks and has no thread: whoever owns it waits for `interest` and
/// `deadlineMilliseconds`, then calls `advance`. There is no TLS and no authentication of the client
/// on this connection (Workload Endpoint §3.1, 5).
package struct WorkloadClient: ~Copyable {
  /// How long the client waits for what.
  package struct Timing: Sendable {
    package var connectTimeoutMilliseconds: Int64 = 5000
    /// From the connection to the first message or status. The agent must answer without delay
    /// (Workload API §4.3).
    package var firstResponseTimeoutMilliseconds: Int64 = 10_000
    /// Silence after which the agent is asked for a sign of life.
    package var pingIntervalMilliseconds: Int64 = 30_000
    package var pingTimeoutMilliseconds: Int64 = 10_000
    /// A stream that ended in order is replaced at once, but not more often than this.
    package var atOnceIntervalMilliseconds: Int64 = 10_000
    package var backoff = Backoff()

    package init() {}
  }

  package enum State: String, CaseIterable, Sendable {
    case connecting
    /// Connected; no message that could be used has come.
    case waiting
    case streaming
    case backingOff = "backing_off"
    /// There will be no further attempt.
    case stopped
  }

  /// Where doubling the interval between pings ends (gRFC A8 lets agents ask for it).
  static let pingIntervalMaximumMilliseconds: Int64 = 2 * 3600 * 1000

  package let endpoint: WorkloadEndpoint
  package let stream: WorkloadStream
  package private(set) var state = State.connecting
  /// The last failure, however long ago.
  package private(set) var lastFailure: WorkloadFailure?

  private let mark: UInt32
  private let timing: Timing
  private var backoff: Backoff
  private var pingIntervalMilliseconds: Int64
  private var lastAtOnceMilliseconds: Int64?
  /// When the next attempt is due, while there is no socket.
  private var attemptMilliseconds: Int64 = 0
  private var socket: Descriptor?
  /// There once the socket is connected.
  private var call: WorkloadCall?
  /// When the connection, or the first answer, must be there.
  private var answerDeadline: Int64?
  private var nextPing: Int64 = 0
  /// When the answer to a ping must be there.
  private var pongDeadline: Int64?

  /// - Parameter mark: the packet mark of a TCP socket, by which the rules know the proxy's own.
  package init(
    _ endpoint: WorkloadEndpoint, stream: WorkloadStream, mark: UInt32, timing: Timing = Timing()
  ) {
    self.endpoint = endpoint
    self.stream = stream
    self.mark = mark
    self.timing = timing
    backoff = timing.backoff
    pingIntervalMilliseconds = timing.pingIntervalMilliseconds
  }

  // MARK: What to wait for

  /// A descriptor and poll(2) events after which `advance` has something to do.
  package var interest: (descriptor: Int32, events: Int16)? {
    guard let descriptor = descriptor else { return nil }
    if call == nil { return (descriptor, Int16(POLLOUT)) }
    return (descriptor, Int16(POLLIN) | (hasOutput ? Int16(POLLOUT) : 0))
  }

  /// When `advance` is due even if nothing has happened on the descriptor: CLOCK_MONOTONIC.
  package var deadlineMilliseconds: Int64? {
    switch state {
    case .stopped: nil
    case .connecting, .backingOff:
      descriptor == nil ? attemptMilliseconds : answerDeadline
    case .waiting, .streaming:
      [answerDeadline, pongDeadline, pongDeadline == nil ? nextPing : nil].compactMap(\.self).min()
    }
  }

  private var descriptor: Int32? {
    switch socket {
    case .some(let socket): socket.number
    case nil: nil
    }
  }

  private var hasOutput: Bool {
    switch call {
    case .some(let call): call.connection.hasOutput
    case nil: false
    }
  }

  // MARK: Moving on

  /// Does what can be done without waiting.
  package mutating func advance(now: Int64) -> [WorkloadEvent] {
    guard state != .stopped else { return [] }
    var events: [WorkloadEvent] = []
    if socket == nil, now >= attemptMilliseconds { connect(now, &events) }
    if socket != nil, call == nil { finishConnecting(now, &events) }
    if call != nil { exchange(now, &events) }
    if socket != nil { checkDeadlines(now, &events) }
    return events
  }

  private mutating func connect(_ now: Int64, _ events: inout [WorkloadEvent]) {
    state = .connecting
    do throws(Errno) {
      switch endpoint.address {
      case .unix(let path):
        socket = try UnixSocket.connectAtOnce(path)
        startCall(now)
      case .tcp(let address):
        let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
        let stream = try Socket.stream(address.address.family, flags: flags)
        try Socket.setMark(stream.number, mark)
        try Socket.setNoDelay(stream.number)
        let number = stream.number
        socket = consume stream
        answerDeadline = now + timing.connectTimeoutMilliseconds
        do throws(Errno) {
          try Socket.connect(number, to: address)
        } catch .inProgress {
          // `interest` tells when it is done.
        }
      }
    } catch {
      fail(.cannotConnect, "\(error)", now, &events)
    }
  }

  /// A TCP socket is connected, or not, once it is writable.
  private mutating func finishConnecting(_ now: Int64, _ events: inout [WorkloadEvent]) {
    guard let descriptor else { return }
    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    guard unsafe poll(&request, 1, 0) > 0 else { return }
    let error = Socket.pendingError(descriptor)
    guard error.code == 0 else { return fail(.cannotConnect, "\(error)", now, &events) }
    startCall(now)
  }

  private mutating func startCall(_ now: Int64) {
    call = WorkloadCall(stream)
    state = .waiting
    answerDeadline = now + timing.firstResponseTimeoutMilliseconds
    nextPing = now + pingIntervalMilliseconds
    pongDeadline = nil
  }

  private mutating func exchange(_ now: Int64, _ events: inout [WorkloadEvent]) {
    guard let descriptor, var call = call.take() else { return }
    let received = call.connection.receive(from: descriptor)
    if received.any {
      // Whatever comes is a sign of life.
      nextPing = now + pingIntervalMilliseconds
      pongDeadline = nil
    }
    var outcomes = call.takeOutcomes(received.state)
    if case .ended = received.state {
      // Nobody is there to send to.
    } else {
      // Of a connection that is given up the agent is told why, if its socket takes it.
      outcomes += call.takeOutcomes(call.connection.send(to: descriptor))
    }
    self.call = consume call
    for outcome in outcomes { take(outcome, now, &events) }
  }

  private mutating func take(
    _ outcome: WorkloadCall.Outcome, _ now: Int64, _ events: inout [WorkloadEvent]
  ) {
    switch outcome {
    case .svids(let response):
      noteMessage()
      events.append(.svids(response))
    case .bundles(let response):
      noteMessage()
      events.append(.bundles(response))
    case .discarded(let reason):
      // It is an answer all the same.
      answerDeadline = nil
      events.append(.discarded(reason: reason))
    case .ended(let end):
      if end.wantsFewerPings {
        pingIntervalMilliseconds = min(
          2 * pingIntervalMilliseconds, Self.pingIntervalMaximumMilliseconds)
      }
      fail(end.reason, end.detail, now, &events)
    }
  }

  private mutating func noteMessage() {
    state = .streaming
    answerDeadline = nil
    backoff.reset()
  }

  private mutating func checkDeadlines(_ now: Int64, _ events: inout [WorkloadEvent]) {
    if let answerDeadline, now >= answerDeadline {
      return call == nil
        ? fail(.cannotConnect, "no connection in time", now, &events)
        : fail(.hung, "connected, but no answer", now, &events)
    }
    if let pongDeadline, now >= pongDeadline {
      return fail(.hung, "no answer to a ping", now, &events)
    }
    guard call != nil, pongDeadline == nil, now >= nextPing else { return }
    pongDeadline = now + timing.pingTimeoutMilliseconds
    ping(now, &events)
  }

  private mutating func ping(_ now: Int64, _ events: inout [WorkloadEvent]) {
    guard let call = call.take() else { return }
    call.connection.ping()
    self.call = consume call
    exchange(now, &events)
  }

  // MARK: Losing the stream

  /// Lets go of the connection and decides about the next.
  private mutating func fail(
    _ reason: WorkloadFailure.Reason, _ detail: String, _ now: Int64,
    _ events: inout [WorkloadEvent]
  ) {
    let wasStreaming = state == .streaming
    socket = nil
    call = nil
    answerDeadline = nil
    pongDeadline = nil
    let wait: Int64?
    if reason.isFinal {
      wait = nil
      state = .stopped
    } else if reason == .streamEnded, wasStreaming, mayReconnectAtOnce(now) {
      wait = 0
      state = .connecting
      lastAtOnceMilliseconds = now
    } else {
      wait = backoff.delayMilliseconds()
      state = .backingOff
    }
    attemptMilliseconds = now + (wait ?? 0)
    let failure = WorkloadFailure(reason: reason, detail: detail, retryMilliseconds: wait)
    lastFailure = failure
    events.append(.lost(failure))
  }

  /// A stream that has ended is to be replaced immediately (Workload API §4.2), but an agent that
  /// ends every stream must not keep us busy.
  private func mayReconnectAtOnce(_ now: Int64) -> Bool {
    guard let last = lastAtOnceMilliseconds else { return true }
    return now - last >= timing.atOnceIntervalMilliseconds
  }
}
