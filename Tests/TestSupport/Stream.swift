internal import CLinux
internal import CTestSupport
internal import Foundation
package import Net

/// A blocking TCP connection: every call ends within `patience` seconds.
package final class Stream: @unchecked Sendable {
  /// How a connection ended, seen from this side.
  package enum End: Hashable, Sendable {
    /// FIN: everything was sent.
    case clean
    case reset
  }

  package let descriptor: Int32
  private let wasReset = Box(false)
  private let isOpen = Box(true)

  init(_ descriptor: Int32) {
    self.descriptor = descriptor
    setTimeout(seconds: patience)
  }

  deinit { close() }

  package func setTimeout(seconds: Double) {
    let seconds = seconds * timeFactor
    var time = timeval(
      tv_sec: Int(seconds), tv_usec: Int(seconds.truncatingRemainder(dividingBy: 1) * 1e6))
    let size = socklen_t(MemoryLayout<timeval>.size)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &time, size)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &time, size)
  }

  package var localAddress: SocketAddress? { try? Socket.localAddress(descriptor) }
  package var peerAddress: SocketAddress? { try? Socket.peerAddress(descriptor) }

  package func send(_ text: String) throws { try send(Array(text.utf8)) }

  package func send(_ bytes: [UInt8]) throws {
    try unsafe bytes.withUnsafeBytes { try unsafe send($0) }
  }

  package func send(_ bytes: UnsafeRawBufferPointer) throws {
    var sent = 0
    while sent < bytes.count {
      let count = unsafe Glibc.send(
        descriptor, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
      if count < 0 && errno == EINTR { continue }
      guard count > 0 else {
        let error = Errno.current
        if error == .connectionReset || error == .brokenPipe { wasReset.update { $0 = true } }
        throw error
      }
      sent += count
    }
  }

  /// Up to `count` bytes as soon as there are any; empty at the end of the stream.
  package func receive(upTo count: Int = 65_536) throws -> [UInt8] {
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      filled = 0
      while true {
        let got = unsafe recv(descriptor, buffer.baseAddress, count, 0)
        if got < 0 && errno == EINTR { continue }
        filled = max(got, 0)
        errno = got < 0 ? errno : 0
        return
      }
    }
    if bytes.isEmpty && errno != 0 { throw Errno.current }
    return bytes
  }

  package func receive(exactly count: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    while bytes.count < count {
      let more = try receive(upTo: count - bytes.count)
      guard !more.isEmpty else { throw Trouble("ended after \(bytes.count) of \(count) bytes") }
      bytes += more
    }
    return bytes
  }

  /// Fills the buffer; false at the end of the stream before that.
  package func receive(into buffer: UnsafeMutableRawBufferPointer) throws -> Bool {
    var filled = 0
    while filled < buffer.count {
      let got = unsafe recv(
        descriptor, buffer.baseAddress! + filled, buffer.count - filled,
        Int32(MSG_WAITALL))
      if got < 0 && errno == EINTR { continue }
      if got < 0 { throw Errno.current }
      if got == 0 { return false }
      filled += got
    }
    return true
  }

  package func receiveText(exactly count: Int) throws -> String {
    String(decoding: try receive(exactly: count), as: UTF8.self)
  }

  /// Everything up to a clean end.
  package func receiveToEnd() throws -> [UInt8] {
    var bytes: [UInt8] = []
    while true {
      let more = try receive()
      if more.isEmpty { return bytes }
      bytes += more
    }
  }

  /// Reads on until the connection ends, and says how. Throws if it does not end in time.
  package func end() throws -> End {
    // The kernel tells of a reset once, to whichever call comes first.
    if wasReset.value { return .reset }
    do {
      while try !receive().isEmpty {}
      return .clean
    } catch let error as Errno where error == .connectionReset || error == .brokenPipe {
      return .reset
    }
  }

  /// Sends a line and expects it back.
  package func exchange(_ text: String) throws -> Bool {
    try send(text)
    return try receiveText(exactly: text.utf8.count) == text
  }

  /// FIN: this side has sent everything.
  package func finish() { shutdown(descriptor, Int32(SHUT_WR)) }

  /// RST.
  package func reset() {
    try? Socket.setResetOnClose(descriptor, true)
    close()
  }

  package func close() {
    isOpen.update { isOpen in
      if isOpen { _ = Glibc.close(descriptor) }
      isOpen = false
    }
  }

  /// Wakes a thread that waits in `receive`, which close(2) would leave there.
  func interrupt() {
    isOpen.update { if $0 { shutdown(descriptor, Int32(SHUT_RDWR)) } }
  }
}

