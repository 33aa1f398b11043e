internal import Net

/// What an operation was; packed into the completion's user data.
enum Operation: UInt8 {
  case accept
  case wake
  case receiveClient
  case receiveServer
  case sendClient
  case sendServer
  case connectServer
  case pollClient
  case pollServer
  case cancel
}

/// Names one operation of one connection: operation (8 bits), generation (24), slot (32).
///
/// The generation makes a completion for an earlier tenant of the slot recognisable.
struct Token: Equatable {
  let bits: UInt64

  init(bits: UInt64) { self.bits = bits }

  init(_ operation: Operation, slot: UInt32, generation: UInt32) {
    bits =
      UInt64(operation.rawValue) << 56 | UInt64(generation & 0xff_ffff) << 32 | UInt64(slot)
  }

  var operation: Operation {
    guard let operation = Operation(rawValue: UInt8(truncatingIfNeeded: bits >> 56)) else {
      preconditionFailure("a token is only ever made from an operation")
    }
    return operation
  }
  var generation: UInt32 { UInt32(truncatingIfNeeded: bits >> 32) & 0xff_ffff }
  var slot: UInt32 { UInt32(truncatingIfNeeded: bits) }
}

/// The end of an operation, or one more result of a multishot one.
struct Completion {
  let token: Token
  /// What the system call would have returned; an error is its negated number.
  let result: Int32
  /// The receive buffer that holds the bytes, or -1.
  let buffer: Int32
  /// A multishot operation goes on.
  let more: Bool
}

/// How a worker does its input and output: io_uring, or epoll where the kernel refuses io_uring.
///
/// Both are completion based: an operation is started with a token and ends in exactly one
/// completion with that token, also when it was cancelled (`ECANCELED`). Accepting is multishot. A
/// descriptor may be closed only when each of its operations has completed.
protocol Backend: ~Copyable {
  init(_ buffers: consuming BufferPools) throws(Errno)

  /// Flags a socket is made with: io_uring never waits on an O_NONBLOCK socket but answers EAGAIN,
  /// epoll must not block.
  static var socketFlags: Int32 { get }

  mutating func accept(_ listener: Int32, _ token: Token)
  /// Receives into a buffer of the pool's choice; a waiting receive holds no buffer. `ENOBUFS`
  /// means the pool is at its limit.
  ///
  /// - Parameters:
  ///   - size: of the buffer.
  ///   - limit: the most bytes to take; 0 is whatever the buffer holds.
  mutating func receive(_ descriptor: Int32, _ size: BufferSize, limit: Int, _ token: Token)
  /// The same from a kTLS socket: records of one type, which is in `message` at completion.
  mutating func receive(
    _ descriptor: Int32, _ size: BufferSize, _ message: KernelMessage, _ token: Token)
  /// Sends, possibly less than asked for. The bytes must stay where they are until completion.
  ///
  /// - Parameter endsStream: shutdown(2) follows at once: one segment can carry both.
  mutating func send(
    _ descriptor: Int32, _ bytes: UnsafeRawBufferPointer, endsStream: Bool, _ token: Token)
  /// The same to a kTLS socket; the bytes and record type are those of `message`.
  mutating func send(_ descriptor: Int32, _ message: KernelMessage, _ token: Token)
  mutating func connect(_ descriptor: Int32, to address: SocketAddress, _ token: Token)
  /// Completes once any of `events` (or POLLERR, POLLHUP) holds; the result is the event mask.
  mutating func poll(_ descriptor: Int32, events: Int16, _ token: Token)
  /// Ends the operation that was started on the descriptor with this token.
  mutating func cancel(_ descriptor: Int32, _ token: Token)
  /// The descriptor is about to be closed, with nothing in flight.
  mutating func forget(_ descriptor: Int32)
  /// Submits what was started and waits for a completion or the deadline (CLOCK_MONOTONIC
  /// nanoseconds). To be called when `next` has nothing left.
  mutating func wait(until deadline: UInt64, now: UInt64)
  /// The next completion, if any is left.
  mutating func next() -> Completion?

  /// A buffer of the pool for another use than receiving; nil if there is none.
  mutating func takeBuffer() -> Int32?
  /// The receive buffer's memory; valid until it is recycled.
  func memory(ofBuffer identifier: Int32) -> UnsafeMutableRawPointer
  mutating func recycle(buffer identifier: Int32)
  /// Whether a receive could find a buffer of this size now.
  func hasFreeBuffer(_ size: BufferSize) -> Bool
}
