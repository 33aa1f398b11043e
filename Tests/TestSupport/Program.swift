internal import CLinux
internal import CTestSupport
internal import Foundation

/// A running program in its own process group, its output collected line by line.
package final class Program: @unchecked Sendable {
  /// How a program ended.
  package enum Exit: Hashable, Sendable {
    case code(Int32)
    case signal(Int32)
  }

  /// What a program that has ended left behind.
  package struct Outcome: Sendable {
    package let exit: Exit
    package let output: String
    package let errors: String

    package var succeeded: Bool { exit == .code(0) }
  }

  package let command: [String]
  package let pid: Int32
  package let output: Output
  package let errors: Output
  private let input: Box<Int32?>
  private let exit = Box<Exit?>(nil)

  /// Starts a program; a relative name is looked up in PATH.
  package init(_ command: [String], environment: [String: String] = [:]) throws {
    self.command = command
    // A program that has ended does not end the test that writes to it.
    signal(SIGPIPE, SIG_IGN)
    let standardInput = try Pipe()
    let standardOutput = try Pipe()
    let standardError = try Pipe()
    pid = try Self.spawn(
      command, environment: environment,
      descriptors: [standardInput.read, standardOutput.write, standardError.write])
    for descriptor in [standardInput.read, standardOutput.write, standardError.write] {
      close(descriptor)
    }
    input = Box(standardInput.write)
    output = Output(reading: standardOutput.read)
    errors = Output(reading: standardError.read)
    collect()
  }

  deinit { kill() }

  /// Runs a program to its end.
  package static func run(
    _ command: [String], input: String = "", environment: [String: String] = [:],
    seconds: Double = 60
  ) throws -> Outcome {
    let program = try Program(command, environment: environment)
    defer { program.kill() }
    program.write(input)
    program.closeInput()
    return try program.wait(seconds: seconds)
  }

  /// Runs a program that must succeed and returns its output.
  @discardableResult
  package static func check(_ command: [String], input: String = "") throws -> String {
    let outcome = try run(command, input: input)
    guard outcome.succeeded else {
      let line = command.joined(separator: " ")
      throw Trouble("\(line): \(outcome.exit)\n\(outcome.errors)\(outcome.output)")
    }
    return outcome.output
  }

  package var isRunning: Bool { exit.value == nil }

  package func send(signal: Int32) { _ = Glibc.kill(pid, signal) }

  /// Kills the program and everything it started in its process group.
  package func kill() {
    _ = Glibc.kill(-pid, SIGKILL)
    _ = exit.wait(seconds: 5) { $0 }
    closeInput()
  }

  package func write(_ text: String) {
    guard let descriptor = input.value else { return }
    let bytes = Array(text.utf8)
    var sent = 0
    while sent < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        unsafe Glibc.write(descriptor, buffer.baseAddress! + sent, bytes.count - sent)
      }
      guard count > 0 else { return }
      sent += count
    }
  }

  package func closeInput() {
    input.update { descriptor in
      if let open = descriptor { close(open) }
      descriptor = nil
    }
  }

  /// Waits for the program to end by itself.
  package func wait(seconds: Double = patience) throws -> Outcome {
    guard let exit = exit.wait(seconds: seconds, until: { $0 }) else {
      throw Trouble(
        "\(command.joined(separator: " ")) still runs after \(seconds) s\n\(transcript)")
    }
    return Outcome(exit: exit, output: output.waitForEnd(), errors: errors.waitForEnd())
  }

  /// Waits for a line on standard error.
  @discardableResult
  package func waitForError(
    containing text: String, after count: Int = 0, seconds: Double = patience
  ) throws -> String {
    guard let line = errors.wait(seconds: seconds, after: count, for: { $0.contains(text) }) else {
      throw Trouble("\(command[0]) never said “\(text)” on standard error\n\(transcript)")
    }
    return line
  }

  /// Waits for a line on standard output.
  @discardableResult
  package func waitForOutput(containing text: String, seconds: Double = patience) throws -> String {
    guard let line = output.wait(seconds: seconds, after: 0, for: { $0.contains(text) }) else {
      throw Trouble("\(command[0]) never said “\(text)” on standard output\n\(transcript)")
    }
    return line
  }

  /// Everything said so far, for failure messages.
  package var transcript: String {
    "--- standard error\n\(errors.text)\n--- standard output\n\(output.text)"
  }

  private func collect() {
    let (pid, exit) = (pid, exit)
    Thread.detachNewThread {
      var status: Int32 = 0
      while unsafe waitpid(pid, &status, 0) < 0 && errno == EINTR {}
      let signal = status & 0x7f
      exit.update { [status] in $0 = signal == 0 ? .code(status >> 8 & 0xff) : .signal(signal) }
    }
  }

  private static func spawn(
    _ command: [String], environment: [String: String], descriptors: [Int32]
  ) throws -> pid_t {
    var actions = unsafe posix_spawn_file_actions_t()
    unsafe posix_spawn_file_actions_init(&actions)
    defer { unsafe posix_spawn_file_actions_destroy(&actions) }
    for (target, source) in descriptors.enumerated() {
      unsafe posix_spawn_file_actions_adddup2(&actions, source, Int32(target))
    }
    var attributes = posix_spawnattr_t()
    unsafe posix_spawnattr_init(&attributes)
    defer { unsafe posix_spawnattr_destroy(&attributes) }
    unsafe posix_spawnattr_setflags(
      &attributes,
      Int16(POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK))
    var signals = sigset_t()
    unsafe sigemptyset(&signals)
    unsafe posix_spawnattr_setsigmask(&attributes, &signals)
    unsafe sigaddset(&signals, SIGPIPE)
    unsafe posix_spawnattr_setsigdefault(&attributes, &signals)

    var variables = ProcessInfo.processInfo.environment
    variables.merge(environment) { $1 }
    var arguments = unsafe command.map { unsafe strdup($0) } + [nil]
    var values = unsafe variables.map { unsafe strdup("\($0)=\($1)") } + [nil]
    defer {
      for index in unsafe arguments.indices { unsafe free(arguments[index]) }
      for index in unsafe values.indices { unsafe free(values[index]) }
    }
    var pid: pid_t = 0
    let error = unsafe posix_spawnp(&pid, command[0], &actions, &attributes, &arguments, &values)
    guard error == 0 else { throw Trouble("cannot start \(command[0]): error \(error)") }
    return pid
  }
}

