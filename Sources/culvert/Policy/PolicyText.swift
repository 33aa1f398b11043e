/// A judgement for people: a line for each rule, then what comes of them.
enum PolicyText {
  static func text(_ judgement: PolicyJudgement) -> String {
    let rules = judgement.rules.map { ($0.name, line($0)) }
    return (rules.isEmpty ? "no rules\n" : Output.columns(rules)) + "\n"
      + Output.columns(summary(judgement))
  }

  /// `deny, audit: matches`, or the field that does not hold.
  private static func line(_ rule: PolicyJudgement.Rule) -> String {
    "\(rule.action)\(rule.audit ? ", audit" : ""): "
      + (rule.unmet.map { "\($0) does not hold" } ?? "matches")
  }

  private static func summary(_ judgement: PolicyJudgement) -> [(String, String)] {
    let source = judgement.source.map { " at \($0)" } ?? ""
    var rows = [
      ("from", (judgement.from ?? "no identity") + source),
      ("to", judgement.to),
      ("mode", "\(judgement.mode): plaintext is \(judgement.plaintext ? "served" : "refused")"),
      ("verdict", outcome(judgement.allowed, judgement.verdict, judgement.rule)),
    ]
    if let audited = judgement.audited {
      rows.append(
        (
          "audit",
          "if all rules counted: " + outcome(audited.allowed, audited.verdict, audited.rule)
        ))
    }
    return rows
  }

  private static func outcome(
    _ allowed: Bool, _ verdict: PolicyJudgement.Verdict, _ rule: String?
  ) -> String {
    "\(allowed ? "allowed" : "refused"): \(verdict.rawValue)" + (rule.map { " \($0)" } ?? "")
  }
}
