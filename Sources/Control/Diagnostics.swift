internal import CLinux
internal import Net

/// What the proxy says of itself, on standard error; the connection log goes to standard output.
package enum Diagnostics {
  package static func write(_ message: String) {
    writeAll("culvert-proxy: \(message)\n", to: STDERR_FILENO)
  }

  /// Writes all of it, or as much as the descriptor takes.
  static func writeAll(_ text: String, to descriptor: Int32) {
    let bytes = Array(text.utf8)
    var start = 0
    while start < bytes.count {
      let count = unsafe bytes.withUnsafeBufferPointer {
        unsafe CLinux.write(
          descriptor, $0.baseAddress.map { unsafe $0 + start }, bytes.count - start)
      }
      if count < 0, Errno.current == .interrupted { continue }
      guard count > 0 else { return }
      start += count
    }
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
