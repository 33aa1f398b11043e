import Net
import TestSupport
import Testing

/// connect(2) was answered with a reset.
struct Refused: Error {
  static func check<Value>(_ connect: () throws -> Value) throws -> Value {
    do {
      return try connect()
    } catch let error as Errno where error.code == 111 {
      throw Refused()
    }
  }
}

/// How an attempt to exchange a line ended.
enum Attempt: Hashable, Sendable {
  case answered
  case refused
}

/// Connects, sends a line, and says whether an echo server sent it back. A reset, during connect or
/// after it, is a refusal; anything else is a failure of the test.
func attempt(
  _ text: String, from namespace: Namespace, to address: String, port: UInt16
) throws -> Attempt {
  do {
    let stream = try namespace.connect(to: address, port: port)
    try stream.send(text)
    let answer = try stream.receive(upTo: text.utf8.count)
    if answer.isEmpty { throw Trouble("a clean end instead of an answer") }
    let rest = try stream.receive(exactly: text.utf8.count - answer.count)
    #expect(answer + rest == Array(text.utf8))
    return .answered
  } catch let error as Errno where refusals.contains(error.code) {
    return .refused
  }
}

/// ECONNREFUSED, ECONNRESET, EPIPE.
private let refusals: Set<Int32> = [111, 104, 32]
