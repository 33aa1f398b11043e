internal import CLinux
internal import Net

/// io_uring: one ring per worker, created and used on the worker's own thread.
///
/// Feature floor: Linux 6.1 (SINGLE_ISSUER, DEFER_TASKRUN, provided-buffer rings, cancel by
/// descriptor). The ring is restricted to the operations below before it is enabled, so that
/// whoever takes over the process cannot use it to reach around seccomp.
@safe struct Uring: Backend, ~Copyable {
  static let submissionEntries: UInt32 = 1024
  /// Completions that fit before the kernel keeps an overflow list.
  static let completionEntries: UInt32 = 8192
  /// Receive buffers the kernel may choose from; few, so that they stay in the cache.
  static let publishedBuffers = 32
  static let publishedLargeBuffers = 4
  static let features =
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL
    | IORING_SETUP_CQSIZE | IORING_SETUP_R_DISABLED
  private static let operations: [io_uring_op] = [
    IORING_OP_ACCEPT, IORING_OP_CONNECT, IORING_OP_RECV, IORING_OP_SEND, IORING_OP_POLL_ADD,
    IORING_OP_ASYNC_CANCEL, IORING_OP_RECVMSG, IORING_OP_SENDMSG,
  ]

  /// Owned; liburing keeps pointers into it, so it has one address for its whole life.
  private let ring: UnsafeMutablePointer<io_uring>
  private var buffers: BufferPools
  private var usual: BufferGroup
  private var large: BufferGroup
  private let addresses: UnsafeMutablePointer<sockaddr_storage>
  private var nextAddress = 0
  private let batch: UnsafeMutablePointer<UnsafeMutablePointer<io_uring_cqe>?>
  private var batchCount: UInt32 = 0
  private var batchIndex: UInt32 = 0

  init(_ buffers: consuming BufferPools) throws(Errno) {
    unsafe (ring, usual, large) = try unsafe Self.open()
    self.buffers = buffers
    unsafe batch = .allocate(capacity: Int(Self.completionEntries))
    unsafe addresses = .allocate(capacity: Int(Self.submissionEntries))
    usual.fill(from: &self.buffers)
    large.fill(from: &self.buffers)
  }

  deinit {
    unsafe io_uring_queue_exit(ring)
    unsafe ring.deallocate()
    usual.deallocate()
    large.deallocate()
    unsafe batch.deallocate()
    unsafe addresses.deallocate()
  }

  /// Tries the same set-up the workers use.
  static func probe() -> Errno? {
    do throws(Errno) {
      _ = try Uring(
        BufferPools(
          usual: BufferPool(bufferBytes: 4096, limit: 1),
          large: BufferPool(bufferBytes: 4096, limit: 1)))
      return nil
    } catch {
      return error
    }
  }

  private static func open() throws(Errno) -> (
    UnsafeMutablePointer<io_uring>, BufferGroup, BufferGroup
  ) {
    let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
    unsafe ring.initialize(to: io_uring())
    do throws(Errno) {
      try unsafe setUp(ring)
    } catch {
      unsafe ring.deallocate()
      throw error
    }
    var groups: [BufferGroup] = []
    do throws(Errno) {
      groups.append(try unsafe BufferGroup(.usual, entries: publishedBuffers, on: ring))
      groups.append(try unsafe BufferGroup(.large, entries: publishedLargeBuffers, on: ring))
      try unsafe restrictAndEnable(ring)
      return unsafe (ring, groups[0], groups[1])
    } catch {
      unsafe io_uring_queue_exit(ring)
      unsafe ring.deallocate()
      for group in groups { group.deallocate() }
      throw error
    }
  }

  private static func setUp(_ ring: UnsafeMutablePointer<io_uring>) throws(Errno) {
    var parameters = io_uring_params()
    parameters.flags = features
    parameters.cq_entries = completionEntries
    let result = unsafe io_uring_queue_init_params(submissionEntries, ring, &parameters)
    guard result == 0 else { throw Errno(-result) }
  }

  private static func restrictAndEnable(_ ring: UnsafeMutablePointer<io_uring>) throws(Errno) {
    var restrictions = operations.map { operation in
      var restriction = io_uring_restriction()
      restriction.opcode = UInt16(IORING_RESTRICTION_SQE_OP)
      restriction.sqe_op = UInt8(operation.rawValue)
      return restriction
    }
    var flags = io_uring_restriction()
    flags.opcode = UInt16(IORING_RESTRICTION_SQE_FLAGS_ALLOWED)
    flags.sqe_flags = UInt8(culvert_IOSQE_BUFFER_SELECT)
    restrictions.append(flags)
    var enable = io_uring_restriction()
    enable.opcode = UInt16(IORING_RESTRICTION_REGISTER_OP)
    enable.register_op = UInt8(IORING_REGISTER_ENABLE_RINGS)
    restrictions.append(enable)
    let descriptor = unsafe ring.pointee.ring_fd
    try Errno.check {
      unsafe culvert_io_uring_register(
        descriptor, UInt32(IORING_REGISTER_RESTRICTIONS), &restrictions, UInt32(restrictions.count))
    }
    try Errno.check {
      culvert_io_uring_register(
        descriptor, UInt32(IORING_REGISTER_ENABLE_RINGS), nil, 0)
    }
  }

