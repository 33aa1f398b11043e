import Announcement
import CLinux
import Net
import Synchronization
import TestSupport
import Testing

/// Whether the kernel takes the shortest program of the type there is: `return 1`.
private let canLoadSockOps: Bool = {
  let program: [UInt64] = [0x0000_0001_0000_00b7, 0x95]
  let number = unsafe culvert_bpf_load_sock_ops(program, 2, "Apache-2.0", nil, 0)
  guard number >= 0 else { return false }
  close(number)
  return true
}()

extension Trait where Self == ConditionTrait {
  static var needsSockOps: Self {
    .enabled(if: canLoadSockOps, "needs sock_ops programs (bpf(2) with CAP_BPF)")
  }
}

/// The marks the tests use.
enum Marks {
  static let silent = Mark.proxy
  static let announcing = Mark.proxy | Mark.announce
  static let answered = announcing | Mark.announced
}

/// Announces in a namespace as long as it lives, or until told to stop.
final class Announcing: Sendable {
  private let announcer: Mutex<Announcer?>

  init(mark: UInt16) throws { announcer = Mutex(try Announcer(mark: mark)) }

  /// At once: the thread that made this object may hold it a moment longer.
  func stop() { announcer.withLock { $0 = nil } }

  static func start(in namespace: Namespace, mark: UInt16 = UInt16(Mark.proxy)) throws -> Announcing
  {
    try namespace.enter { try Announcing(mark: mark) }
  }
}

/// Two namespaces that reach each other directly, and announce unless told not to.
final class Pair {
  let client: Namespace
  let server: Namespace
  private let announcing: [Announcing]

  init(announcing: Bool = true) throws {
    client = try Namespace("client")
    server = try Namespace("server")
    try Namespace.join(
      client, server,
      addresses: (["10.90.0.1/24", "fd90::1/64"], ["10.90.0.2/24", "fd90::2/64"]))
    self.announcing = announcing ? try [client, server].map { try Announcing.start(in: $0) } : []
  }

  deinit {
    client.close()
    server.close()
  }

  /// Records what passes between them.
  func captured(_ body: () throws -> Void) throws -> Recording {
    let capture = try Capture(in: server)
    try body()
    return try capture.finish(markFrom: client, to: Family.v4.server)
  }
}

extension Namespace {
  /// Listens as the proxy's inbound listeners do.
  func listenMarked(_ mark: UInt32? = Marks.announcing, port: UInt16 = 0) throws -> Listener {
    try listen(port: port, mark: mark, savesSYN: true)
  }
}

/// The marks of both ends after a handshake.
struct Seen: Hashable {
  let client: UInt32
  let server: UInt32

  /// Connects, reads both marks, and makes sure that the connection carries bytes both ways.
  init(
    from client: Namespace, mark: UInt32? = Marks.announcing, to address: String,
    port: UInt16? = nil, _ listener: Listener
  ) throws {
    let stream = try client.connect(to: address, port: port ?? listener.port, mark: mark)
    let accepted = try listener.accept()
    self.client = try Socket.mark(stream.descriptor)
    server = try Socket.mark(accepted.descriptor)
    try stream.send("question")
    #expect(try accepted.receiveText(exactly: 8) == "question")
    try accepted.send("answer")
    #expect(try stream.receiveText(exactly: 6) == "answer")
  }

  init(client: UInt32, server: UInt32) {
    self.client = client
    self.server = server
  }

  static let both = Seen(client: Marks.answered, server: Marks.answered)
  static let neither = Seen(client: Marks.announcing, server: Marks.announcing)
}

extension Recording {
  /// The segments that carry an experimental option of our kind, whatever is in it.
  var announcements: [TCPHeader] {
    headers.filter { $0.options.contains { $0.first == AnnouncementOption.kind } }
  }
}
