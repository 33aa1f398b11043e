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

  private mutating func family(
    _ name: String, _ kind: String, _ help: String, _ samples: [(Labels, String)]
  ) {
    guard !samples.isEmpty else { return }
    finished += "# HELP \(name) \(help)\n# TYPE \(name) \(kind)\n"
    for (labels, value) in samples {
      let list = labels.sorted { $0.key < $1.key }
        .map { "\($0.key)=\"\(Self.escaped($0.value))\"" }.joined(separator: ",")
      finished += name + (list.isEmpty ? "" : "{\(list)}") + " \(value)\n"
    }
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
