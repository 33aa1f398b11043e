internal import Policy

extension TextPattern {
  /// A text that it matches.
  var example: String {
    switch self {
    case .exact(let text): text
    case .prefix(let text): text + "x"
    case .suffix(let text): "x" + text
    case .present: "x"
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
