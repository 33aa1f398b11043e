/// A text pattern of a rule: exact, `x*`, `*x` or `*`.
enum ImportedPattern: Hashable {
  case exact(String)
  case prefix(String)
  case suffix(String)
  /// Any text, but not none.
  case present

  /// Returns nil for a star elsewhere than at one end, and for no text at all.
  init?(_ text: String) {
    let isSuffix = text.hasPrefix("*")
    let isPrefix = text.hasSuffix("*")
    let rest = text.drop { $0 == "*" }
    if text == "*" {
      self = .present
    } else if isSuffix {
      self = .suffix(String(text.dropFirst()))
      guard !rest.contains("*"), rest.count == text.count - 1 else { return nil }
    } else if isPrefix {
      self = .prefix(String(text.dropLast()))
      guard !text.dropLast().contains("*") else { return nil }
    } else {
      self = .exact(text)
      guard !text.isEmpty, !text.contains("*") else { return nil }
    }
  }

  /// As a configuration writes it.
  var text: String {
    switch self {
    case .exact(let text): text
    case .prefix(let text): text + "*"
    case .suffix(let text): "*" + text
    case .present: "*"
    }
  }

  /// A text that it matches.
  var example: String {
    switch self {
    case .exact(let text): text
    case .prefix(let text): text + "x"
    case .suffix(let text): "x" + text
    case .present: "x"
    }
  }

  func matches(_ text: String) -> Bool {
    switch self {
    case .exact(let exact): text == exact
    case .prefix(let prefix): text.hasPrefix(prefix)
    case .suffix(let suffix): text.hasSuffix(suffix)
    case .present: true
    }
  }

  /// What matches both: a pattern, or nothing.
  ///
  /// - Throws: if no single pattern says it.
  func intersection(_ other: Self) throws(Inexpressible) -> Self? {
    switch (self, other) {
    case (.present, let pattern), (let pattern, .present): pattern
    case (.exact(let text), let pattern), (let pattern, .exact(let text)):
      pattern.matches(text) ? .exact(text) : nil
    case (.prefix(let left), .prefix(let right)):
      left.hasPrefix(right) ? self : right.hasPrefix(left) ? other : nil
    case (.suffix(let left), .suffix(let right)):
      left.hasSuffix(right) ? self : right.hasSuffix(left) ? other : nil
    case (.prefix, .suffix), (.suffix, .prefix):
      throw Inexpressible()
    }
  }

  /// Two patterns must hold, and there is none that says so.
  struct Inexpressible: Error {}
}
