/// A diagnosis for people.
enum DoctorText {
  static func text(_ diagnosis: Diagnosis) -> String {
    let rows = diagnosis.checks.flatMap { check in
      [
        (check.verdict.rawValue, "\(check.name): \(check.seen)"),
        ("", "  \(check.consequence)"),
      ]
    }
    let missing = diagnosis.checks.filter { $0.isEssential && $0.verdict == .missing }.map(\.name)
    let verdict =
      diagnosis.ok
      ? "nothing essential is missing"
      : "Culvert cannot work here without: \(missing.joined(separator: ", "))"
    return Output.columns(rows) + verdict + "\n"
  }
}
