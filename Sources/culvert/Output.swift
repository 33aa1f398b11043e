internal import CLinux
internal import FoundationEssentials

/// What the subcommands print.
enum Output {
  /// One object in one line: keys sorted, slashes as they are.
  static func json(_ value: some Encodable) -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    guard let data = try? encoder.encode(value) else {
      preconditionFailure("the values printed hold nothing JSON cannot express")
    }
    return String(decoding: data, as: UTF8.self)
  }

  /// Lines of a name and what belongs to it, in two columns. Text that came from elsewhere cannot
  /// steer the terminal.
  static func columns(_ rows: [(String, String)]) -> String {
    let width = rows.map(\.0.count).max() ?? 0
    return rows.map { name, value in
      let padding = String(repeating: " ", count: width - name.count)
      return "\(name)\(padding)  \(printable(value))\n"
    }.joined()
  }

  /// Writes one line to standard error.
  static func fail(_ message: String) {
    let line = Array("culvert: \(printable(message))\n".utf8)
    _ = unsafe write(STDERR_FILENO, line, line.count)
  }

  static func printable(_ text: String) -> String {
    String(
      String.UnicodeScalarView(
        text.unicodeScalars.map {
          $0.properties.generalCategory == .control ? "\u{fffd}" : $0
        }))
  }
}
