/// TCP or UDP ports as sorted, merged, closed ranges.
package struct PortSet: Hashable, Sendable {
  package private(set) var ranges: [ClosedRange<UInt16>]

  package init(_ ranges: [ClosedRange<UInt16>] = []) {
    var merged: [ClosedRange<UInt16>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      if let last = merged.last, Int(range.lowerBound) <= Int(last.upperBound) + 1 {
        merged[merged.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
      } else {
        merged.append(range)
      }
    }
    self.ranges = merged
  }

  package var isEmpty: Bool { ranges.isEmpty }

  package func contains(_ port: UInt16) -> Bool {
    ranges.contains { $0.contains(port) }
  }

  package func union(_ other: PortSet) -> PortSet { PortSet(ranges + other.ranges) }
}

extension PortSet: CustomStringConvertible, LosslessStringConvertible {
  /// Reads a list such as `80,443,8000-8099`; port 0 and an empty list are errors.
  package init?(_ text: String) {
    var ranges: [ClosedRange<UInt16>] = []
    for item in text.split(separator: ",", omittingEmptySubsequences: false) {
      let bounds = item.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
        .map(Self.port)
      guard let low = bounds[0], let high = bounds[bounds.count - 1], low <= high else {
        return nil
      }
      ranges.append(low...high)
    }
    self.init(ranges)
  }

  package var description: String {
    ranges.map { $0.count == 1 ? "\($0.lowerBound)" : "\($0.lowerBound)-\($0.upperBound)" }
      .joined(separator: ",")
  }

  private static func port(_ text: Substring) -> UInt16? {
    guard text.utf8.allSatisfy({ (48...57).contains($0) }), let port = UInt16(text), port > 0
    else { return nil }
    return port
  }
}
