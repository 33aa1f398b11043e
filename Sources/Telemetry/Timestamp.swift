internal import CLinux

/// RFC 3339 times in UTC.
package enum Timestamp {
  package static func nowMilliseconds() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  /// For example `2026-01-31T12:00:00.250Z`.
  package static func text(unixMilliseconds: Int64) -> String {
    var seconds = time_t(unixMilliseconds / 1000)
    var parts = unsafe tm()
    unsafe gmtime_r(&seconds, &parts)
    func pad(_ value: Int32, _ width: Int = 2) -> String {
      let digits = String(value)
      return String(repeating: "0", count: max(0, width - digits.utf8.count)) + digits
    }
    return "\(pad(unsafe parts.tm_year + 1900, 4))-\(pad(unsafe parts.tm_mon + 1))-"
      + "\(pad(unsafe parts.tm_mday))T\(pad(unsafe parts.tm_hour)):\(pad(unsafe parts.tm_min)):"
      + "\(pad(unsafe parts.tm_sec)).\(pad(Int32(unixMilliseconds % 1000), 3))Z"
  }
}
