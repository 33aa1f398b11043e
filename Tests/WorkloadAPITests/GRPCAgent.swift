import Foundation
import TestSupport
import Testing

/// The agent on grpcio, in a process of its own.
final class GRPCAgent {
  private static let script = Bundle.module.path(
    forResource: "agent", ofType: "py", inDirectory: "Agent")!

  /// From the virtual environment that Scripts/test prepares.
  static let python: String? = {
    let environment =
      URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent().path + "/.build/python/bin/python3"
    let candidates = [ProcessInfo.processInfo.environment["CULVERT_PYTHON"] ?? environment]
    return candidates.first {
      (try? Program.run([$0, "-c", "import grpc, spiffe"]).succeeded) ?? false
    }
  }()

  let endpoint: String
  private let program: Program
  private let directory: TemporaryDirectory
  private var answers = 0

  convenience init(_ flags: String...) throws {
    let directory = try TemporaryDirectory()
    try self.init(directory, address: "unix:\(directory.path)/agent.sock", flags)
  }

  /// An agent at the place of another one.
  init(_ directory: TemporaryDirectory, address: String, _ flags: [String]) throws {
    self.directory = directory
    endpoint =
      address.hasPrefix("unix:") ? "unix://\(directory.path)/agent.sock" : "tcp://\(address)"
    let python = try #require(Self.python)
    program = try Program([python, Self.script, address] + flags)
    try program.waitForOutput(containing: "listening")
  }

  deinit { kill() }

  func kill() { program.kill() }

  /// An agent at the same place, after this one has gone.
  func successor() throws -> GRPCAgent {
    try GRPCAgent(directory, address: "unix:\(directory.path)/agent.sock", [])
  }

  /// Stops the process; when this returns, none of its threads runs.
  func pauseProcess() throws {
    program.send(signal: SIGSTOP)
    try eventually("the process to stop") {
      let tasks = "/proc/\(program.pid)/task"
      return try FileManager.default.contentsOfDirectory(atPath: tasks).allSatisfy {
        let state = contents(ofFile: "\(tasks)/\($0)/stat")
        return String(decoding: state, as: UTF8.self).contains(") T ")
      }
    }
  }

  func tell(_ command: String) throws {
    program.write(command + "\n")
    answers += 1
    let wanted = answers
    try eventually("the agent's answer") {
      program.output.lines.count { $0 == "ok" } >= wanted
    }
  }

  /// - Parameter zeros: bytes that follow the message's own.
  func send(_ message: [UInt8], zeros: Int = 0) throws {
    try tell("message " + message.map { String(format: "%02x", $0) }.joined() + " \(zeros)")
  }

  /// The calls it has seen so far: method, request and metadata.
  var calls: [String] { program.output.lines.filter { $0.hasPrefix("call ") } }

  /// The same, of which there must be so many.
  func calls(_ expected: Int) throws -> [String] {
    try eventually("\(expected) calls") { calls.count >= expected }
    try #require(calls.count == expected)
    return calls
  }
}

extension Trait where Self == ConditionTrait {
  static var needsGRPC: Self {
    .enabled(if: GRPCAgent.python != nil, "needs grpcio and spiffe from PyPI (Scripts/test)")
  }
}