/// A listening socket in a namespace.
package final class Listener: @unchecked Sendable {
  package let descriptor: Int32
  package let port: UInt16

  fileprivate init(_ descriptor: Int32) throws {
    self.descriptor = descriptor
    port = try Socket.localAddress(descriptor).port
  }

  deinit { Glibc.close(descriptor) }

  /// Takes the next connection.
  package func accept(seconds: Double = patience) throws -> Stream {
    guard let stream = try acceptIfAny(seconds: seconds) else {
      throw Trouble("nobody connected to port \(port) within \(seconds) s")
    }
    return stream
  }

  /// Takes the next connection; nil if none comes within the time.
  package func acceptIfAny(seconds: Double) throws -> Stream? {
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    guard unsafe poll(&entry, 1, Int32(seconds * timeFactor * 1000)) > 0 else { return nil }
    let accepted = culvert_test_accept(descriptor)
    guard accepted >= 0 else { throw Errno.current }
    return Stream(accepted)
  }
}

extension Namespace {
  /// Listens on a port (0: any free one) of one address, or of all addresses of both families.
  ///
  /// `mark`: SO_MARK of the socket, set before it listens. `savesSYN`: TCP_SAVE_SYN.
  package func listen(
    on address: String = "::", port: UInt16 = 0, backlog: Int32 = 4096, mark: UInt32? = nil,
    savesSYN: Bool = false
  ) throws -> Listener {
    try enter {
      guard let ip = IPAddress(address) else { throw Trouble("not an address: \(address)") }
      let domain = ip.family == .v4 ? AF_INET : AF_INET6
      let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
      let descriptor = try Errno.check { socket(domain, kind, 0) }
      try Socket.setOption(descriptor, level: SOL_SOCKET, SO_REUSEADDR, 1)
      if ip.isUnspecified && ip.family == .v6 {
        try Socket.setOption(descriptor, level: Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0)
      }
      if let mark { try Socket.setMark(descriptor, mark) }
      if savesSYN { try Socket.setSaveSYN(descriptor) }
      try Socket.bind(descriptor, to: SocketAddress(ip, port: port))
      try Errno.check { Glibc.listen(descriptor, backlog) }
      return try Listener(descriptor)
    }
  }

  /// Connects; throws `Errno` if refused or reset at once.
  ///
  /// `mark`: SO_MARK of the socket. `mapped`: an IPv4 address is dialled as `::ffff:a.b.c.d` on an
  /// IPv6 socket.
  package func connect(
    to address: String, port: UInt16, mark: UInt32? = nil, mapped: Bool = false
  ) throws -> Stream {
    try enter { try Self.connect(to: address, port: port, mark: mark, mapped: mapped) }
  }

  /// Many connections at once.
  package func connect(_ count: Int, to address: String, port: UInt16) throws -> [Stream] {
    try enter {
      try (0..<count).map { _ in
        try Self.connect(to: address, port: port, mark: nil, mapped: false)
      }
    }
  }

  private static func connect(
    to address: String, port: UInt16, mark: UInt32?, mapped: Bool
  ) throws -> Stream {
    guard let ip = IPAddress(address) else { throw Trouble("not an address: \(address)") }
    let domain = ip.family == .v4 && !mapped ? AF_INET : AF_INET6
    let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
    let stream = Stream(try Errno.check { socket(domain, kind, 0) })
    if let mark { try Socket.setMark(stream.descriptor, mark) }
    let target = SocketAddress(ip, port: port)
    var (storage, length) = mapped ? mappedStorage(target) : target.storage
    try Errno.check {
      unsafe withUnsafePointer(to: &storage) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe Glibc.connect(stream.descriptor, $0, length)
        }
      }
    }
    return stream
  }

  /// `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2), which `SocketAddress` would turn into IPv4.
  private static func mappedStorage(_ target: SocketAddress) -> (sockaddr_storage, socklen_t) {
    var inet6 = sockaddr_in6()
    inet6.sin6_family = sa_family_t(AF_INET6)
    inet6.sin6_port = target.port.bigEndian
    let bytes = [UInt8](repeating: 0, count: 10) + [0xff, 0xff] + target.address.bytes
    unsafe withUnsafeMutableBytes(of: &inet6.sin6_addr) { unsafe $0.copyBytes(from: bytes) }
    var storage = sockaddr_storage()
    unsafe withUnsafeMutableBytes(of: &storage) {
      unsafe $0.storeBytes(of: inet6, as: sockaddr_in6.self)
    }
    return (storage, socklen_t(MemoryLayout<sockaddr_in6>.size))
  }
}

