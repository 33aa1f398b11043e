/// One value of a YAML text, and where it stands.
package struct YAMLNode {
  package enum Content {
    /// `isPlain`: written without quotes, so that it may be a number or nothing at all.
    case scalar(String, isPlain: Bool)
    case sequence([YAMLNode])
    case mapping([YAMLEntry])
  }

  package let mark: YAMLMark
  package let content: Content
}

/// One `key: value`; keys are texts and differ from each other within a mapping.
package struct YAMLEntry {
  package let key: String
  package let keyMark: YAMLMark
  package let value: YAMLNode
}

/// A place in the text; both numbers are 1-based, columns count Unicode scalars.
package struct YAMLMark: Hashable {
  package let line: Int
  package let column: Int

  static let start = YAMLMark(line: 1, column: 1)
}

/// What is wrong, before the name of the file is known.
package struct Problem: Error {
  package let mark: YAMLMark
  package let message: String

  package init(_ mark: YAMLMark, _ message: String) {
    self.mark = mark
    self.message = message
  }
}

extension YAMLNode {
  /// Whether this is null (YAML 1.2.2 §10.3.2): nothing written, or a word for nothing.
  package var isNothing: Bool {
    guard case .scalar(let text, isPlain: true) = content else { return false }
    return ["", "~", "null", "Null", "NULL"].contains(text)
  }

  /// The value as an error message shows it: one line, bounded.
  package var summary: String {
    switch content {
    case .scalar("", isPlain: true): "nothing"
    case .scalar(let text, _): Self.quote(text)
    case .sequence: "a list"
    case .mapping: "a mapping"
    }
  }

  /// The text in quotes, in one line of at most about 60 characters.
  package static func quote(_ text: String) -> String {
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
