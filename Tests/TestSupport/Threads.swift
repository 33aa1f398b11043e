internal import CLinux
internal import Foundation

/// Something a test waited for in vain, or could not set up.
package struct Trouble: Error, CustomStringConvertible {
  package let description: String

  package init(_ description: String) { self.description = description }
}

/// How long a test waits for something that must happen, in seconds. Only a failing test ever
/// waits this long.
package let patience = 20.0

/// What every wait of a test is multiplied with, for machines that are slow throughout, such as an
/// emulated one: CULVERT_TEST_TIME_FACTOR, or 1. Durations that a test asserts stay as they are.
let timeFactor: Double = {
  let text = ProcessInfo.processInfo.environment["CULVERT_TEST_TIME_FACTOR"] ?? ""
  return max(1, Double(text) ?? 1)
}()

extension Thread {
  /// Runs a closure on a thread of its own and waits for it: what the closure does to the thread
  /// (such as setns(2)) ends with the thread.
  static func detached<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
  ) throws -> Value {
    let result = Box<Result<Value, any Error>?>(nil)
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      result.update { $0 = Result(catching: body) }
      done.signal()
    }
    done.wait()
    guard let value = result.value else { throw Trouble("the thread left no result") }
    return try value.get()
  }
}

/// A value shared between threads, with waiting for a condition on it.
package final class Box<Value: Sendable>: @unchecked Sendable {
  private var stored: Value
  private let condition = NSCondition()

  package init(_ value: Value) { stored = value }

  package var value: Value { condition.withLock { stored } }

  @discardableResult
  package func update<Result>(_ change: (inout Value) throws -> Result) rethrows -> Result {
    try condition.withLock {
      defer { condition.broadcast() }
      return try change(&stored)
    }
  }

  /// Waits until `find` gives something; nil after `seconds`.
  package func wait<Found>(
    seconds: Double = patience, until find: (Value) throws -> Found?
  ) rethrows -> Found? {
    let deadline = Date(timeIntervalSinceNow: seconds * timeFactor)
    return try condition.withLock {
      while true {
        if let found = try find(stored) { return found }
        guard condition.wait(until: deadline) else { return try find(stored) }
      }
    }
  }
}

/// Repeats a look at something that cannot notify (a file, another process) until it is so.
package func eventually(
  _ what: String, seconds: Double = patience, _ isSo: () throws -> Bool
) throws {
  let deadline = Date(timeIntervalSinceNow: seconds * timeFactor)
  while try !isSo() {
    guard Date() < deadline else { throw Trouble("not within \(seconds * timeFactor) s: \(what)") }
    usleep(5_000)
  }
}

/// A directory that is removed with everything in it, at the latest when the test run ends.
package final class TemporaryDirectory: Sendable {
  package let path: String

  package init() throws {
    let name = "culvert-test-\(getpid())-\(UUID().uuidString.prefix(8))"
    path = FileManager.default.temporaryDirectory.appending(path: name).path
    // Servers that give up root must be able to enter.
    try FileManager.default.createDirectory(
      atPath: path, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    _ = Self.removesAllAtExit
    Self.existing.update { _ = $0.insert(path) }
  }

  deinit {
    try? FileManager.default.removeItem(atPath: path)
    Self.existing.update { _ = $0.remove(path) }
  }

  private static let existing = Box<Set<String>>([])

  /// What a static holds is never released.
  private static let removesAllAtExit: Void = {
    atexit {
      for path in existing.value { try? FileManager.default.removeItem(atPath: path) }
    }
  }()

  /// Writes a file in one step: readers see the old text or the new one. Returns its path.
  @discardableResult
  package func write(_ text: String, to name: String, mode: Int = 0o644) throws -> String {
    let file = "\(path)/\(name)"
    let staged = file + ".new"
    let attributes: [FileAttributeKey: Any] = [.posixPermissions: mode]
    guard
      FileManager.default.createFile(
        atPath: staged, contents: Data(text.utf8), attributes: attributes)
    else { throw Trouble("cannot write \(staged)") }
    guard unsafe rename(staged, file) == 0 else { throw Trouble("cannot rename to \(file)") }
    return file
  }

  @discardableResult
  package func makeDirectory(_ name: String) throws -> String {
    let directory = "\(path)/\(name)"
    try FileManager.default.createDirectory(
      atPath: directory, withIntermediateDirectories: true)
    return directory
  }
}

/// The bytes of a file; empty if there is none.
package func contents(ofFile path: String) -> [UInt8] {
  FileManager.default.contents(atPath: path).map { [UInt8]($0) } ?? []
}
