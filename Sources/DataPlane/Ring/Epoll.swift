internal import CLinux
internal import Net

/// epoll behind the completion interface, for kernels and containers that refuse io_uring.
///
/// Every operation is tried as soon as it is started; what would block waits for the descriptor's
/// next edge. The edge is never lost: it can only come after the attempt that found nothing.
@safe struct Epoll: Backend, ~Copyable {
  static let eventsPerWait = 256
  /// Connections taken per readiness of a listener, so that one flood does not starve the rest.
  static let acceptsPerEvent = 64

  /// What each list has room for from the start: a receive, a send and a poll for each event.
  static let expectedOperations = 3 * eventsPerWait

  /// What waits on one descriptor.
  @safe private struct Interest {
    var registered = false
    var accepting: Token?
    var receiving: Token?
    var receiveSize = BufferSize.usual
    var receiveLimit = 0
    var receiveMessage: KernelMessage?
    var sending: Token?
    var sendMessage: KernelMessage?
    var sendBytes = unsafe UnsafeRawBufferPointer(start: nil, count: 0)
    var endsStream = false
    var connecting: Token?
    var polling: Token?
    var pollEvents: Int16 = 0

    /// Forgets the operation with this token; false if there is none.
    mutating func remove(_ token: Token) -> Bool {
      switch token {
      case accepting: accepting = nil
      case receiving: receiving = nil
      case sending: sending = nil
      case connecting: connecting = nil
      case polling: polling = nil
      default: return false
      }
      return true
    }

    var tokens: [Token] {
      [accepting, receiving, sending, connecting, polling].compactMap { $0 }
    }

    var isEmpty: Bool {
      accepting == nil && receiving == nil && sending == nil && connecting == nil
        && polling == nil
    }
  }

  private let epoll: Descriptor
  private var buffers: BufferPools
  /// Indexed by descriptor.
  private var interests: [Interest] = []
  /// Descriptors with an operation not yet tried.
  private var fresh: [Int32] = []
  private var trying: [Int32] = []
  private var done: [Completion] = []
  private var doneIndex = 0
  private var events: UnsafeMutablePointer<epoll_event>

