internal import CLinux

/// The loopback interface of the calling thread's network namespace.
package enum LoopbackInterface {
  /// Whether `lo` is up (netdevice(7), SIOCGIFFLAGS).
  package static func isUp() throws(Errno) -> Bool {
    let socket = try Socket.stream(.v4)
    let number = socket.number
    var request = unsafe ifreq()
    unsafe withUnsafeMutableBytes(of: &request.ifr_ifrn) { name in
      unsafe name.copyBytes(from: Array("lo".utf8))
    }
    try Errno.check { unsafe culvert_ioctl(number, UInt(SIOCGIFFLAGS), &request) }
    return unsafe request.ifr_ifru.ifru_flags & Int16(IFF_UP) != 0
  }
}

/// A listener on the loopback address of the calling thread's network namespace.
package struct LoopbackListener: ~Copyable {
  /// Loopback answers at once or, behind a filter that drops, never.
  private static let timeoutSeconds = 2

  private let listener: Descriptor
  package let address: SocketAddress

  /// `mark` and `savesSYN` as in `Socket.listener`.
  package init(
    _ family: IPAddress.Family, mark: UInt32? = nil, savesSYN: Bool = false
  ) throws(Errno) {
    let loopback = family == .v4 ? IPAddress.loopbackV4 : .loopbackV6
    let listener = try Socket.listener(
      on: SocketAddress(loopback, port: 0), backlog: 1, mark: mark, savesSYN: savesSYN)
    try Self.setTimeout(listener, SO_RCVTIMEO)
    address = try Socket.localAddress(listener.number)
    self.listener = listener
  }

  /// Connects to `destination`, which leads here directly or by a redirect.
  ///
  /// - Parameter mark: SO_MARK of the connecting socket.
  /// - Throws: EINPROGRESS or EAGAIN if it did not arrive in time.
  package func pair(
    connectingTo destination: SocketAddress, mark: UInt32? = nil
  ) throws(Errno) -> LoopbackPair {
    let client = try Socket.stream(destination.address.family)
    if let mark { try Socket.setMark(client.number, mark) }
    try Self.setTimeout(client, SO_SNDTIMEO)
    try Socket.connect(client.number, to: destination)
    let number = listener.number
    let server = Descriptor(
      owning: try Errno.check {
        culvert_accept4(number, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
      })
    return LoopbackPair(client: client, server: server)
  }

  private static func setTimeout(
    _ socket: borrowing Descriptor, _ option: Int32
  ) throws(Errno) {
    var time = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
    let number = socket.number
    try Errno.check {
      unsafe setsockopt(
        number, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
    }
  }
}

/// Both ends of a TCP connection over loopback.
package struct LoopbackPair: ~Copyable {
  package let client: Descriptor
  package let server: Descriptor

  init(client: consuming Descriptor, server: consuming Descriptor) {
    self.client = client
    self.server = server
  }

  package init(_ family: IPAddress.Family) throws(Errno) {
    let listener = try LoopbackListener(family)
    self = try listener.pair(connectingTo: listener.address)
  }
}