/// A pipe whose ends are closed on exec.
private struct Pipe {
  let read: Int32
  let write: Int32

  init() throws {
    var ends: [Int32] = [0, 0]
    guard unsafe culvert_test_pipe(&ends) == 0 else { throw Trouble("no pipe: error \(errno)") }
    (read, write) = (ends[0], ends[1])
  }
}

/// What a program writes, line by line, as it comes.
package final class Output: Sendable {
  fileprivate struct State: Sendable {
    var all: [UInt8] = []
    var lines: [String] = []
    /// Of `all`: what no newline has ended yet.
    var partial: [UInt8] = []
    var ended = false
  }

  private let state = Box(State())

  init(reading descriptor: Int32) {
    let state = state
    Thread.detachNewThread {
      var buffer = [UInt8](repeating: 0, count: 65_536)
      while true {
        let count = unsafe read(descriptor, &buffer, buffer.count)
        if count < 0 && errno == EINTR { continue }
        guard count > 0 else { break }
        let bytes = buffer[..<count]
        state.update { $0.append(bytes) }
      }
      close(descriptor)
      state.update { $0.end() }
    }
  }

  package var lines: [String] { state.value.lines }

  package var text: String { String(decoding: state.value.all, as: UTF8.self) }

  /// Waits for a whole line; the first `count` lines do not count.
  package func wait(
    seconds: Double = patience, after count: Int = 0, for matches: (String) -> Bool
  ) -> String? {
    let found: String?? = state.wait(seconds: seconds) { state in
      if let line = state.lines.dropFirst(count).first(where: matches) { return .some(line) }
      return state.ended ? .some(nil) : nil
    }
    return found ?? nil
  }

  /// Waits for text that need not end its line.
  package func waitForText(containing text: String, seconds: Double = patience) -> Bool {
    let found: Bool? = state.wait(seconds: seconds) { state in
      if state.all.contains(text.utf8) { return true }
      return state.ended ? false : nil
    }
    return found ?? false
  }

  func waitForEnd() -> String {
    // A grandchild may keep the pipe open; what has been said by then is enough.
    _ = state.wait(seconds: 2) { $0.ended ? true : nil }
    return text
  }
}

extension Output.State {
  fileprivate mutating func append(_ bytes: ArraySlice<UInt8>) {
    all += bytes
    partial += bytes
    while let newline = partial.firstIndex(of: UInt8(ascii: "\n")) {
      lines.append(String(decoding: partial[..<newline], as: UTF8.self))
      partial.removeSubrange(...newline)
    }
  }

  fileprivate mutating func end() {
    if !partial.isEmpty { lines.append(String(decoding: partial, as: UTF8.self)) }
    partial = []
    ended = true
  }
}
