internal import CLinux
internal import FoundationEssentials
internal import Net

/// The unix socket `culvert` talks to: mode 0600, one request per connection, every client bounded
/// in bytes and time. Lives on the control thread, so a stuck client never slows a worker.
struct AdminServer: ~Copyable {
  static let maximumClients = 16
  static let maximumRequestBytes = 4096
  static let clientTimeoutMilliseconds: Int64 = 5000

  private struct Client {
    let descriptor: Int32
    let deadline: Int64
    var input: [UInt8] = []
    /// A whole request, once there is one.
    var request: [UInt8]?
    var output: [UInt8] = []
    var sent = 0
  }

  private let path: String
  private let listener: Descriptor
  private var clients: [Client] = []

  init(path: String) throws(LoadError) {
    self.path = path
    do throws(Errno) {
      listener = try UnixSocket.listen(path)
    } catch Errno(EADDRINUSE) {
      throw LoadError(
        description: "\(path): another culvert-proxy answers here; give each its own admin.socket")
    } catch {
      throw LoadError(description: "\(path): cannot listen: \(error)")
    }
  }

  deinit {
    for client in clients { _ = close(client.descriptor) }
    _ = unsafe unlink(path)
  }

  /// What to wait for. With all places taken the next client waits in the backlog, and looking at
  /// it would spin.
  var interests: [pollfd] {
    let isFull = clients.count >= Self.maximumClients
    return [pollfd(fd: listener.number, events: isFull ? 0 : Int16(POLLIN), revents: 0)]
      + clients.map {
        pollfd(
          fd: $0.descriptor, events: Int16($0.output.isEmpty ? POLLIN : POLLOUT), revents: 0)
      }
  }

  /// Whether a client is being waited for.
  var hasClients: Bool { !clients.isEmpty }

  /// Serves whoever is ready.
  ///
  /// - Parameter answer: nil if the answer is not there yet: it is asked for again with the next
  ///   call.
  mutating func serve(now: Int64, answer: (AdminRequest) -> AdminResponse?) {
    acceptClients(now: now)
    clients = clients.compactMap { client in
      var client = client
      guard now < client.deadline, Self.advance(&client, answer) else {
        _ = close(client.descriptor)
        return nil
      }
      return client
    }
  }

  private mutating func acceptClients(now: Int64) {
    let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    while clients.count < Self.maximumClients {
      let accepted = culvert_accept4(listener.number, nil, nil, flags)
      guard accepted >= 0 else { return }
      clients.append(
        Client(descriptor: accepted, deadline: now + Self.clientTimeoutMilliseconds))
    }
  }

  /// Reads and writes what is possible now; false when the client is done with.
  private static func advance(
    _ client: inout Client, _ answer: (AdminRequest) -> AdminResponse?
  ) -> Bool {
    if client.output.isEmpty, client.request == nil {
      var chunk = [UInt8](
        repeating: 0, count: maximumRequestBytes - client.input.count)
      let count = unsafe recv(client.descriptor, &chunk, chunk.count, 0)
      if count == 0 { return false }
      if count < 0 { return Errno.current == .tryAgain }
      client.input += chunk[..<count]
      let newline = UInt8(ascii: "\n")
      if let end = client.input.firstIndex(of: newline) {
        client.request = Array(client.input[..<end])
      } else if client.input.count >= maximumRequestBytes {
        client.output =
          encode(AdminResponse(error: "a request has at most \(maximumRequestBytes) bytes"))
          + [newline]
      } else {
        return true
      }
    }
    if client.output.isEmpty, let request = client.request {
      guard let response = respond(request, answer) else { return true }
      client.output = response + [UInt8(ascii: "\n")]
    }
    let rest = client.output[client.sent...]
    let count = unsafe rest.withUnsafeBytes {
      unsafe send(client.descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
    }
    if count < 0 { return Errno.current == .tryAgain }
    client.sent += count
    return client.sent < client.output.count
  }

  private static func respond(
    _ line: [UInt8], _ answer: (AdminRequest) -> AdminResponse?
  ) -> [UInt8]? {
    struct Envelope: Decodable { var version: Int }
    let data = Data(line)
    guard let envelope = try? JSONDecoder().decode(Envelope.self, from: data) else {
      return encode(AdminResponse(error: "a request is one line of JSON with a version"))
    }
    guard envelope.version == AdminRequest.currentVersion else {
      return encode(
        AdminResponse(error: "this proxy speaks version \(AdminRequest.currentVersion)"))
    }
    guard let request = try? JSONDecoder().decode(AdminRequest.self, from: data) else {
      return encode(AdminResponse(error: "unknown request"))
    }
    return answer(request).map(encode)
  }

  private static func encode(_ response: AdminResponse) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys]
    guard let data = try? encoder.encode(response) else {
      preconditionFailure("the wire types hold nothing JSON cannot express")
    }
    return Array(data)
  }
}
