import Federation
import Identity
import Testing

/// When to poll, and which bundle counts: SPIFFE Federation §4 and §6.2.
@Suite struct ScheduleTests {
  private func bundle(
    sequence: UInt64? = nil, hint: Int? = nil, _ authority: UInt8 = 1
  ) -> SPIFFEBundle {
    SPIFFEBundle(sequence: sequence, refreshHintSeconds: hint, x509Authorities: [[authority]])
  }

  private let failure = Result<SPIFFEBundle, BundleFetchError>.failure(
    BundleFetchError(.timedOut, "test"))

  // 18. At the refresh hint; five minutes without one (§4.1).
  @Test(
    arguments: [
      (nil, 300), (600, 600), (10, 10), (9, 10), (1, 10), (86_400, 86_400), (86_401, 86_400),
      (Int.max, 86_400),
    ] as [(Int?, Int64)])
  func `18: the next poll is at the refresh hint`(hint: Int?, seconds: Int64) {
    var schedule = BundleSchedule(stored: nil, now: 1000)
    #expect(!schedule.isDue(now: 999))
    #expect(schedule.isDue(now: 1000))
    schedule.begin()
    #expect(!schedule.isDue(now: 1_000_000_000))
    #expect(schedule.finish(.success(bundle(hint: hint)), now: 2000) == .applied)
    #expect(schedule.nextPollMilliseconds == 2000 + seconds * 1000)
    #expect(!schedule.isDue(now: 2000 + seconds * 1000 - 1))
    #expect(schedule.isDue(now: 2000 + seconds * 1000))
  }

  // 18. A failed poll waits for the next interval (§6.2).
  @Test func `18: a failed poll waits for the next interval`() {
    var schedule = BundleSchedule(stored: nil, now: 0)
    #expect(schedule.finish(failure, now: 0) == .failed)
    #expect(schedule.nextPollMilliseconds == 300_000)
    _ = schedule.finish(.success(bundle(hint: 60)), now: 300_000)
    #expect(schedule.nextPollMilliseconds == 360_000)
    #expect(schedule.finish(failure, now: 360_000) == .failed)
    #expect(schedule.nextPollMilliseconds == 420_000)
    #expect(schedule.stored == bundle(hint: 60))
  }

  // 17. The sequence orders updates (TB §4.1.1, §4.2).
  @Test func `17: an older sequence is ignored`() {
    var schedule = BundleSchedule(stored: bundle(sequence: 5, 1), now: 0)
    #expect(schedule.finish(.success(bundle(sequence: 6, 2)), now: 0) == .applied)
    #expect(schedule.stored == bundle(sequence: 6, 2))
    #expect(schedule.finish(.success(bundle(sequence: 5, 3)), now: 0) == .superseded(5))
    #expect(schedule.stored == bundle(sequence: 6, 2))
    #expect(schedule.finish(.success(bundle(sequence: .max, 4)), now: 0) == .applied)
    #expect(
      schedule.finish(.success(bundle(sequence: .max - 1, 5)), now: 0) == .superseded(.max - 1))
    #expect(schedule.stored == bundle(sequence: .max, 4))
  }

  @Test func theSameBundleChangesNothing() {
    var schedule = BundleSchedule(stored: bundle(sequence: 5), now: 0)
    #expect(schedule.finish(.success(bundle(sequence: 5)), now: 0) == .unchanged)
    // A publisher that forgot to count.
    #expect(schedule.finish(.success(bundle(sequence: 5, 2)), now: 0) == .applied)
  }

  @Test func withoutASequenceTheLastFetchedCounts() {
    var schedule = BundleSchedule(stored: bundle(1), now: 0)
    #expect(schedule.finish(.success(bundle(1)), now: 0) == .unchanged)
    #expect(schedule.finish(.success(bundle(2)), now: 0) == .applied)
    #expect(schedule.finish(.success(bundle(sequence: 9, 3)), now: 0) == .applied)
    #expect(schedule.finish(.success(bundle(4)), now: 0) == .applied)
    #expect(schedule.stored == bundle(4))
  }
}
