internal import CLinux
internal import CNetfilter
internal import Net

/// A netlink socket that asks one thing at a time and reads the whole answer.
@safe
struct Netlink: ~Copyable {
  private let socket: OpaquePointer
  private var sequence: UInt32 = 0
  /// The kernel fits the messages of a dump to the reader's buffer, up to 32 KiB
  /// (net/netlink/af_netlink.c `netlink_dump`).
  private static let receiveBytes = 64 * 1024
  /// A batch is one datagram: room for some 20,000 ranges.
  private static let socketBufferBytes: Int32 = 16 * 1024 * 1024

  /// Opens a socket of this family (NETLINK_NETFILTER, NETLINK_SOCK_DIAG).
  init(family: Int32) throws(Errno) {
    unsafe socket = try Self.open(family)
    let descriptor = unsafe mnl_socket_get_fd(socket)
    // Without CAP_NET_ADMIN the buffers stay small and the request itself is refused.
    for option in [SO_SNDBUFFORCE, SO_RCVBUFFORCE] {
      try? Socket.setOption(descriptor, level: SOL_SOCKET, option, Self.socketBufferBytes)
    }
  }

  private static func open(_ family: Int32) throws(Errno) -> OpaquePointer {
    guard let socket = unsafe mnl_socket_open2(family, Int32(SOCK_CLOEXEC.rawValue)) else {
      throw Errno.current
    }
    guard unsafe mnl_socket_bind(socket, 0, 0) == 0 else {
      let errno = Errno.current
      _ = unsafe mnl_socket_close(socket)
      throw errno
    }
    return unsafe socket
  }

  deinit { _ = unsafe mnl_socket_close(socket) }

  mutating func nextSequence() -> UInt32 {
    sequence &+= 1
    return sequence
  }

  /// Sends one datagram. The kernel works on it before the call returns.
  func send(_ bytes: [UInt8]) throws(Errno) {
    try Errno.check { unsafe mnl_socket_sendto(socket, bytes, bytes.count) }
  }

  /// One message of an answer.
  enum Reply {
    /// Header and payload.
    case message([UInt8])
    /// An acknowledgement (0) or an error number, for the request with this sequence number.
    case result(UInt32, Int32)
    case end
  }

  /// Reads one datagram; false if there is none and `waits` is false.
  ///
  /// `visit` is told whether the kernel says that what it lists changed meanwhile.
  func receive(
    waits: Bool, _ visit: (_ reply: Reply, _ changed: Bool) -> Void
  ) throws(Errno) -> Bool {
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Self.receiveBytes, alignment: 8)
    defer { unsafe buffer.deallocate() }
    let descriptor = unsafe mnl_socket_get_fd(socket)
    let flags = waits ? 0 : Int32(MSG_DONTWAIT)
    let count: Int
    do throws(Errno) {
      count = try Errno.check { unsafe recv(descriptor, buffer.baseAddress, buffer.count, flags) }
    } catch {
      if !waits, error == .tryAgain { return false }
      throw error
    }
    // mnl_nlmsg_ok: a whole header, and no longer than what is left.
    var left = Int32(count)
    var next = unsafe buffer.baseAddress.map {
      unsafe UnsafePointer($0.assumingMemoryBound(to: nlmsghdr.self))
    }
    while let message = unsafe next, unsafe mnl_nlmsg_ok(message, left) {
      let header = unsafe message.pointee
      visit(unsafe Self.reply(header, message), header.nlmsg_flags & UInt16(NLM_F_DUMP_INTR) != 0)
      unsafe next = unsafe UnsafePointer(mnl_nlmsg_next(message, &left))
    }
    return true
  }

  private static func reply(_ header: nlmsghdr, _ message: UnsafePointer<nlmsghdr>) -> Reply {
    let bytes = unsafe Array(
      UnsafeRawBufferPointer(start: message, count: Int(header.nlmsg_len)))
    switch Int32(header.nlmsg_type) {
    case NLMSG_DONE: return .end
    case NLMSG_ERROR:
      let error: Int32? = bytes.value(at: MemoryLayout<nlmsghdr>.size)
      return .result(header.nlmsg_seq, error.map { 0 &- $0 } ?? EBADMSG)
    default: return .message(bytes)
    }
  }

  /// Sends a request and returns every message of the answer.
  ///
  /// `request` makes the message with the flags and the sequence number it is given. A dump during
  /// which the listed things changed is asked for again.
  mutating func ask(
    dump: Bool, request: (_ flags: UInt16, _ sequence: UInt32) -> [UInt8]
  ) throws(Errno) -> [[UInt8]] {
    let attempts = 10
    for _ in 0..<attempts {
      let sequence = nextSequence()
      try send(request(UInt16(NLM_F_REQUEST | (dump ? NLM_F_DUMP : NLM_F_ACK)), sequence))
      if let messages = try answer(sequence) { return messages }
    }
    throw .tryAgain
  }

  /// Returns nil if what is listed changed meanwhile.
  private func answer(_ sequence: UInt32) throws(Errno) -> [[UInt8]]? {
    var messages: [[UInt8]] = []
    var isWhole = true
    var result: Int32?
    while result == nil {
      _ = try receive(waits: true) { reply, changed in
        if changed { isWhole = false }
        switch reply {
        case .message(let message): messages.append(message)
        case .result(sequence, let code): result = code
        case .result: break
        case .end: result = 0
        }
      }
    }
    if let result, result != 0 { throw Errno(result) }
    return isWhole ? messages : nil
  }
}

/// A netlink message written by C functions into a buffer of `maximumBytes`, padded to the next.
func netlinkMessage(
  maximumBytes: Int, _ write: (UnsafeMutablePointer<CChar>) -> Void
) -> [UInt8] {
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: maximumBytes, alignment: 8)
  defer { unsafe buffer.deallocate() }
  guard let base = buffer.baseAddress else { preconditionFailure("an empty buffer") }
  unsafe write(base.assumingMemoryBound(to: CChar.self))
  let length = unsafe Int(base.assumingMemoryBound(to: nlmsghdr.self).pointee.nlmsg_len)
  precondition(length <= maximumBytes, "a message is bounded by what it is made of")
  let bytes = unsafe Array(UnsafeRawBufferPointer(start: base, count: length))
  return bytes + [UInt8](repeating: 0, count: (4 - length % 4) % 4)
}

extension [UInt8] {
  /// Calls `body` with a message as C reads it.
  func withHeader<Result>(_ body: (UnsafePointer<nlmsghdr>) -> Result) -> Result? {
    guard count >= MemoryLayout<nlmsghdr>.size else { return nil }
    return unsafe withUnsafeBytes { bytes in
      unsafe bytes.baseAddress.map { unsafe body($0.assumingMemoryBound(to: nlmsghdr.self)) }
    }
  }

  /// A plain C value at an offset; nil if it is not all there.
  func value<Value: BitwiseCopyable>(at offset: Int) -> Value? {
    guard offset >= 0, offset + MemoryLayout<Value>.size <= count else { return nil }
    return unsafe withUnsafeBytes {
      unsafe $0.loadUnaligned(fromByteOffset: offset, as: Value.self)
    }
  }
}
