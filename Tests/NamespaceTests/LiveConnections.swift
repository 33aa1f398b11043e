import Foundation
import TestSupport

/// Connections through both proxies that exchange lines without a pause, and new ones all the time,
/// while something else happens.
final class LiveConnections: Sendable {
  private let isOver = Box(false)
  private let running = Box(0)
  private let rounds: Box<[Int]>
  private let opened = Box(0)
  private let failures = Box<[String]>([])

  /// Opens `count` connections, served by `threads` threads, and starts `newcomers` threads that
  /// connect, exchange a line and close. Returns when all of them have exchanged something.
  init(
    _ count: Int, threads: Int = 4, newcomers: Int = 1, from namespace: Namespace, port: UInt16
  ) throws {
    rounds = Box([Int](repeating: 0, count: threads))
    for thread in 0..<threads {
      let streams = try namespace.connect(
        count / threads, to: Family.v4.server, port: port)
      for stream in streams { stream.setTimeout(seconds: 60) }
      start { [self] in
        var number = 0
        while !isOver.value {
          for (index, stream) in streams.enumerated() {
            try Self.exchange(stream, "line \(number) of \(thread).\(index)")
          }
          number += 1
          rounds.update { $0[thread] = number }
        }
        for stream in streams {
          stream.finish()
          guard try stream.end() == .clean else { throw Trouble("no clean end") }
        }
      }
    }
    for _ in 0..<newcomers {
      start { [self] in
        while !isOver.value {
          let stream = try namespace.connect(to: Family.v4.server, port: port)
          try Self.exchange(stream, "a new one")
          stream.finish()
          guard try stream.end() == .clean else { throw Trouble("no clean end of a new one") }
          opened.update { $0 += 1 }
        }
      }
    }
    try waitForRound()
  }

  deinit { isOver.update { $0 = true } }

  /// Waits until every connection has exchanged something since now, and new ones have come.
  func waitForRound() throws {
    let (before, openedBefore) = (rounds.value, opened.value)
    let isDone: Bool? = rounds.wait(seconds: 60) { now in
      // What was under way does not count.
      zip(now, before).allSatisfy { $0 >= $1 + 2 } || !failures.value.isEmpty ? true : nil
    }
    let hasCome: Bool? = opened.wait(seconds: 60) {
      $0 >= openedBefore + 2 || !failures.value.isEmpty ? true : nil
    }
    guard isDone == true, hasCome == true, failures.value.isEmpty else {
      throw Trouble("connections stood still or broke: \(failures.value)")
    }
  }

  /// How many connections were opened, used and closed so far.
  var openedCount: Int { opened.value }

  /// Ends all of them in order.
  ///
  /// - Returns: what went wrong; empty if nothing did.
  func finish() -> [String] {
    isOver.update { $0 = true }
    if running.wait(seconds: 60, until: { $0 == 0 ? true : nil }) == nil {
      failures.update { $0.append("some connections did not end") }
    }
    return failures.value
  }

  private func start(_ body: @escaping @Sendable () throws -> Void) {
    running.update { $0 += 1 }
    Thread.detachNewThread { [self] in
      do {
        try body()
      } catch {
        failures.update { $0.append("\(error)") }
        rounds.update { _ in }
        opened.update { _ in }
      }
      running.update { $0 -= 1 }
    }
  }

  private static func exchange(_ stream: TestSupport.Stream, _ line: String) throws {
    guard try stream.exchange(line) else { throw Trouble("another answer to \(line)") }
  }
}