  init(_ buffers: consuming BufferPools) throws(Errno) {
    epoll = Descriptor(owning: try Errno.check { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    self.buffers = buffers
    unsafe events = .allocate(capacity: Self.eventsPerWait)
    fresh.reserveCapacity(Self.expectedOperations)
    trying.reserveCapacity(Self.expectedOperations)
    done.reserveCapacity(Self.expectedOperations)
  }

  deinit { unsafe events.deallocate() }

  static var socketFlags: Int32 {
    Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
  }

  // MARK: Starting operations

  mutating func accept(_ listener: Int32, _ token: Token) {
    start(listener) { $0.accepting = token }
  }

  mutating func receive(_ descriptor: Int32, _ size: BufferSize, limit: Int, _ token: Token) {
    start(descriptor) {
      $0.receiving = token
      $0.receiveSize = size
      $0.receiveLimit = limit
      $0.receiveMessage = nil
    }
  }

  mutating func receive(
    _ descriptor: Int32, _ size: BufferSize, _ message: KernelMessage, _ token: Token
  ) {
    start(descriptor) {
      $0.receiving = token
      $0.receiveSize = size
      $0.receiveMessage = message
    }
  }

  mutating func send(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, endsStream: Bool, _ token: Token
  ) {
    start(descriptor) {
      $0.sending = token
      $0.endsStream = endsStream
      unsafe $0.sendBytes = unsafe bytes
      $0.sendMessage = nil
    }
  }

  mutating func send(_ descriptor: Int32, _ message: KernelMessage, _ token: Token) {
    start(descriptor) {
      $0.sending = token
      $0.sendMessage = message
    }
  }

  mutating func connect(_ descriptor: Int32, to address: SocketAddress, _ token: Token) {
    do throws(Errno) {
      try Socket.connect(descriptor, to: address)
      finish(token, 0)
    } catch Errno.inProgress {
      start(descriptor) { $0.connecting = token }
    } catch {
      finish(token, -error.code)
    }
  }

  mutating func poll(_ descriptor: Int32, events: Int16, _ token: Token) {
    start(descriptor) {
      $0.polling = token
      $0.pollEvents = events
    }
  }

  private mutating func start(_ descriptor: Int32, _ change: (inout Interest) -> Void) {
    while interests.count <= Int(descriptor) { interests.append(Interest()) }
    change(&interests[Int(descriptor)])
    if let error = register(descriptor) {
      // Without its edges an operation would wait for ever.
      for token in interests[Int(descriptor)].tokens { finish(token, -error.code) }
      interests[Int(descriptor)] = Interest()
    } else {
      fresh.append(descriptor)
    }
  }

  private mutating func register(_ descriptor: Int32) -> Errno? {
    guard !interests[Int(descriptor)].registered else { return nil }
    var event = unsafe epoll_event()
    unsafe event.events =
      EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
    unsafe event.data.fd = descriptor
    guard unsafe epoll_ctl(epoll.number, EPOLL_CTL_ADD, descriptor, &event) == 0 else {
      return Errno.current
    }
    interests[Int(descriptor)].registered = true
    return nil
  }

  mutating func cancel(_ descriptor: Int32, _ token: Token) {
    guard Int(descriptor) < interests.count, interests[Int(descriptor)].remove(token)
    else { return }
    finish(token, -ECANCELED)
  }

  /// Closing removes a descriptor from the epoll set.
  mutating func forget(_ descriptor: Int32) {
    if Int(descriptor) < interests.count { interests[Int(descriptor)] = Interest() }
  }

  // MARK: Completions

  mutating func wait(until deadline: UInt64, now: UInt64) {
    // What was cancelled or connected at once since the last wait is waiting already.
    if doneIndex == done.count {
      done.removeAll(keepingCapacity: true)
      doneIndex = 0
    }
    tryFresh()
    let isIdle = done.isEmpty && fresh.isEmpty
    let nanoseconds = isIdle && deadline > now ? deadline - now : 0
    let milliseconds = Int32(min((nanoseconds + 999_999) / 1_000_000, 60_000))
    let count = unsafe epoll_wait(
      epoll.number, events, Int32(Self.eventsPerWait), milliseconds)
    for index in 0..<max(0, Int(count)) {
      attempt(unsafe events[index].data.fd)
    }
  }

  mutating func next() -> Completion? {
    guard doneIndex < done.count else { return nil }
    doneIndex += 1
    return done[doneIndex - 1]
  }

  private mutating func tryFresh() {
    swap(&fresh, &trying)
    var index = 0
    while index < trying.count {
      attempt(trying[index])
      index += 1
    }
    trying.removeAll(keepingCapacity: true)
  }

  private mutating func finish(
    _ token: Token, _ result: Int32, buffer: Int32 = -1, more: Bool = false
  ) {
    done.append(Completion(token: token, result: result, buffer: buffer, more: more))
  }

  private mutating func attempt(_ descriptor: Int32) {
    guard Int(descriptor) < interests.count, !interests[Int(descriptor)].isEmpty else { return }
    attemptAccept(descriptor)
    attemptConnect(descriptor)
    attemptSend(descriptor)
    attemptPoll(descriptor)
    attemptReceive(descriptor)
  }

  private mutating func attemptAccept(_ descriptor: Int32) {
    guard let token = interests[Int(descriptor)].accepting else { return }
    for _ in 0..<Self.acceptsPerEvent {
      let accepted = culvert_accept4(descriptor, nil, nil, Self.socketFlags)
      if accepted >= 0 {
        finish(token, accepted, more: true)
        continue
      }
      let error = Errno.current
      if error == .tryAgain { return }
      if error == .interrupted || error == Errno(ECONNABORTED) { continue }
      interests[Int(descriptor)].accepting = nil
      finish(token, -error.code)
      return
    }
    fresh.append(descriptor)
  }

  private mutating func attemptReceive(_ descriptor: Int32) {
    guard let token = interests[Int(descriptor)].receiving else { return }
    let size = interests[Int(descriptor)].receiveSize
    guard let buffer = buffers.acquire(size) else {
      interests[Int(descriptor)].receiving = nil
      finish(token, -ENOBUFS)
      return
    }
    let memory = unsafe buffers.memory(buffer)
    let limit = interests[Int(descriptor)].receiveLimit
    let count: Int
    if let message = interests[Int(descriptor)].receiveMessage {
      unsafe message.prepareToReceive(memory, buffers.bufferBytes(size))
      count = unsafe recvmsg(descriptor, message.header, 0)
    } else {
      let most = limit > 0 ? min(limit, buffers.bufferBytes(size)) : buffers.bufferBytes(size)
      count = unsafe recv(descriptor, memory, most, 0)
    }
    if count > 0 {
      interests[Int(descriptor)].receiving = nil
      finish(token, Int32(count), buffer: buffer)
      return
    }
    let error = Errno.current
    buffers.release(buffer)
    if count < 0, error == .tryAgain || error == .interrupted { return }
    interests[Int(descriptor)].receiving = nil
    finish(token, count == 0 ? 0 : -error.code)
  }

  private mutating func attemptSend(_ descriptor: Int32) {
    guard let token = interests[Int(descriptor)].sending else { return }
    let count: Int
    if let message = interests[Int(descriptor)].sendMessage {
      count = unsafe sendmsg(descriptor, message.header, Int32(MSG_NOSIGNAL))
    } else {
      let bytes = unsafe interests[Int(descriptor)].sendBytes
      let more = interests[Int(descriptor)].endsStream ? Int32(MSG_MORE) : 0
      count = unsafe CLinux.send(
        descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL) | more)
    }
    let error = Errno.current
    if count < 0, error == .tryAgain || error == .interrupted { return }
    interests[Int(descriptor)].sending = nil
    finish(token, count < 0 ? -error.code : Int32(count))
  }

  private mutating func attemptConnect(_ descriptor: Int32) {
    guard let token = interests[Int(descriptor)].connecting else { return }
    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    guard unsafe CLinux.poll(&request, 1, 0) == 1 else { return }
    interests[Int(descriptor)].connecting = nil
    finish(token, -Socket.pendingError(descriptor).code)
  }

  private mutating func attemptPoll(_ descriptor: Int32) {
    guard let token = interests[Int(descriptor)].polling else { return }
    var request = pollfd(
      fd: descriptor, events: interests[Int(descriptor)].pollEvents, revents: 0)
    guard unsafe CLinux.poll(&request, 1, 0) == 1 else { return }
    interests[Int(descriptor)].polling = nil
    finish(token, Int32(request.revents))
  }

  // MARK: Buffers

  mutating func takeBuffer() -> Int32? { buffers.acquire() }

  func memory(ofBuffer identifier: Int32) -> UnsafeMutableRawPointer {
    unsafe buffers.memory(identifier)
  }

  mutating func recycle(buffer identifier: Int32) { buffers.release(identifier) }

  func hasFreeBuffer(_ size: BufferSize) -> Bool { buffers.hasFree(size) }
}