/// A server in a namespace that treats every connection alike, each on its own thread. It lives
/// as long as the namespace.
package final class Server: Sendable {
  package let port: UInt16
  private let state: Box<State>

  private struct State: Sendable {
    var streams: [Stream] = []
    var accepted = 0
    var received: [UInt8] = []
    var stopped = false
  }

  fileprivate init(
    _ listener: Listener, handler: @escaping @Sendable (Stream, ([UInt8]) -> Void) throws -> Void
  ) {
    port = listener.port
    let state = Box(State())
    self.state = state
    Thread.detachNewThread {
      while !state.value.stopped {
        guard let stream = try? listener.acceptIfAny(seconds: 0.1) else { continue }
        state.update {
          $0.accepted += 1
          $0.streams.append(stream)
        }
        Thread.detachNewThread {
          try? handler(stream) { bytes in state.update { $0.received += bytes } }
          stream.close()
        }
      }
    }
  }

  package func stop() {
    state.update {
      $0.stopped = true
      for stream in $0.streams { stream.interrupt() }
      $0.streams = []
    }
  }

  /// How many connections reached the application so far.
  package var accepted: Int { state.value.accepted }

  /// Every byte the application received so far, over all connections.
  package var received: [UInt8] { state.value.received }

  package func waitForAccepted(_ count: Int) throws {
    guard state.wait(until: { $0.accepted >= count ? true : nil }) != nil else {
      throw Trouble("\(accepted) of \(count) connections reached the application")
    }
  }
}

extension Namespace {
  /// Starts a server. The handler reports the bytes it received through its second argument.
  package func serve(
    on address: String = "::", port: UInt16 = 0,
    handler: @escaping @Sendable (Stream, ([UInt8]) -> Void) throws -> Void
  ) throws -> Server {
    let server = Server(try listen(on: address, port: port), handler: handler)
    keep(server)
    return server
  }

  /// Sends back what it receives, and ends when the client has finished.
  package func echoServer(on address: String = "::", port: UInt16 = 0) throws -> Server {
    try serve(on: address, port: port) { stream, report in
      stream.setTimeout(seconds: 300)
      while case let bytes = try stream.receive(), !bytes.isEmpty {
        report(bytes)
        try stream.send(bytes)
      }
    }
  }

  /// Speaks first, as MySQL and SMTP servers do, then echoes.
  package func greetingServer(_ greeting: String, port: UInt16 = 0) throws -> Server {
    try serve(port: port) { stream, report in
      try stream.send(greeting)
      while case let bytes = try stream.receive(), !bytes.isEmpty {
        report(bytes)
        try stream.send(bytes)
      }
    }
  }
}

extension Namespace {
  /// Sends one UDP datagram.
  package func sendDatagram(_ text: String, to address: String, port: UInt16) throws {
    try enter {
      guard let ip = IPAddress(address) else { throw Trouble("not an address: \(address)") }
      let domain = ip.family == .v4 ? AF_INET : AF_INET6
      let kind = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
      let descriptor = try Errno.check { socket(domain, kind, 0) }
      defer { Glibc.close(descriptor) }
      var (storage, length) = SocketAddress(ip, port: port).storage
      let bytes = Array(text.utf8)
      try Errno.check {
        unsafe withUnsafePointer(to: &storage) { pointer in
          unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            unsafe sendto(descriptor, bytes, bytes.count, 0, $0, length)
          }
        }
      }
    }
  }
}

extension Stream {
  /// Passes bytes both ways until both sides have finished.
  package static func pump(_ one: Stream, _ other: Stream) throws {
    let isOver = Box(false)
    Thread.detachNewThread {
      try? one.pass(to: other)
      isOver.update { $0 = true }
    }
    try? other.pass(to: one)
    _ = isOver.wait { $0 ? true : nil }
  }

  private func pass(to other: Stream) throws {
    defer { other.finish() }
    setTimeout(seconds: 300)
    while case let bytes = try receive(), !bytes.isEmpty { try other.send(bytes) }
  }
}