  // MARK: Starting operations

  /// A free submission entry; submits what is queued if there is none.
  private func entry() -> UnsafeMutablePointer<io_uring_sqe> {
    while true {
      if let entry = unsafe io_uring_get_sqe(ring) { return unsafe entry }
      unsafe io_uring_submit(ring)
    }
  }

  static var socketFlags: Int32 { Int32(SOCK_CLOEXEC.rawValue) }

  mutating func accept(_ listener: Int32, _ token: Token) {
    let entry = unsafe entry()
    unsafe io_uring_prep_multishot_accept(entry, listener, nil, nil, Self.socketFlags)
    unsafe entry.pointee.user_data = token.bits
  }

  mutating func connect(_ descriptor: Int32, to address: SocketAddress, _ token: Token) {
    let entry = unsafe entry()
    // The kernel reads the address when the entry is submitted; by the time this place comes round
    // again as many entries as the queue holds have been submitted.
    let (storage, length) = address.storage
    let place = unsafe addresses + nextAddress
    unsafe place.pointee = storage
    nextAddress = (nextAddress + 1) % Int(Self.submissionEntries)
    unsafe place.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      unsafe io_uring_prep_connect(entry, descriptor, $0, length)
    }
    unsafe entry.pointee.user_data = token.bits
  }

  mutating func receive(_ descriptor: Int32, _ size: BufferSize, limit: Int, _ token: Token) {
    let entry = unsafe entry()
    unsafe io_uring_prep_recv(entry, descriptor, nil, limit, 0)
    unsafe entry.pointee.flags = UInt8(culvert_IOSQE_BUFFER_SELECT)
    unsafe entry.pointee.buf_group = UInt16(size.rawValue)
    unsafe entry.pointee.user_data = token.bits
  }

  mutating func receive(
    _ descriptor: Int32, _ size: BufferSize, _ message: KernelMessage, _ token: Token
  ) {
    let entry = unsafe entry()
    unsafe message.prepareToReceive(nil, buffers.bufferBytes(size))
    unsafe io_uring_prep_recvmsg(entry, descriptor, message.header, 0)
    unsafe entry.pointee.flags = UInt8(culvert_IOSQE_BUFFER_SELECT)
    unsafe entry.pointee.buf_group = UInt16(size.rawValue)
    unsafe entry.pointee.user_data = token.bits
  }

  mutating func send(_ descriptor: Int32, _ message: KernelMessage, _ token: Token) {
    let entry = unsafe entry()
    unsafe io_uring_prep_sendmsg(entry, descriptor, message.header, UInt32(MSG_NOSIGNAL))
    unsafe entry.pointee.user_data = token.bits
  }

  mutating func send(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, endsStream: Bool, _ token: Token
  ) {
    let entry = unsafe entry()
    let more = endsStream ? Int32(MSG_MORE) : 0
    let flags = Int32(MSG_NOSIGNAL) | Int32(MSG_WAITALL) | more
    unsafe io_uring_prep_send(entry, descriptor, bytes.baseAddress, bytes.count, flags)
    unsafe entry.pointee.user_data = token.bits
  }

  mutating func poll(_ descriptor: Int32, events: Int16, _ token: Token) {
    let entry = unsafe entry()
    unsafe io_uring_prep_poll_add(entry, descriptor, UInt32(UInt16(bitPattern: events)))
    unsafe entry.pointee.user_data = token.bits
  }

  /// By token: a cancel by descriptor walks every operation that waits in the ring, and takes
  /// 0.5 ms where 20,000 do.
  mutating func cancel(_ descriptor: Int32, _ token: Token) {
    let entry = unsafe entry()
    unsafe io_uring_prep_cancel64(entry, token.bits, 0)
    unsafe entry.pointee.user_data = Token(.cancel, slot: 0, generation: 0).bits
  }

  mutating func forget(_ descriptor: Int32) {}

  // MARK: Completions

  mutating func wait(until deadline: UInt64, now: UInt64) {
    precondition(batchIndex == batchCount, "completions of the last wait are not all taken")
    let nanoseconds = deadline > now ? deadline - now : 0
    var timeout = __kernel_timespec(
      tv_sec: Int64(nanoseconds / 1_000_000_000), tv_nsec: Int64(nanoseconds % 1_000_000_000))
    var first: UnsafeMutablePointer<io_uring_cqe>?
    let result = unsafe io_uring_submit_and_wait_timeout(ring, &first, 1, &timeout, nil)
    batchCount = unsafe io_uring_peek_batch_cqe(ring, batch, Self.completionEntries)
    batchIndex = 0
    // ETIME and EINTR mean "nothing yet". Anything else, out of memory for one, must not spin.
    if result < 0, result != -ETIME, result != -EINTR, batchCount == 0 { usleep(1000) }
  }

  mutating func next() -> Completion? {
    while batchIndex < batchCount {
      guard let entry = unsafe batch[Int(batchIndex)] else { break }
      let completion = unsafe Completion(
        token: Token(bits: entry.pointee.user_data), result: entry.pointee.res,
        buffer: entry.pointee.flags & UInt32(IORING_CQE_F_BUFFER) != 0
          ? Int32(bitPattern: entry.pointee.flags >> UInt32(IORING_CQE_BUFFER_SHIFT)) : -1,
        more: entry.pointee.flags & UInt32(IORING_CQE_F_MORE) != 0)
      unsafe io_uring_cq_advance(ring, 1)
      batchIndex += 1
      if completion.buffer >= 0 { replace(completion.buffer) }
      if completion.token.operation == .cancel { continue }
      return completion
    }
    batchIndex = 0
    batchCount = 0
    return nil
  }

  // MARK: Buffers

  mutating func takeBuffer() -> Int32? { buffers.acquire() }

  func memory(ofBuffer identifier: Int32) -> UnsafeMutableRawPointer {
    unsafe buffers.memory(identifier)
  }

  mutating func recycle(buffer identifier: Int32) {
    let isWanted =
      BufferPools.size(of: identifier) == .usual
      ? usual.publish(identifier, of: buffers) : large.publish(identifier, of: buffers)
    if !isWanted { buffers.release(identifier) }
  }

  func hasFreeBuffer(_ size: BufferSize) -> Bool {
    size == .usual ? usual.published > 0 : large.published > 0
  }

  /// The kernel has taken one buffer: give it another, if the pool has one.
  private mutating func replace(_ identifier: Int32) {
    switch BufferPools.size(of: identifier) {
    case .usual:
      usual.published -= 1
      usual.fill(from: &buffers)
    case .large:
      large.published -= 1
      large.fill(from: &buffers)
    }
  }
}

