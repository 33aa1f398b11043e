internal import CLinux

/// What the proxy says of itself, on standard error; the connection log goes to standard output.
package enum Diagnostics {
  /// Never waits for a reader: what standard error does not take at once is lost.
  package static func write(_ message: String) {
    var line = LogWriter(descriptor: STDERR_FILENO)
    _ = line.append("culvert-proxy: \(message)")
    line.writeWhatFits()
  }
}

/// CLOCK_MONOTONIC in milliseconds.
enum Clock {
  static func milliseconds() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }
}
