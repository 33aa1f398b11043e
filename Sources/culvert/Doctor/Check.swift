/// One line of `culvert doctor`: what was tried, what came of it, and what follows.
struct Check: Encodable, Equatable, Sendable {
  enum Verdict: String, Encodable, Sendable {
    case found
    case missing
    /// There, but less than Culvert can use; or it could not be tried.
    case limited
  }

  var name: String
  var verdict: Verdict
  var seen: String
  /// What it means for Culvert and, unless found, what to do.
  var consequence: String
  /// Without it Culvert does not work at all.
  var isEssential = false

  private enum CodingKeys: CodingKey { case name, verdict, seen, consequence }
}

/// All lines, as `--json` prints them.
struct Diagnosis: Encodable, Sendable {
  var version = 1
  var checks: [Check]
  var ok: Bool

  init(_ checks: [Check]) {
    self.checks = checks
    ok = !checks.contains { $0.isEssential && $0.verdict == .missing }
  }
}
