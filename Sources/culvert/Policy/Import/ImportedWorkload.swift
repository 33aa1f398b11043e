internal import Configuration
internal import Identity

/// The workload whose configuration is wanted.
struct ImportedWorkload {
  let namespace: String
  /// nil: not known, so that no selector can be decided.
  let labels: [String: String]?
  let serviceAccount: String?
  /// Istio's: its objects without a selector hold for the whole mesh.
  let rootNamespace: String
  /// What `cluster.local` stands for.
  let trustDomain: TrustDomain

  /// Whether objects of a namespace may apply to it.
  func isInScope(_ namespace: String) -> Bool {
    namespace == self.namespace || namespace == rootNamespace
  }

  /// Whether `spec.selector` selects it; one without labels selects everything.
  func isSelected(_ selector: Field?) throws(Problem) -> Bool {
    guard let wanted = try Self.labels(selector) else { return true }
    guard let labels else {
      throw wanted.problem("--labels of the workload are needed to say whether this applies")
    }
    var isSelected = true
    for (key, _, value) in try wanted.entries() {
      guard case .scalar(let text, _) = value.node.content, !text.contains("*") else {
        throw value.expected("a label's value")
      }
      if labels[key] != text { isSelected = false }
    }
    return isSelected
  }

  /// `matchLabels`, if it asks for anything.
  static func labels(_ selector: Field?) throws(Problem) -> Field? {
    guard let wanted = try selector?.fields(["matchLabels"]).given("matchLabels"),
      try !wanted.entries().isEmpty
    else { return nil }
    return wanted
  }
}
