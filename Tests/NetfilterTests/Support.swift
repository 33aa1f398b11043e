import Foundation
import Testing

enum Files {
  static let directory = URL(filePath: #filePath).deletingLastPathComponent()

  /// The program under test, built beside the test bundle.
  static let program: String = {
    let build = URL(filePath: CommandLine.arguments[0]).deletingLastPathComponent()
    let root = directory.deletingLastPathComponent().deletingLastPathComponent()
    let candidates = [build, root.appending(path: ".build/debug")].map {
      $0.appending(path: "culvert-init").path
    }
    return candidates.first { FileManager.default.isExecutableFile(atPath: $0) } ?? candidates[1]
  }()

  static func golden(_ name: String) -> URL { directory.appending(path: "Golden/\(name).nft") }

  static let peer = directory.appending(path: "Scripts/peer.py").path

  static func find(_ program: String) -> String? {
    ["/usr/sbin/", "/sbin/", "/usr/bin/", "/bin/", "/usr/local/bin/"].map { $0 + program }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }
}

/// What the namespace tests need and this machine lacks; nil if nothing.
let missingFeature: String? = {
  if geteuid() != 0 { return "root" }
  return ["ip", "nft", "tcpdump", "python3"].first { Files.find($0) == nil }
}()

struct Outcome {
  let status: Int32
  let output: String
  let error: String
}

/// Runs a program to its end.
@discardableResult
func run(_ arguments: [String]) throws -> Outcome {
  let process = Process()
  process.executableURL = URL(
    filePath: arguments[0].contains("/")
      ? arguments[0] : try #require(Files.find(arguments[0]), "\(arguments[0]) is installed"))
  process.arguments = Array(arguments.dropFirst())
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

/// Runs culvert-init.
@discardableResult
func initialize(_ arguments: String...) throws -> Outcome { try run([Files.program] + arguments) }

/// Runs a program that has to succeed.
@discardableResult
func succeed(_ arguments: String...) throws -> String {
  let outcome = try run(arguments)
  try #require(outcome.status == 0, "\(arguments.joined(separator: " ")): \(outcome.error)")
  return outcome.output
}

struct TimedOut: Error, CustomStringConvertible {
  let description: String
}

/// A program that runs beside the test and says what happens; it ends with this object.
final class Companion {
  private let process = Process()
  private let input = Pipe()
  private let output = Pipe()
  private var text = ""
  private var taken = ""

  init(_ arguments: [String]) throws {
    process.executableURL = URL(
      filePath: try #require(Files.find(arguments[0]), "\(arguments[0]) is installed"))
    process.arguments = Array(arguments.dropFirst())
    process.standardInput = input
    process.standardOutput = output
    process.standardError = output
    try process.run()
  }

  deinit { stop() }

  func stop() {
    guard process.isRunning else { return }
    // A child inherits the signals its parent's thread blocks, SIGTERM among them.
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  func tell(_ command: String) throws {
    try input.fileHandleForWriting.write(contentsOf: Data((command + "\n").utf8))
  }

  /// Waits for a line that begins so, and returns the rest of it; lines before it are passed over.
  @discardableResult
  func expect(_ beginning: String, seconds: Double = 10) throws -> String {
    let deadline = Date(timeIntervalSinceNow: seconds)
    while true {
      while let end = text.firstIndex(of: "\n") {
        let line = String(text[..<end])
        text.removeSubrange(...end)
        taken += line + "\n"
        if line.hasPrefix(beginning) {
          return line.dropFirst(beginning.count).trimmingCharacters(in: .whitespaces)
        }
      }
      let descriptor = output.fileHandleForReading.fileDescriptor
      var events = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      let left = deadline.timeIntervalSinceNow
      guard left > 0 else { throw TimedOut(description: "no \"\(beginning)\" in: \(taken)\(text)") }
      guard unsafe poll(&events, 1, Int32(left * 1000) + 1) > 0 else { continue }
      let data = output.fileHandleForReading.availableData
      guard !data.isEmpty else {
        throw TimedOut(description: "ended without \"\(beginning)\": \(taken)\(text)")
      }
      text += String(decoding: data, as: UTF8.self)
    }
  }
}

/// A network namespace of this test's own.
final class TestNamespace {
  let name: String

  init() throws {
    name = "cvi\(getpid())x\(Counter.next())"
    try succeed("ip", "netns", "add", name)
    try succeed("ip", "-n", name, "link", "set", "lo", "up")
  }

  deinit { _ = try? run(["ip", "netns", "del", name]) }

  /// Runs culvert-init for this namespace.
  @discardableResult
  func initialize(_ arguments: String...) throws -> Outcome {
    try run([Files.program] + arguments + ["--netns", name])
  }

  func install(_ arguments: String...) throws {
    let outcome = try run([Files.program, "install", "--netns", name] + arguments)
    try #require(outcome.status == 0, "install: \(outcome.error)")
  }

  func listing() throws -> String {
    try succeed("ip", "netns", "exec", name, "nft", "list", "table", "inet", "culvert")
  }

  func ruleset() throws -> String {
    try succeed("ip", "netns", "exec", name, "nft", "list", "ruleset")
  }

  func peer(_ arguments: String..., user: Int? = nil) throws -> Companion {
    let identity = user.map { ["setpriv", "--reuid", "\($0)", "--clear-groups"] } ?? []
    return try Companion(
      ["ip", "netns", "exec", name] + identity + ["python3", Files.peer] + arguments)
  }

  func sink(_ ports: String...) throws -> Companion { try listen("sink", ports) }

  /// Like a proxy that cannot reach the destination.
  func resetter(_ ports: String...) throws -> Companion { try listen("resetter", ports) }

  private func listen(_ role: String, _ ports: [String]) throws -> Companion {
    let companion = try Companion(
      ["ip", "netns", "exec", name, "python3", Files.peer, role] + ports)
    try companion.expect("ready")
    return companion
  }
}

private enum Counter {
  private static let lock = NSLock()
  nonisolated(unsafe) private static var value = 0

  static func next() -> Int {
    lock.withLock {
      unsafe value += 1
      return unsafe value
    }
  }
}

/// Two namespaces joined by a veth pair: `inside` gets the rules, `outside` is the wire's other end.
final class Wire {
  let inside: TestNamespace
  let outside: TestNamespace
  static let insideV4 = "10.91.0.1"
  static let outsideV4 = "10.91.0.2"
  static let insideV6 = "fd91::1"
  static let outsideV6 = "fd91::2"

  init() throws {
    inside = try TestNamespace()
    outside = try TestNamespace()
    try succeed(
      "ip", "link", "add", "wire0", "netns", inside.name, "type", "veth", "peer", "name", "wire0",
      "netns", outside.name)
    let ends = [
      (inside, Self.insideV4, Self.insideV6, "02:00:00:00:00:01"),
      (outside, Self.outsideV4, Self.outsideV6, "02:00:00:00:00:02"),
    ]
    for (namespace, v4, v6, hardware) in ends {
      try succeed("ip", "-n", namespace.name, "link", "set", "wire0", "address", hardware)
      try succeed("ip", "-n", namespace.name, "addr", "add", "\(v4)/24", "dev", "wire0")
      try succeed("ip", "-n", namespace.name, "addr", "add", "\(v6)/64", "dev", "wire0", "nodad")
      try succeed("ip", "-n", namespace.name, "link", "set", "wire0", "up")
    }
    // Each end knows the other: no packet waits for the answer to a solicitation.
    for (near, far) in [(ends[0], ends[1]), (ends[1], ends[0])] {
      for address in [far.1, far.2] {
        try succeed(
          "ip", "-n", near.0.name, "neigh", "add", address, "lladdr", far.3, "dev", "wire0", "nud",
          "permanent")
      }
    }
  }
}

/// Everything that crosses the wire, seen from outside.
final class Capture {
  private let companion: Companion
  private let file: URL
  private let wire: Wire

  init(_ wire: Wire) throws {
    self.wire = wire
    file = FileManager.default.temporaryDirectory.appending(path: "cvi-\(UUID().uuidString).pcap")
    companion = try Companion([
      "ip", "netns", "exec", wire.outside.name, "tcpdump", "-i", "wire0", "-U", "-w", file.path,
      "--immediate-mode", "-B", "16384", "-s", "0", "-Z", "root",
    ])
    try companion.expect("tcpdump: listening on")
  }

  deinit {
    companion.stop()
    try? FileManager.default.removeItem(at: file)
  }

  /// How often a text crossed the wire until now: a datagram sent after all else marks the end.
  func count(_ text: String) throws -> Int {
    let mark = "mark-\(UUID().uuidString)"
    let sender = try wire.inside.peer("datagram", Wire.outsideV4, "53", mark)
    let deadline = Date(timeIntervalSinceNow: 10)
    var data = Data()
    repeat {
      guard deadline.timeIntervalSinceNow > 0 else {
        throw TimedOut(description: "the capture never showed the mark")
      }
      data = try Data(contentsOf: file)
    } while data.range(of: Data(mark.utf8)) == nil
    _ = sender
    var count = 0
    var start = data.startIndex
    while let found = data.range(of: Data(text.utf8), in: start..<data.endIndex) {
      count += 1
      start = found.upperBound
    }
    return count
  }
}
