internal import Foundation
package import Testing

/// The agent on grpcio, in a process of its own.
package final class GRPCAgent {
  package let endpoint: String
  private let program: Program
  private let directory: TemporaryDirectory

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

  package func pauseProcess() { program.send(signal: SIGSTOP) }

  package func resumeProcess() { program.send(signal: SIGCONT) }

  package func tell(_ command: String) throws {
    let seen = program.output.lines.count
    program.write(command + "\n")
    guard program.output.wait(after: seen, for: { $0 == "ok" }) != nil else {
      throw Trouble("no answer from the agent\n\(program.transcript)")
    }
  }

  /// - Parameter zeros: bytes that follow the message's own.
  package func send(_ message: [UInt8], zeros: Int = 0) throws {
    try tell("message " + message.map { String(format: "%02x", $0) }.joined() + " \(zeros)")
  }

  /// The calls it has seen: method, request and metadata.
  package var calls: [String] { program.output.lines.filter { $0.hasPrefix("call ") } }
}

extension Trait where Self == ConditionTrait {
  package static var needsGRPC: Self {
    .enabled(if: Python.found != nil, "needs grpcio and spiffe from PyPI (Scripts/test)")
  }
}
