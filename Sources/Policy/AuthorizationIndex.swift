internal import Net

/// Finds the first of some rules that matches, without a look at those that name other principals
/// or ports.
///
/// A rule is filed under each combination of its principals, if all of them are exact, and its
/// ports, if there are few; a rule without either stands under the one key that all facts have.
struct AuthorizationIndex: Sendable {
  /// With more combinations than this a rule is filed without its ports. The keys of all rules are
  /// then at most `maximumRules` times this, or as many as there are principals.
  static let maximumKeysPerRule = 16

  private struct Key: Hashable {
    let principal: String?
    let port: UInt16?
  }

  /// A reference, because taking a rule out of an array copies its dozen lists.
  private final class Candidate: Sendable {
    let index: Int
    let rule: AuthorizationRule

    init(_ index: Int, _ rule: AuthorizationRule) {
      self.index = index
      self.rule = rule
    }
  }

  /// In the order of the rules.
  private var candidates: [Key: [Candidate]] = [:]

  init(_ rules: [AuthorizationRule], where belongs: (AuthorizationRule) -> Bool) {
    for (index, rule) in rules.enumerated() where belongs(rule) {
      let candidate = Candidate(index, rule)
      for key in Self.keys(of: rule) { candidates[key, default: []].append(candidate) }
    }
  }

  var isEmpty: Bool { candidates.isEmpty }

  func first(matching subject: AuthorizationSubject) -> Int? {
    if isEmpty { return nil }
    var first = first(nil, nil, matching: subject, before: .max)
    first = self.first(nil, subject.port, matching: subject, before: first)
    if let principal = subject.principal {
      first = self.first(principal, nil, matching: subject, before: first)
      first = self.first(principal, subject.port, matching: subject, before: first)
    }
    return first < .max ? first : nil
  }

  /// The first rule under a key that matches, or `end` if there is none before it.
  private func first(
    _ principal: String?, _ port: UInt16?, matching subject: AuthorizationSubject, before end: Int
  ) -> Int {
    for candidate in candidates[Key(principal: principal, port: port)] ?? [] {
      if candidate.index >= end { break }
      if candidate.rule.matches(subject) { return candidate.index }
    }
    return end
  }

  private static func keys(of rule: AuthorizationRule) -> [Key] {
    let principals = exactPrincipals(of: rule)
    let ports = fewPorts(of: rule, atMost: maximumKeysPerRule / principals.count)
    return principals.flatMap { principal in
      ports.map { Key(principal: principal, port: $0) }
    }
  }

  /// Just nil if the rule may match whoever it is; never empty.
  private static func exactPrincipals(of rule: AuthorizationRule) -> [String?] {
    var principals: [String?] = []
    for pattern in rule.principals {
      guard case .exact(let principal) = pattern else { return [nil] }
      principals.append(principal)
    }
    return principals.isEmpty ? [nil] : principals
  }

  /// Just nil if the rule may match on any port, or on more than `maximum`; never empty.
  private static func fewPorts(of rule: AuthorizationRule, atMost maximum: Int) -> [UInt16?] {
    let count = rule.ports.ranges.reduce(0) { $0 + $1.count }
    guard count > 0, count <= maximum else { return [nil] }
    return rule.ports.ranges.flatMap { $0.map(Optional.some) }
  }
}
