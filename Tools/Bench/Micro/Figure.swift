/// Nanoseconds of one operation, in several batches.
struct Figure {
  let name: String
  /// Bytes the operation works on.
  let bytes: Int
  /// Ascending.
  let nanoseconds: [Double]

  init(_ name: String, bytes: Int, nanoseconds: [Double]) {
    self.name = name
    self.bytes = bytes
    self.nanoseconds = nanoseconds.sorted()
  }

  private var median: Double { nanoseconds[nanoseconds.count / 2] }
  private var fastest: Double { nanoseconds[0] }
  private var slowest: Double { nanoseconds[nanoseconds.count - 1] }
  private var gigabytesPerSecond: Double { Double(bytes) / median }

  static func table(_ figures: [Figure]) -> String {
    let head = row("", "bytes", "ns", "(fastest … slowest)", "GB/s")
    let rows = figures.map {
      row(
        $0.name, String($0.bytes), rounded($0.median),
        "(\(rounded($0.fastest)) … \(rounded($0.slowest)))", hundredths($0.gigabytesPerSecond))
    }
    return ([head] + rows).joined(separator: "\n")
  }

  static func json(_ figures: [Figure]) -> String {
    let entries = figures.map {
      "{\"name\":\"\($0.name)\",\"bytes\":\($0.bytes),\"nanoseconds\":\($0.median),"
        + "\"fastest\":\($0.fastest),\"slowest\":\($0.slowest)}"
    }
    return "{\"version\":1,\"figures\":[\(entries.joined(separator: ","))]}"
  }

  private static func row(
    _ name: String, _ bytes: String, _ time: String, _ spread: String, _ rate: String
  ) -> String {
    func right(_ text: String, _ width: Int) -> String {
      String(repeating: " ", count: max(width - text.count, 0)) + text
    }
    let padding = String(repeating: " ", count: max(64 - name.count, 0))
    return name + padding + right(bytes, 6) + right(time, 8) + right(spread, 22) + right(rate, 7)
  }

  private static func rounded(_ value: Double) -> String { String(Int(value.rounded())) }

  private static func hundredths(_ value: Double) -> String {
    let all = Int((value * 100).rounded())
    return "\(all / 100)." + (all % 100 < 10 ? "0" : "") + String(all % 100)
  }
}
