internal import CLinux
internal import Glibc
internal import Net
internal import TLS

/// One GET over a connection of its own, on a thread that may wait.
struct HTTPSExchange {
  /// Addresses of one host that are tried.
  static let maximumAddresses = 8
  /// Everything of a response that is no body.
  static let maximumOtherBytes = 256 * 1024
  private static let chunkBytes = 16 * 1024

  let url: HTTPSURL
  let server: HTTPSServer
  let mark: UInt32
  let maximumBodyBytes: Int
  let deadline: Deadline

  /// The response; its body only with status 200.
  func run() throws(BundleFetchError) -> HTTPReader {
    let socket = try connect(try Self.resolve(url))
    let connection: HTTPSConnection
    do throws(TLSSetupError) {
      connection = try HTTPSConnection(socket, expecting: server)
    } catch {
      throw BundleFetchError(.tlsFailed, error.description)
    }
    while try step(connection, connection.handshake()) == nil {}
    try send(connection)
    let reader = try receive(connection)
    connection.finish()
    return reader
  }

  // MARK: Connecting

  /// The host's addresses, in the order of getaddrinfo(3). Only that call does not know the
  /// deadline: it waits as long as resolv.conf(5) says.
  private static func resolve(_ url: HTTPSURL) throws(BundleFetchError) -> [SocketAddress] {
    if let address = url.address { return [SocketAddress(address, port: url.port)] }
    var hints = unsafe addrinfo()
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    let status = unsafe getaddrinfo(url.host, nil, &hints, &list)
    guard status == 0 else {
      let text = unsafe String(cString: gai_strerror(status))
      throw BundleFetchError(.dnsFailed, "\(url.host): \(text)")
    }
    defer { unsafe freeaddrinfo(list) }
    var addresses: [SocketAddress] = []
    var next = unsafe list
    while let entry = unsafe next, addresses.count < maximumAddresses {
      if let address = unsafe address(entry.pointee, port: url.port) { addresses.append(address) }
      unsafe next = unsafe entry.pointee.ai_next
    }
    return addresses
  }

  private static func address(_ entry: addrinfo, port: UInt16) -> SocketAddress? {
    guard let source = unsafe entry.ai_addr else { return nil }
    var storage = sockaddr_storage()
    let count = unsafe min(Int(entry.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
    unsafe withUnsafeMutableBytes(of: &storage) {
      unsafe $0.copyMemory(from: UnsafeRawBufferPointer(start: source, count: count))
    }
    guard let address = SocketAddress(storage) else { return nil }
    return SocketAddress(address.address, port: port, scopeID: address.scopeID)
  }

  /// A socket connected to the first address that answers; each gets an equal part of the time.
  private func connect(_ addresses: [SocketAddress]) throws(BundleFetchError) -> Descriptor {
    var failure = BundleFetchError(.dnsFailed, "\(url.host): no address")
    for (index, address) in addresses.enumerated() {
      do throws(BundleFetchError) {
        return try connect(address, by: deadline.share(of: addresses.count - index))
      } catch {
        failure = error
      }
    }
    throw failure
  }

  private func connect(
    _ address: SocketAddress, by deadline: Deadline
  ) throws(BundleFetchError) -> Descriptor {
    do throws(Errno) {
      let flags = SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
      let socket = try Socket.stream(address.address.family, flags: Int32(flags))
      // Before the SYN, by which the rules would take the connection for an application's.
      if mark != 0 { try Socket.setMark(socket.number, mark) }
      do throws(Errno) {
        try Socket.connect(socket.number, to: address)
      } catch .inProgress {
        guard deadline.wait(for: socket.number, POLLOUT) else { throw Errno(ETIMEDOUT) }
        let error = Socket.pendingError(socket.number)
        if error.code != 0 { throw error }
      }
      return socket
    } catch Errno(ETIMEDOUT) {
      throw BundleFetchError(.timedOut, "connecting to \(address)")
    } catch {
      throw BundleFetchError(.connectFailed, "\(address): \(error)")
    }
  }

  // MARK: Request and response

  private func send(_ connection: HTTPSConnection) throws(BundleFetchError) {
    let request = Array(
      """
      GET \(url.path) HTTP/1.1\r
      Host: \(url.authority)\r
      User-Agent: culvert\r
      Accept: application/json\r
      Accept-Encoding: identity\r
      Connection: close\r
      \r

      """.utf8)
    var sent = 0
    while sent < request.count {
      sent += try step(connection, connection.write(request[sent...])) ?? 0
    }
  }

  private func receive(_ connection: HTTPSConnection) throws(BundleFetchError) -> HTTPReader {
    let reader = HTTPReader(
      .response, maximumBodyBytes: maximumBodyBytes, maximumOtherBytes: Self.maximumOtherBytes)
    var chunk = [UInt8](repeating: 0, count: Self.chunkBytes)
    while true {
      let progress = connection.read(into: &chunk)
      // Only close_notify ends a body that has no length; a connection that is cut is an error.
      let bytes = progress == .ended ? 0 : try step(connection, progress)
      guard let bytes else { continue }
      switch reader.feed(chunk[..<bytes]) {
      case .needsMore: continue
      case .complete: return reader
      case .failed(.bodyTooLarge):
        throw BundleFetchError(.bodyTooLarge, "more than \(maximumBodyBytes) bytes")
      case .failed(.malformed(let detail)): throw BundleFetchError(.malformedResponse, detail)
      }
    }
  }

  /// Waits if a step has to; then it gives nil.
  private func step(
    _ connection: HTTPSConnection, _ progress: HTTPSConnection.Progress
  ) throws(BundleFetchError) -> Int? {
    switch progress {
    case .done(let count): return count
    case .needsRead:
      guard deadline.wait(for: connection.descriptor, POLLIN) else { throw timeout }
      return nil
    case .needsWrite:
      guard deadline.wait(for: connection.descriptor, POLLOUT) else { throw timeout }
      return nil
    case .ended: throw BundleFetchError(.tlsFailed, "the server has closed the connection")
    case .failed(.certificate(let detail)): throw BundleFetchError(.certificateRefused, detail)
    case .failed(.tls(let detail)): throw BundleFetchError(.tlsFailed, detail)
    }
  }

  private var timeout: BundleFetchError {
    BundleFetchError(.timedOut, "waiting for \(url.authority)")
  }
}
