/// Observations counted by size.
package struct Histogram: Codable, Hashable, Sendable {
  /// Upper bounds, ascending, in the unit of what is observed.
  package var bounds: [Double]
  /// For each bound what lies between it and the one before, then what lies above them all.
  package var counts: [UInt64]
  package var sum: Double

  package init(bounds: [Double], counts: [UInt64], sum: Double) {
    self.bounds = bounds
    self.counts = counts
    self.sum = sum
  }

  /// Another of the same bounds, added.
  package mutating func add(_ other: Histogram) {
    counts = zip(counts, other.counts).map { $0 &+ $1 }
    sum += other.sum
  }
}

/// Metrics in the Prometheus text format 0.0.4.
package struct Exposition {
  package typealias Labels = [String: String]

  /// What Prometheus reads.
  package private(set) var finished = ""

  package init() {}

  package mutating func gauge(_ name: String, _ help: String, _ samples: [(Labels, Double)]) {
    family(name, "gauge", help, samples.map { ($0.0, Self.text($0.1)) })
  }

  package mutating func counter(_ name: String, _ help: String, _ samples: [(Labels, UInt64)]) {
    family(name, "counter", help, samples.map { ($0.0, String($0.1)) })
  }

  package mutating func histogram(
    _ name: String, _ help: String, _ samples: [(Labels, Histogram)]
  ) {
    guard !samples.isEmpty else { return }
    head(name, "histogram", help)
    for (labels, histogram) in samples {
      var total: UInt64 = 0
      let bounds = histogram.bounds.map(Self.text) + ["+Inf"]
      for (bound, count) in zip(bounds, histogram.counts) {
        total &+= count
        line("\(name)_bucket", labels.merging(["le": bound]) { first, _ in first }, String(total))
      }
      line("\(name)_sum", labels, Self.text(histogram.sum))
      line("\(name)_count", labels, String(total))
    }
  }

  private mutating func family(
    _ name: String, _ kind: String, _ help: String, _ samples: [(Labels, String)]
  ) {
    guard !samples.isEmpty else { return }
    head(name, kind, help)
    for (labels, value) in samples { line(name, labels, value) }
  }

  private mutating func head(_ name: String, _ kind: String, _ help: String) {
    finished += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
  }

  private mutating func line(_ name: String, _ labels: Labels, _ value: String) {
    let list = labels.sorted { $0.key < $1.key }
      .map { "\($0.key)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
    finished += name + (list.isEmpty ? "" : "{\(list)}") + " \(value)\n"
  }

  private static func text(_ value: Double) -> String {
    value == value.rounded() && abs(value) < 1e15 ? String(Int64(value)) : String(value)
  }

  private static func escaped(_ value: String) -> String {
    var text = ""
    for character in value.unicodeScalars {
      switch character {
      case "\\": text += "\\\\"
      case "\"": text += "\\\""
      case "\n": text += "\\n"
      default: text.unicodeScalars.append(character)
      }
    }
    return text
  }
}
