/// One value of a YAML text, and where it stands.
struct YAMLNode {
  enum Content {
    /// `isPlain`: written without quotes, so that it may be a number or nothing at all.
    case scalar(String, isPlain: Bool)
    case sequence([YAMLNode])
    case mapping([YAMLEntry])
  }

  let mark: YAMLMark
  let content: Content
}

/// One `key: value`; keys are texts and differ from each other within a mapping.
struct YAMLEntry {
  let key: String
  let keyMark: YAMLMark
  let value: YAMLNode
}

/// A place in the text; both numbers are 1-based, columns count Unicode scalars.
struct YAMLMark: Hashable {
  let line: Int
  let column: Int

  static let start = YAMLMark(line: 1, column: 1)
}

/// What is wrong, before the name of the file is known.
struct Problem: Error {
  let mark: YAMLMark
  let message: String

  init(_ mark: YAMLMark, _ message: String) {
    self.mark = mark
    self.message = message
  }
}

extension YAMLNode {
  /// The value as an error message shows it: one line, bounded.
  var summary: String {
    switch content {
    case .scalar("", isPlain: true): "nothing"
    case .scalar(let text, _): Self.quote(text)
    case .sequence: "a list"
    case .mapping: "a mapping"
    }
  }

  /// The text in quotes, in one line of at most about 60 characters.
  static func quote(_ text: String) -> String {
    let maximumShown = 60
    var shown = ""
    for scalar in text.unicodeScalars.prefix(maximumShown) {
      shown += scalar.escaped(asASCII: false)
    }
    return "\"\(shown)\(text.unicodeScalars.count > maximumShown ? "…" : "")\""
  }

  /// Whether a plain scalar is null, a boolean or a number (YAML 1.2.2 §10.3.2, core schema), and
  /// therefore not a text.
  static func isCoreSchemaValue(_ text: String) -> Bool {
    switch text {
    case "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE":
      return true
    default: break
    }
    let bytes = text.utf8
    for (prefix, radix) in [("0x", 16), ("0o", 8)] where bytes.starts(with: prefix.utf8) {
      return UInt64(text.dropFirst(2), radix: radix) != nil
    }
    let numberBytes = "0123456789+-.eE".utf8
    return bytes.contains(where: { (48...57).contains($0) })
      && bytes.allSatisfy(numberBytes.contains) && Double(text) != nil
  }
}
