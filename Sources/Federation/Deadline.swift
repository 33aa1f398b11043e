internal import CLinux
internal import Net

/// A point in time that everything one fetch waits for has to keep.
struct Deadline {
  private let milliseconds: Int64

  init(afterMilliseconds wait: Int) { milliseconds = Self.now + Int64(wait) }

  private init(at milliseconds: Int64) { self.milliseconds = milliseconds }

  private static var now: Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  private var remainingMilliseconds: Int64 { max(0, milliseconds - Self.now) }

  /// An earlier deadline, for the next of `count` attempts that share what is left.
  func share(of count: Int) -> Deadline {
    Deadline(at: Self.now + remainingMilliseconds / Int64(max(1, count)))
  }

  /// Waits until the descriptor has one of these events, an error or its end.
  ///
  /// - Returns: false if the deadline came first.
  func wait(for descriptor: Int32, _ events: Int32) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    while true {
      let wait = Int32(clamping: remainingMilliseconds)
      guard wait > 0 else { return false }
      let count = unsafe poll(&request, 1, wait)
      if count > 0 { return true }
      // Interrupted, or at the end of it: what remains says which.
    }
  }
}
