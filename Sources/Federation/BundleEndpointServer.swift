package import CLinux
package import Net
package import TLS

/// A bundle endpoint (SPIFFE Federation §5.2): serves one document to anyone, with a workload's
/// X509-SVID. Every client is bounded in bytes and time. Lives on the control thread and never
/// waits; the process must ignore SIGPIPE.
package struct BundleEndpointServer: ~Copyable {
  package static let maximumClients = 32
  /// Of a request's header.
  package static let maximumRequestBytes = 8192
  /// From accepting a client to letting go of it.
  package static let clientTimeoutMilliseconds: Int64 = 10_000
  static let backlog: Int32 = 128
  /// How long nobody is accepted once descriptors or memory have run out.
  static let acceptPauseMilliseconds: Int64 = 1000

  private struct Client {
    enum Phase { case handshaking, reading, writing, discarding }

    let connection: HTTPSConnection
    let deadline: Int64
    let reader = HTTPReader(.request, maximumOtherBytes: BundleEndpointServer.maximumRequestBytes)
    var phase = Phase.handshaking
    /// What poll(2) is to wait for.
    var events = POLLIN
    var output: [UInt8] = []
    var sent = 0
  }

  /// Where it listens; with port 0 asked for, the one the kernel chose.
  package let address: SocketAddress
  private let listener: Descriptor
  private var clients: [Client] = []
  private var pausedUntil: Int64?
  private var context: HTTPSServerContext
  private var page: BundlePage

  /// - Parameters:
  ///   - mark: SO_MARK of the listener, which accepted sockets inherit; 0 for none.
  ///   - document: a bundle in JSON, which is UTF-8.
  package init(
    on address: SocketAddress, mark: UInt32, document: [UInt8], context: HTTPSServerContext
  ) throws(Errno) {
    let flags = SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue
    let listener = try Self.listen(on: address, flags: Int32(flags))
    if mark != 0 { try Socket.setMark(listener.number, mark) }
    self.address = try Socket.localAddress(listener.number)
    self.listener = listener
    self.context = context
    page = BundlePage(document)
  }

  /// `::` is everywhere: IPv4 too, and where there is no IPv6.
  private static func listen(
    on address: SocketAddress, flags: Int32
  ) throws(Errno) -> Descriptor {
    guard address.address == .anyV6 else {
      return try Socket.listener(on: address, backlog: backlog, flags: flags)
    }
    do throws(Errno) {
      return try Socket.listener(
        on: address, backlog: backlog, flags: flags, takesBothFamilies: true)
    } catch Errno(EAFNOSUPPORT) {
      return try Socket.listener(
        on: SocketAddress(.anyV4, port: address.port), backlog: backlog, flags: flags)
    }
  }

  /// Requests that are answered from now on get this document; clients that connect from now on,
  /// this SVID.
  package mutating func update(document: [UInt8], context: HTTPSServerContext) {
    page = BundlePage(document)
    self.context = context
  }

  /// What to wait for. With all places taken, or no descriptor left, the next client waits in the
  /// backlog, and looking at it would spin.
  package var interests: [pollfd] {
    let canAccept = clients.count < Self.maximumClients && pausedUntil == nil
    return [pollfd(fd: listener.number, events: canAccept ? Int16(POLLIN) : 0, revents: 0)]
      + clients.map {
        pollfd(fd: $0.connection.descriptor, events: Int16($0.events), revents: 0)
      }
  }

  /// Whether a client is being waited for, or could not be accepted: `serve` must then be called
  /// from time to time, whatever is ready.
  package var hasClients: Bool { !clients.isEmpty || pausedUntil != nil }

  /// Serves whoever is ready.
  ///
  /// - Parameter now: milliseconds of a clock that only goes forward.
  package mutating func serve(now: Int64) {
    acceptClients(now: now)
    let page = page
    clients = clients.compactMap { client in
      var client = client
      guard now < client.deadline, Self.advance(&client, page) else { return nil }
      return client
    }
  }

  private mutating func acceptClients(now: Int64) {
    if let pausedUntil, now < pausedUntil { return }
    pausedUntil = nil
    let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    while clients.count < Self.maximumClients {
      let accepted = culvert_accept4(listener.number, nil, nil, flags)
      guard accepted >= 0 else {
        let error = Errno.current
        // A client that is gone again leaves its place to the next (accept(2)).
        if error == Errno(ECONNABORTED) || error == .interrupted { continue }
        if error != .tryAgain { pausedUntil = now + Self.acceptPauseMilliseconds }
        return
      }
      // Without memory for a connection its client is turned away.
      guard
        let connection = try? HTTPSConnection(Descriptor(owning: accepted), context: context)
      else { continue }
      clients.append(
        Client(connection: connection, deadline: now + Self.clientTimeoutMilliseconds))
    }
  }

  // MARK: One client

  /// Does what is possible now; false when the client is done with.
  private static func advance(_ client: inout Client, _ page: BundlePage) -> Bool {
    while true {
      let progress: HTTPSConnection.Progress
      switch client.phase {
      case .handshaking: progress = client.connection.handshake()
      case .reading: progress = read(&client, page)
      case .writing: progress = client.connection.write(client.output[client.sent...])
      case .discarding: return client.connection.discardInput()
      }
      switch progress {
      case .done(let count): finishStep(&client, count)
      case .needsRead:
        client.events = POLLIN
        return true
      case .needsWrite:
        client.events = POLLOUT
        return true
      case .ended, .failed: return false
      }
    }
  }

  private static func read(
    _ client: inout Client, _ page: BundlePage
  ) -> HTTPSConnection.Progress {
    var chunk = [UInt8](repeating: 0, count: 4096)
    let progress = client.connection.read(into: &chunk)
    guard case .done(let count) = progress else { return progress }
    switch client.reader.feed(chunk[..<count]) {
    case .needsMore: break
    case .failed: client.output = BundlePage.badRequest
    case .complete:
      client.output =
        switch client.reader.method {
        case .get: page.response
        case .head: page.header
        case .other: BundlePage.notAllowed
        }
    }
    return progress
  }

  private static func finishStep(_ client: inout Client, _ count: Int) {
    switch client.phase {
    case .handshaking: client.phase = .reading
    case .reading: if !client.output.isEmpty { client.phase = .writing }
    case .writing:
      client.sent += count
      guard client.sent == client.output.count else { return }
      client.connection.finish()
      client.phase = .discarding
      client.events = POLLIN
    case .discarding: break
    }
  }
}

/// The answers a bundle endpoint gives (RFC 9110), made once for all clients.
private struct BundlePage {
  static let badRequest = Array(header("400 Bad Request", "Content-Length: 0").utf8)
  static let notAllowed = Array(
    header("405 Method Not Allowed", "Allow: GET, HEAD\r\nContent-Length: 0").utf8)

  /// To GET.
  let response: [UInt8]
  /// To HEAD.
  let header: [UInt8]

  init(_ document: [UInt8]) {
    header = Array(
      Self.header(
        "200 OK", "Content-Type: application/json\r\nContent-Length: \(document.count)"
      ).utf8)
    response = header + document
  }

  private static func header(_ status: String, _ fields: String) -> String {
    "HTTP/1.1 \(status)\r\n\(fields)\r\nConnection: close\r\n\r\n"
  }
}
