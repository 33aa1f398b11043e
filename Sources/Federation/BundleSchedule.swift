package import Identity

/// When to look at one bundle endpoint, and which of two bundles counts; pure.
package struct BundleSchedule: Sendable {
  /// SPIFFE Federation §4.1 recommends five minutes where the bundle says nothing.
  package static let defaultRefreshSeconds = 300
  /// However short the hint: looking costs the publisher a handshake.
  package static let minimumRefreshSeconds = 10
  /// 24 hours. However long the hint: a withdrawn authority must not be trusted for weeks.
  package static let maximumRefreshSeconds = 86_400

  /// What a fetch came to.
  package enum Outcome: Hashable, Sendable {
    /// `stored` is another bundle now.
    case applied
    case unchanged
    /// Older than what is stored, and ignored; its sequence.
    case superseded(UInt64)
    /// What is stored stays.
    case failed
  }

  /// The bundle that counts; nil until one was fetched, unless one was configured.
  package private(set) var stored: SPIFFEBundle?
  /// When to look next, on the clock of the caller.
  package private(set) var nextPollMilliseconds: Int64
  private var isPolling = false

  /// Begins with a look at once.
  package init(stored: SPIFFEBundle?, now: Int64) {
    self.stored = stored
    nextPollMilliseconds = now
  }

  package var refreshSeconds: Int {
    let hint = stored?.refreshHintSeconds ?? Self.defaultRefreshSeconds
    return min(max(hint, Self.minimumRefreshSeconds), Self.maximumRefreshSeconds)
  }

  package func isDue(now: Int64) -> Bool { !isPolling && now >= nextPollMilliseconds }

  /// A fetch is under way; none is due until it has finished.
  package mutating func begin() { isPolling = true }

  /// The next look is one interval from now, after a failure, too (SPIFFE Federation §6.2).
  package mutating func finish(
    _ result: Result<SPIFFEBundle, BundleFetchError>, now: Int64
  ) -> Outcome {
    isPolling = false
    let outcome = take(result)
    nextPollMilliseconds = now + Int64(refreshSeconds) * 1000
    return outcome
  }

  /// The sequence orders two bundles where both have one; otherwise, and where it has not moved
  /// although the bundle has, the one fetched last counts (SPIFFE Federation §4.2): a publisher that
  /// forgot to count must not keep a withdrawn authority trusted.
  private mutating func take(_ result: Result<SPIFFEBundle, BundleFetchError>) -> Outcome {
    guard case .success(let fetched) = result else { return .failed }
    guard fetched != stored else { return .unchanged }
    if let old = stored?.sequence, let new = fetched.sequence, new < old {
      return .superseded(new)
    }
    stored = fetched
    return .applied
  }
}
