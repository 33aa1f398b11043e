internal import CLinux
internal import Identity
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

/// What a worker knows of one namespace it serves.
struct NamespaceState {
  var epoch: NamespaceEpoch
  /// nil while there is no identity.
  var context: TLSContext?
  /// Of the rules that originate TLS, by their index.
  var originations: [Int: Origination]
  /// Whom the connection log names as ourselves, also when the identity has gone again.
  var ownID: SPIFFEID?
  let ports: ListenerPortSet
  /// SO_MARK of every socket dialled for it.
  let mark: UInt32
  /// Whether its sockets can announce mesh.
  let announces: Bool
}

/// TLS to a server outside the mesh.
struct Origination {
  let context: OriginationContext
  /// Whether the end of a stream without close_notify is an end and no truncation.
  let takesBareEnd: Bool
}

/// The TLS contexts of one worker and one epoch.
struct WorkerContexts {
  /// nil while there is no identity.
  var mesh: TLSContext?
  var originations: [Int: Origination] = [:]
}

/// A listener and what has become of its accept.
struct ListenerSlot {
  /// nil once it is closed.
  var listener: Listener?
  /// When to accept again after descriptors ran out; 0 is never.
  var resumeAt: UInt64 = 0
}

/// One thread's share of the data plane: its own ring, slab, buffers and counters.
///
/// Nothing here is reached by another thread but `link` and `shared`.
struct Worker<IO: Backend & ~Copyable>: ~Copyable {
  static var receiveBufferBytes: Int { 64 * 1024 }
  /// Before each: room for what is held of a record whose rest is received, so that it lies in one
  /// piece and is opened in place.
  static var receiveHeadroomBytes: Int { 20 * 1024 }
  /// Room for whatever one receive buffer can turn into: 64 KiB sealed, or opened by OpenSSL
  /// together with a held record.
  static var sendBufferBytes: Int { 96 * 1024 }
  static var largeReceiveBufferBytes: Int { 256 * 1024 }
  static var largeSendBufferBytes: Int { 260 * 1024 }
  /// Both directions of as many bulk connections at a time; more take the usual buffers.
  static var largeBufferLimit: Int { 128 }
  static var fullReceivesBeforeLarge: UInt8 { 2 }
  /// A relayed connection has at most one send in flight per direction, each with one buffer.
  static func bufferLimit(slots: Int) -> Int { min(2 * slots + 64, BufferPools.usualMaximum) }
  static var connectionCountMask: UInt64 { 1 << 30 - 1 }
  static var acceptRetryNanoseconds: UInt64 { 100_000_000 }
  static var receiveRetryNanoseconds: UInt64 { 5_000_000 }
  static var idleWaitNanoseconds: UInt64 { 60_000_000_000 }

  let link: WorkerLink
  let shared: SharedState
  let kernel: KernelVerdict
  var io: IO
  var slab: Slab
  var deadlines = DeadlineHeap()
  var sendBuffers: BufferPools
  var blocks = BlockCache()
  var ciphers: CipherContexts
  var layers = RecordLayerPool()
  var probes = MeshProbes()
  /// Bytes in blocks of connections that are not relayed yet.
  var undecidedBytes = 0
  var namespaces: [NamespaceState]
  var listeners: [ListenerSlot]
  /// Receives that found no buffer, and when to try them again.
  var starved: [Token] = []
  var retryAt: UInt64 = 0
  var now = Clock.monotonicNanoseconds()
  /// The upper bits of each connection's ID, and how many there have been.
  let firstID: UInt64
  var connectionCount: UInt64 = 0
  var openSlots = 0
  var isDraining = false
  var isStopping = false

  init(_ seed: WorkerSeed) throws(DataPlaneError) {
    let limit = Self.bufferLimit(slots: seed.slotLimit)
    let ciphers = try Self.makeCiphers()
    let io = try Self.makeIO(limit)
    self.ciphers = ciphers
    self.io = io
    link = seed.link
    shared = seed.shared
    kernel = seed.kernel
    namespaces = seed.takeNamespaces()
    listeners = seed.takeListeners().map { ListenerSlot(listener: $0) }
    firstID = seed.firstID
    sendBuffers = BufferPools(
      usual: BufferPool(bufferBytes: Self.sendBufferBytes, limit: limit),
      large: BufferPool(bufferBytes: Self.largeSendBufferBytes, limit: Self.largeBufferLimit))
    slab = Slab(limit: seed.slotLimit)
  }

  private static func makeCiphers() throws(DataPlaneError) -> CipherContexts {
    do throws(TLSSetupError) {
      return try CipherContexts()
    } catch {
      throw DataPlaneError(description: error.description)
    }
  }

