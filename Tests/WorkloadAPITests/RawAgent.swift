import CLinux
import Net
import TestSupport

/// An agent at a unix socket that sends whatever bytes a test wants, and nothing by itself.
final class RawAgent {
  let path: String
  private let directory: TemporaryDirectory
  private var listener: Int32
  private(set) var connection: Int32 = -1
  private(set) var connections = 0
  private(set) var received: [UInt8] = []
  private var waiting: [UInt8] = []

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.path + "/agent.sock"
    listener = -1
    listener = try Self.listen(path)
  }

  deinit { stop() }

  var endpoint: String { "unix://\(path)" }

  private static func listen(_ path: String) throws -> Int32 {
    let listener = try UnixSocket.listen(path)
    return listener.release()
  }

  /// As when its process is killed.
  func stop() {
    hangUp()
    if listener >= 0 { _ = close(listener) }
    listener = -1
  }

  func restart() throws { listener = try Self.listen(path) }

  func hangUp() {
    if connection >= 0 { _ = close(connection) }
    connection = -1
    received = []
    waiting = []
  }

  /// Sends what fits; `serve` sends the rest.
  func send(_ bytes: [UInt8]) {
    waiting += bytes
    flush()
  }

  /// Accepts, reads and writes what it can at once. A new connection takes the place of the old.
  func serve() {
    let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let accepted = listener >= 0 ? culvert_accept4(listener, nil, nil, flags) : -1
    if accepted >= 0 {
      hangUp()
      connection = accepted
      connections += 1
    }
    flush()
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while connection >= 0 {
      let count = unsafe recv(connection, &buffer, buffer.count, 0)
      guard count > 0 else { break }
      received += buffer[..<count]
    }
  }

  /// Serves `client` until it has connected for the `number`th time and sent its request.
  func awaitRequest(of client: Client, number: Int = 1) throws {
    try eventually("a request") {
      client.advance()
      serve()
      return connections == number && Frame.parse(received).contains { $0.type == 0 }
    }
  }

  /// The data of the PINGs received that are no acknowledgements.
  var pings: [[UInt8]] {
    Frame.parse(received).filter { $0.type == 6 && $0.flags == 0 }.map(\.payload)
  }

  private func flush() {
    while connection >= 0, !waiting.isEmpty {
      let count = unsafe CLinux.send(
        connection, waiting, waiting.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
      guard count > 0 else { return }
      waiting.removeFirst(count)
    }
  }
}
