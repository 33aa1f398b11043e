import CLinux
import Control
import Foundation
import Net
import Telemetry
import Testing

@testable import Control

/// A directory of the test's own; it goes with this object.
final class TemporaryDirectory {
  let path: String

  init() throws {
    // Short, since a socket's path has at most 107 bytes.
    let url = URL(filePath: "/tmp/culvert-\(UInt32.random(in: 0 ... .max))")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: false)
    path = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { "\(path)/\(name)" }
}

struct Outcome {
  let status: Int32
  let output: String
  let error: String
}

enum Tool {
  /// The program under test, built beside the test bundle.
  static let path: String = {
    let build = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let candidates = [build, root.appending(path: ".build/debug")]
      .map { $0.appending(path: "culvert").path }
    return candidates.first { FileManager.default.isExecutableFile(atPath: $0) } ?? candidates[1]
  }()

  /// Runs culvert, through the program `wrapper` names if any, to its end.
  static func run(_ arguments: String..., through wrapper: [String] = []) throws -> Outcome {
    try run(arguments, through: wrapper)
  }

  static func run(_ arguments: [String], through wrapper: [String] = []) throws -> Outcome {
    let command = wrapper + [path] + arguments
    let process = Process()
    process.executableURL = URL(filePath: try #require(find(command[0])))
    process.arguments = Array(command.dropFirst())
    let output = Pipe()
    let error = Pipe()
    process.standardOutput = output
    process.standardError = error
    process.standardInput = FileHandle.nullDevice
    try process.run()
    // Error texts are short: they fit the pipe while the output is read.
    let outputData = output.fileHandleForReading.readDataToEndOfFile()
    let errorData = error.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Outcome(
      status: process.terminationStatus, output: String(decoding: outputData, as: UTF8.self),
      error: String(decoding: errorData, as: UTF8.self))
  }

  static func find(_ program: String) -> String? {
    if program.contains("/") { return program }
    return ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/"].map { $0 + program }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }
}

/// A listening socket as a class, which closures of the tests can hold.
final class Listening {
  private let descriptor: Descriptor

  init(_ path: String) throws { descriptor = try UnixSocket.listen(path) }
}

/// One end of a unix connection, as a client that may misbehave.
final class RawClient {
  private let number: Int32

  init(_ path: String) throws {
    let descriptor = try UnixSocket.connect(path, timeoutMilliseconds: 2000)
    number = descriptor.release()
  }

  deinit { _ = close(number) }

  func send(_ text: String) throws {
    let bytes = Array(text.utf8)
    let count = unsafe CLinux.send(number, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    try #require(count == bytes.count)
  }

  /// What the server has sent by now; nil once it has closed.
  func received() throws -> String? {
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    let count = unsafe recv(number, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    if count > 0 { return String(decoding: bytes[..<count], as: UTF8.self) }
    if count == 0 || Errno.current == .connectionReset { return nil }
    try #require(Errno.current == .tryAgain)
    return ""
  }
}

/// A server at a unix socket that treats its one client as `behaviour` says.
final class FakeProxy: @unchecked Sendable {
  enum Behaviour {
    case answers(String)
    /// Answers without an end of line, then closes.
    case answersAndCloses(String)
    case staysSilent
    /// Sends a byte now and then, and never an end of line.
    case drips
  }

  let path: String
  private let directory: TemporaryDirectory
  private let behaviour: Behaviour
  private let ended = DispatchSemaphore(value: 0)
  private(set) var request = ""

  init(_ behaviour: Behaviour) throws {
    directory = try TemporaryDirectory()
    path = directory.file("admin.sock")
    self.behaviour = behaviour
    let listener = try Self.listen(path)
    Thread { [self] in
      serve(listener)
      _ = close(listener)
      ended.signal()
    }.start()
  }

  /// Waits until the client has gone, and returns what it asked.
  func finish() -> String {
    ended.wait()
    return request
  }

  private static func listen(_ path: String) throws -> Int32 {
    let listener = try UnixSocket.listen(path)
    return listener.release()
  }

  private func serve(_ listener: Int32) {
    guard Self.isReady(listener, 20_000) else { return }
    let client = culvert_accept4(listener, nil, nil, Int32(SOCK_CLOEXEC.rawValue))
    guard client >= 0 else { return }
    defer { _ = close(client) }
    while !request.hasSuffix("\n"), let text = Self.read(client) { request += text }
    switch behaviour {
    case .answers(let text):
      Self.write(client, text + "\n")
      _ = Self.read(client)
    case .answersAndCloses(let text):
      Self.write(client, text)
    case .staysSilent:
      _ = Self.read(client)
    case .drips:
      while !Self.isReady(client, 20) { Self.write(client, " ") }
    }
  }

  private static func isReady(_ descriptor: Int32, _ milliseconds: Int32) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    return unsafe poll(&request, 1, milliseconds) == 1
  }

  /// nil at the end, or if nothing comes for long.
  private static func read(_ descriptor: Int32) -> String? {
    guard isReady(descriptor, 20_000) else { return nil }
    var bytes = [UInt8](repeating: 0, count: 4096)
    let count = unsafe recv(descriptor, &bytes, bytes.count, 0)
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
  }

  private static func write(_ descriptor: Int32, _ text: String) {
    let bytes = Array(text.utf8)
    _ = unsafe send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
  }
}

func encoded(_ value: some Encodable) throws -> String {
  String(decoding: try JSONEncoder().encode(value), as: UTF8.self)
}

extension StatusReport {
  /// A proxy in the middle of its work.
  static func sample() -> StatusReport {
    StatusReport(
      culvert: "0.1.0", pid: 4711, uptimeSeconds: 93_784, epoch: 3,
      configuration: "/etc/culvert/web.yaml", lastReloadError: nil, backend: "io_uring",
      workers: 2,
      listeners: [
        Listener(role: "outbound", address: "127.0.0.1:15001"),
        Listener(role: "inbound", address: "[::]:15006"),
      ],
      inbound: Inbound(mode: "permissive", ports: ["10000": "strict", "8080": "disabled"]),
      outbound: Outbound(mode: "auto", rules: 2, peers: 1, registryOnly: false, pins: 2),
      discovery: Discovery(
        announce: "failed", announceReason: "no cgroup v2", probe: "on",
        meshRanges: ["10.0.0.0/8"], meshAddresses: 3, noMeshAddresses: 4,
        probes: ["mesh": 5, "no_mesh_port": 6], identityChanges: 7),
      authorization: Authorization(rules: 8, audited: 1),
      identity: Identity(
        source: "files", state: "ready", id: "spiffe://demo.mesh/ns/shop/sa/web",
        notBefore: "2026-01-31T12:00:00.000Z", notAfter: "2026-02-01T12:00:00.000Z",
        expiresInSeconds: 83_400, svidEpoch: 5, trustEpoch: 2, rotations: 4),
      bundles: [
        Bundle(
          trustDomain: "demo.mesh", source: "pem", authorities: 1, revocationLists: 2,
          lateRevocationLists: 1,
          ageSeconds: 4000),
        Bundle(
          trustDomain: "partner.example", source: "federation", authorities: 0,
          revocationLists: 0, lateRevocationLists: 0, sequence: 7,
          url: "https://partner.example/bundle",
          lastError: "timed_out"),
      ],
      kernelTLS: KernelTLS(
        mode: "auto", send: ["TLS_AES_128_GCM_SHA256"], receive: [], rekey: true,
        sendReason: nil, receiveReason: "recvmsg: Input/output error"),
      connections: Connections(
        open: ["mutual_tls": 4, "plaintext": 1, "undecided": 2],
        total: ["mutual_tls": 120, "plaintext": 7], accepted: 140,
        engines: ["user": 120, "openssl": 0, "kernel_send": 3, "kernel_receive": 0],
        handshakes: ["full": 20, "resumed": 100],
        refused: ["self_call": 3, "not_local": 1],
        outcomes: [
          Outcome(direction: "outbound", security: "mutual_tls", connections: 120),
          Outcome(
            direction: "inbound", security: "plaintext", reason: "client_plaintext",
            connections: 7),
        ],
        undecidedSeconds: [
          "inbound": Histogram(bounds: [0.001, 0.01], counts: [5, 2, 1], sum: 0.25)
        ]),
      draining: false, droppedLogLines: 0)
  }
}

/// An admin server that `#expect` can look at; it takes copyable values only.
final class Server {
  private var server: AdminServer

  init(_ path: String) throws { server = try AdminServer(path: path) }

  var hasClients: Bool { server.hasClients }
  var interests: [pollfd] { server.interests }

  func serve(now: Int64, answer: (AdminRequest) -> AdminResponse) {
    server.serve(now: now, answer: answer)
  }
}

/// A file watch that `#expect` can look at.
final class Watch {
  private var watch: FileWatch

  init(_ files: [String]) throws {
    watch = try FileWatch()
    watch.watch(files)
    watch.drain()
  }

  func watch(_ files: [String]) { watch.watch(files) }

  func hasChanged() -> Bool { watch.hasChanged() }

  func drain() { watch.drain() }

  /// Whether something wakes the control loop; events are there when the call that made them
  /// returns.
  func wakes() -> Bool {
    var request = pollfd(fd: watch.readable.number, events: Int16(POLLIN), revents: 0)
    defer { watch.drain() }
    return unsafe poll(&request, 1, 0) == 1
  }
}
