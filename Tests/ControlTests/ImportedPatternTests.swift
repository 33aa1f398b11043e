import Policy
import Testing

@testable import culvert

/// Small enough to try everything.
@Suite struct `A pattern that is imported` {
  /// Every text over a and b of at most `length` letters.
  private static func texts(_ length: Int) -> [String] {
    guard length > 0 else { return [""] }
    let shorter = texts(length - 1)
    return shorter + shorter.filter { $0.count == length - 1 }.flatMap { [$0 + "a", $0 + "b"] }
  }

  private static let patterns =
    texts(3).dropFirst().flatMap { [.exact($0), .prefix($0), .suffix($0)] } + [.present]
    as [TextPattern]

  @Test func `is written as it is read`() {
    for pattern in Self.patterns { #expect(TextPattern(pattern.description) == pattern) }
    for text in ["", "**", "a*b", "*a*", "**a", "a**"] { #expect(TextPattern(text) == nil) }
  }

  @Test func `matches its example`() {
    for pattern in Self.patterns { #expect(pattern.matches(pattern.example)) }
  }

  @Test func `and another have what matches both in common`() {
    let texts = Self.texts(5).dropFirst()
    for left in Self.patterns {
      for right in Self.patterns {
        do throws(TextPattern.Inexpressible) {
          let both = try left.intersection(right)
          let isRight = texts.allSatisfy {
            (both?.matches($0) ?? false) == (left.matches($0) && right.matches($0))
          }
          #expect(isRight, "\(left) \(right) \(String(describing: both))")
        } catch {
          let kinds = [left, right].map(\.description).map { $0.hasPrefix("*") }
          #expect(Set(kinds) == [true, false])
        }
      }
    }
  }
}
