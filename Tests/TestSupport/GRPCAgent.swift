internal import Foundation
package import Testing

/// The agent on grpcio, in a process of its own.
package final class GRPCAgent {
  package let endpoint: String
  private let program: Program
  private let directory: TemporaryDirectory
  private var answers = 0

  package convenience init(_ flags: String...) throws {
    let directory = try TemporaryDirectory()
    try self.init(directory, address: "unix:\(directory.path)/agent.sock", flags)
  }

  /// An agent at the place of another one.
  package init(_ directory: TemporaryDirectory, address: String, _ flags: [String]) throws {
    self.directory = directory
    endpoint =
      address.hasPrefix("unix:") ? "unix://\(directory.path)/agent.sock" : "tcp://\(address)"
    program = try Program([try Python.path, Python.script("agent"), address] + flags)
    try program.waitForOutput(containing: "listening")
  }

  deinit { kill() }

  package func kill() { program.kill() }

  /// An agent in a directory whose socket was named before there was one.
  package convenience init(at directory: TemporaryDirectory) throws {
    try self.init(directory, address: "unix:\(directory.path)/agent.sock", [])
  }

  /// An agent at the same place, after this one has gone.
  package func successor() throws -> GRPCAgent {
    try GRPCAgent(directory, address: "unix:\(directory.path)/agent.sock", [])
  }

  /// Stops the process; when this returns, none of its threads runs.
  package func pauseProcess() throws {
    program.send(signal: SIGSTOP)
    try eventually("the process to stop") {
      let tasks = "/proc/\(program.pid)/task"
      return try FileManager.default.contentsOfDirectory(atPath: tasks).allSatisfy {
        let state = contents(ofFile: "\(tasks)/\($0)/stat")
        return String(decoding: state, as: UTF8.self).contains(") T ")
      }
    }
  }

  package func resumeProcess() { program.send(signal: SIGCONT) }

  package func tell(_ command: String) throws {
    program.write(command + "\n")
    answers += 1
    let wanted = answers
    try eventually("the agent's answer") {
      program.output.lines.count { $0 == "ok" } >= wanted
    }
  }

  /// - Parameter zeros: bytes that follow the message's own.
  package func send(_ message: [UInt8], zeros: Int = 0) throws {
    try tell("message " + message.map { String(format: "%02x", $0) }.joined() + " \(zeros)")
  }

  /// The calls it has seen: method, request and metadata.
  package var calls: [String] { program.output.lines.filter { $0.hasPrefix("call ") } }

  /// The same, of which there must be so many.
  package func calls(_ expected: Int) throws -> [String] {
    try eventually("\(expected) calls") { calls.count >= expected }
    try #require(calls.count == expected)
    return calls
  }
}

extension Trait where Self == ConditionTrait {
  package static var needsGRPC: Self {
    .enabled(if: Python.found != nil, "needs grpcio and spiffe from PyPI (Scripts/test)")
  }
}
