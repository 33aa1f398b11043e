/// Exponential backoff with jitter (gRPC, "Connection Backoff Protocol").
package struct Backoff: Sendable {
  package static let initialMilliseconds = 100.0
  package static let factor = 1.6
  package static let maximumMilliseconds = 30_000.0
  /// The part of a delay by which chance makes it longer or shorter.
  package static let jitter = 0.2

  private let initial: Double
  private let maximum: Double
  private let jitter: Double
  private var next: Double

  package init(
    initialMilliseconds initial: Double = initialMilliseconds,
    maximumMilliseconds maximum: Double = maximumMilliseconds, jitter: Double = jitter
  ) {
    self.initial = initial
    self.maximum = maximum
    self.jitter = jitter
    next = initial
  }

  /// The delay before the next attempt, at most the maximum.
  package mutating func delayMilliseconds() -> Int64 {
    let delay = next * (1 + Double.random(in: -jitter...jitter))
    next = min(next * Self.factor, maximum)
    return Int64(min(delay, maximum).rounded())
  }

  package mutating func reset() { next = initial }
}