  private static func makeIO(_ limit: Int) throws(DataPlaneError) -> IO {
    do throws(Errno) {
      return try IO(
        BufferPools(
          usual: BufferPool(
            bufferBytes: receiveBufferBytes, headroomBytes: receiveHeadroomBytes, limit: limit),
          large: BufferPool(
            bufferBytes: largeReceiveBufferBytes, headroomBytes: receiveHeadroomBytes,
            limit: largeBufferLimit)))
    } catch {
      throw DataPlaneError(description: "no ring: \(error)")
    }
  }
}

/// CLOCK_MONOTONIC.
enum Clock {
  static func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}

// MARK: - The loop

extension Worker where IO: ~Copyable {
  /// Serves until told to stop.
  mutating func run() {
    watchOrders()
    for index in listeners.indices { startAccepting(index) }
    while !(isStopping && openSlots == 0) {
      io.wait(until: nextDeadline, now: now)
      now = Clock.monotonicNanoseconds()
      while let completion = io.next() { complete(completion) }
      expireDeadlines()
      retryAccepts()
      retryReceives()
    }
  }

  private var nextDeadline: UInt64 {
    var next = now + Self.idleWaitNanoseconds
    if let first = deadlines.first { next = min(next, first) }
    if retryAt > 0 { next = min(next, retryAt) }
    for slot in listeners where slot.resumeAt > 0 { next = min(next, slot.resumeAt) }
    return next
  }

  private mutating func complete(_ completion: Completion) {
    switch completion.token.operation {
    case .accept: acceptCompleted(completion)
    case .wake: ordersWaiting()
    case .cancel: break
    case .receiveClient: receiveCompleted(.client, completion)
    case .receiveServer: receiveCompleted(.server, completion)
    case .sendClient: sendCompleted(.client, completion)
    case .sendServer: sendCompleted(.server, completion)
    case .connectServer: connectCompleted(completion)
    case .pollClient: pollCompleted(.client, completion)
    case .pollServer: pollCompleted(.server, completion)
    }
  }

  // MARK: Orders

  private mutating func watchOrders() {
    io.poll(link.wake.number, events: Int16(POLLIN), Token(.wake, slot: 0, generation: 0))
  }

  private mutating func ordersWaiting() {
    for order in link.take() {
      switch order {
      case .install(let epoch, let contexts, let namespace):
        install(epoch, contexts, namespace)
      case .enforce: enforceAll()
      case .drain: drainInbound()
      case .finish: finishAll()
      case .stop: stopAll()
      }
    }
    if !isStopping { watchOrders() }
  }

  // MARK: Waiting for buffers

  /// Runs again what found no receive buffer.
  private mutating func retryReceives() {
    guard retryAt > 0, now >= retryAt else { return }
    retryAt = 0
    let tokens = starved
    starved.removeAll(keepingCapacity: true)
    for token in tokens {
      guard let handle = slab.find(token) else { continue }
      let side: Side = token.operation == .receiveClient ? .client : .server
      if handle.it.state == .relaying {
        relayOn(handle, from: side)
      } else {
        startReceive(handle, side)
      }
    }
  }

  mutating func starve(_ handle: Handle, _ side: Side) {
    starved.append(handle.token(side.receive))
    if retryAt == 0 { retryAt = now + Self.receiveRetryNanoseconds }
  }

  // MARK: Deadlines

  /// Keeps the heap in step with the connection's deadlines; to be called after changing one.
  mutating func scheduleDeadline(_ handle: Handle) {
    let first = Self.earliest(
      Self.earliest(handle.it.helloDeadline, handle.it.connectDeadline),
      Self.earliest(
        Self.earliest(handle.it.graceDeadline, handle.it.closeDeadline),
        Self.earliest(handle.it.sessionDeadline, handle.it.lifetimeDeadline)))
    if first == 0 { deadlines.clear(handle.slot) } else { deadlines.set(handle.slot, first) }
  }

  /// The smaller, where 0 is none.
  private static func earliest(_ left: UInt64, _ right: UInt64) -> UInt64 {
    left == 0 || right == 0 ? max(left, right) : min(left, right)
  }

  private mutating func expireDeadlines() {
    while let slot = deadlines.popExpired(now: now) {
      let handle = slab.handle(slot)
      if passed(handle.it.graceDeadline) {
        handle.it.graceDeadline = 0
        graceExpired(handle)
      } else if passed(handle.it.helloDeadline) {
        handle.it.helloDeadline = 0
        helloExpired(handle)
      } else if passed(handle.it.connectDeadline) {
        handle.it.connectDeadline = 0
        refuse(handle, .connectTimeout)
      } else if passed(handle.it.closeDeadline) {
        handle.it.closeDeadline = 0
        closeExpired(handle)
      } else if passed(handle.it.sessionDeadline) {
        endTicketWait(handle)
      } else if passed(handle.it.lifetimeDeadline) {
        lifetimeExpired(handle)
      }
      if handle.it.state != .vacant { scheduleDeadline(handle) }
    }
  }

  private func passed(_ deadline: UInt64) -> Bool { deadline > 0 && deadline <= now }
}
