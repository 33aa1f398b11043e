internal import CLinux

/// Socket calls the proxy makes, each with its error number.
package enum Socket {
  /// A TCP socket; `flags` as in socket(2): SOCK_CLOEXEC, SOCK_NONBLOCK.
  package static func stream(
    _ family: IPAddress.Family, flags: Int32 = Int32(SOCK_CLOEXEC.rawValue)
  ) throws(Errno) -> Descriptor {
    let domain = family == .v4 ? AF_INET : AF_INET6
    let kind = Int32(SOCK_STREAM.rawValue) | flags
    return Descriptor(owning: try Errno.check { socket(domain, kind, Int32(IPPROTO_TCP)) })
  }

  package static func setOption(
    _ descriptor: Int32, level: Int32, _ name: Int32, _ value: Int32
  ) throws(Errno) {
    var value = value
    try Errno.check {
      unsafe setsockopt(descriptor, level, name, &value, socklen_t(MemoryLayout<Int32>.size))
    }
  }

  package static func option(
    _ descriptor: Int32, level: Int32, _ name: Int32
  ) throws(Errno) -> Int32 {
    var value: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    try Errno.check { unsafe getsockopt(descriptor, level, name, &value, &length) }
    return value
  }

  /// Sets SO_MARK; needs CAP_NET_ADMIN (socket(7)).
  package static func setMark(_ descriptor: Int32, _ mark: UInt32) throws(Errno) {
    try setOption(descriptor, level: SOL_SOCKET, SO_MARK, Int32(bitPattern: mark))
  }

  /// The socket's mark; any process may ask (socket(7), SO_MARK).
  package static func mark(_ descriptor: Int32) throws(Errno) -> UInt32 {
    UInt32(bitPattern: try option(descriptor, level: SOL_SOCKET, SO_MARK))
  }

  /// Has a listener keep the header of each SYN until its connection is established, so that the
  /// announcing program can look into it (tcp(7), TCP_SAVE_SYN).
  package static func setSaveSYN(_ descriptor: Int32) throws(Errno) {
    try setOption(descriptor, level: Int32(IPPROTO_TCP), culvert_TCP_SAVE_SYN, 1)
  }

  /// Disables Nagle's algorithm: a relayed record must not wait for an acknowledgement.
  package static func setNoDelay(_ descriptor: Int32) throws(Errno) {
    try setOption(descriptor, level: Int32(IPPROTO_TCP), TCP_NODELAY, 1)
  }

  /// Makes close(2) send RST and discard what is unsent (SO_LINGER with zero seconds), or not.
  package static func setResetOnClose(_ descriptor: Int32, _ isOn: Bool) throws(Errno) {
    var value = linger(l_onoff: isOn ? 1 : 0, l_linger: 0)
    try Errno.check {
      unsafe setsockopt(
        descriptor, SOL_SOCKET, SO_LINGER, &value, socklen_t(MemoryLayout<linger>.size))
    }
  }

  /// Chooses Reno, which every kernel has and every process may choose, for a leg that stays inside
  /// the namespace: there is no congestion on loopback, and a default such as BBR would pace every
  /// segment by a timer (tcp(7), TCP_CONGESTION).
  package static func setNoPacing(_ descriptor: Int32) throws(Errno) {
    let name: StaticString = "reno"
    try Errno.check {
      unsafe setsockopt(
        descriptor, Int32(IPPROTO_TCP), TCP_CONGESTION, name.utf8Start,
        socklen_t(name.utf8CodeUnitCount))
    }
  }

  /// Keeps a connection's path alive and finds a dead peer; there is no idle timeout.
  package static func setKeepAlive(_ descriptor: Int32) throws(Errno) {
    try setOption(descriptor, level: SOL_SOCKET, SO_KEEPALIVE, 1)
  }

  /// Lets connect(2) choose the port, so that binding to an address does not use one up for every
  /// destination (ip(7), IP_BIND_ADDRESS_NO_PORT).
  package static func setBindAddressNoPort(_ descriptor: Int32) throws(Errno) {
    try setOption(descriptor, level: Int32(IPPROTO_IP), culvert_IP_BIND_ADDRESS_NO_PORT, 1)
  }

  /// The error that waits on the socket (SO_ERROR), which it takes away; code 0 if there is none.
  package static func pendingError(_ descriptor: Int32) -> Errno {
    do throws(Errno) {
      return Errno(try option(descriptor, level: SOL_SOCKET, SO_ERROR))
    } catch {
      return error
    }
  }

  /// Whether bytes, an end or an error wait to be received.
  package static func isReadable(_ descriptor: Int32) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, 0) > 0
  }

  /// Looks at what waits to be received without taking it.
  ///
  /// - Returns: its bytes; 0 at the end of the stream; -1 if nothing waits or on an error.
  package static func peek(
    _ descriptor: Int32, into room: UnsafeMutableRawBufferPointer
  ) -> Int {
    unsafe recv(
      descriptor, room.baseAddress, room.count, Int32(MSG_PEEK) | Int32(MSG_DONTWAIT))
  }

  /// How many bytes must wait before the socket polls as readable (SO_RCVLOWAT, socket(7)).
  package static func setReceiveLowWatermark(_ descriptor: Int32, _ bytes: Int32) throws(Errno) {
    try setOption(descriptor, level: SOL_SOCKET, SO_RCVLOWAT, bytes)
  }

  package static func connect(_ descriptor: Int32, to address: SocketAddress) throws(Errno) {
    var (storage, length) = address.storage
    try Errno.check {
      unsafe withUnsafePointer(to: &storage) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe CLinux.connect(descriptor, $0, length)
        }
      }
    }
  }

  package static func bind(_ descriptor: Int32, to address: SocketAddress) throws(Errno) {
    var (storage, length) = address.storage
    try Errno.check {
      unsafe withUnsafePointer(to: &storage) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe CLinux.bind(descriptor, $0, length)
        }
      }
    }
  }

  /// The local end (getsockname(2)).
  package static func localAddress(_ descriptor: Int32) throws(Errno) -> SocketAddress {
    unsafe try address { pointer, length in unsafe getsockname(descriptor, pointer, length) }
  }

  /// The remote end (getpeername(2)).
  package static func peerAddress(_ descriptor: Int32) throws(Errno) -> SocketAddress {
    unsafe try address { pointer, length in unsafe getpeername(descriptor, pointer, length) }
  }

  /// The kernel's estimate of the round-trip time, in microseconds (`tcpi_rtt`, tcp(7)).
  package static func roundTripMicroseconds(_ descriptor: Int32) throws(Errno) -> UInt32 {
    var info = tcp_info()
    var length = socklen_t(MemoryLayout<tcp_info>.size)
    try Errno.check {
      unsafe getsockopt(descriptor, Int32(IPPROTO_TCP), TCP_INFO, &info, &length)
    }
    return info.tcpi_rtt
  }

  /// A listening TCP socket with SO_REUSEPORT, so that every worker has its own accept queue.
  ///
  /// - Parameters:
  ///   - mark: set before the socket listens: that is when the announcing program looks at it, and
  ///     never again. Accepted sockets inherit it.
  ///   - savesSYN: see `setSaveSYN`.
  package static func listener(
    on address: SocketAddress, backlog: Int32, flags: Int32 = Int32(SOCK_CLOEXEC.rawValue),
    takesBothFamilies: Bool = false, mark: UInt32? = nil, savesSYN: Bool = false
  ) throws(Errno) -> Descriptor {
    let listener = try stream(address.address.family, flags: flags)
    try setOption(listener.number, level: SOL_SOCKET, SO_REUSEADDR, 1)
    try setOption(listener.number, level: SOL_SOCKET, SO_REUSEPORT, 1)
    if address.address.family == .v6 {
      try setOption(
        listener.number, level: Int32(IPPROTO_IPV6), IPV6_V6ONLY, takesBothFamilies ? 0 : 1)
    }
    if let mark { try setMark(listener.number, mark) }
    if savesSYN { try setSaveSYN(listener.number) }
    try bind(listener.number, to: address)
    try Errno.check { listen(listener.number, backlog) }
    return listener
  }

  static func address(
    _ call: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
  ) throws(Errno) -> SocketAddress {
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    let result = unsafe withUnsafeMutablePointer(to: &storage) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe call($0, &length) }
    }
    guard result == 0 else { throw Errno.current }
    guard let address = SocketAddress(storage) else { throw Errno(EAFNOSUPPORT) }
    return address
  }
}