/// The buffers of one size that the kernel may choose from (io_uring_register_buf_ring(3)); the
/// group's number is that of the size.
@safe private struct BufferGroup {
  private let size: BufferSize
  private let entries: Int
  private let memory: UnsafeMutablePointer<io_uring_buf_ring>
  var published = 0

  init(
    _ size: BufferSize, entries: Int, on ring: UnsafeMutablePointer<io_uring>
  ) throws(Errno) {
    var memory: UnsafeMutableRawPointer?
    let status = unsafe posix_memalign(&memory, 4096, entries * MemoryLayout<io_uring_buf>.stride)
    guard status == 0, let memory = unsafe memory else { throw Errno(ENOMEM) }
    var registration = io_uring_buf_reg()
    registration.ring_addr = UInt64(UInt(bitPattern: memory))
    registration.ring_entries = UInt32(entries)
    registration.bgid = UInt16(size.rawValue)
    let result = unsafe io_uring_register_buf_ring(ring, &registration, 0)
    guard result == 0 else {
      unsafe free(memory)
      throw Errno(-result)
    }
    self.size = size
    self.entries = entries
    unsafe self.memory = unsafe memory.bindMemory(to: io_uring_buf_ring.self, capacity: 1)
    unsafe io_uring_buf_ring_init(self.memory)
  }

  /// After the ring is gone.
  func deallocate() { unsafe free(memory) }

  mutating func fill(from buffers: inout BufferPools) {
    while published < entries, let identifier = buffers.acquire(size) {
      _ = publish(identifier, of: buffers)
    }
  }

  /// - Returns: false if the kernel has enough.
  mutating func publish(_ identifier: Int32, of buffers: borrowing BufferPools) -> Bool {
    guard published < entries else { return false }
    unsafe io_uring_buf_ring_add(
      memory, buffers.memory(identifier), UInt32(buffers.bufferBytes(size)), UInt16(identifier),
      Int32(entries - 1), 0)
    unsafe io_uring_buf_ring_advance(memory, 1)
    published += 1
    return true
  }
}
