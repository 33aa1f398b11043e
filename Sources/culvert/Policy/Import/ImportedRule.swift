internal import Net
internal import Policy

/// One rule of `authorization`, and where it comes from.
struct ImportedRule {
  enum Action: String { case allow, deny }

  /// 1…128 bytes of a-z A-Z 0-9 . _ - /
  static let nameMaximumBytes = 128

  /// What the comment above it says.
  let comment: String
  let name: String
  let action: Action
  let isAudit: Bool
  let conditions: RuleConditions

  /// One item of a list in YAML's flow style.
  var text: String {
    var fields = ["name: \"\(name)\"", "action: \(action.rawValue)"]
    if isAudit { fields.append("audit: true") }
    return "{ \((fields + conditions.fields).joined(separator: ", ")) }"
  }
}

/// What must hold for a rule to match: everything that is given.
struct RuleConditions {
  enum Text: String, CaseIterable { case principals, trustDomains, namespaces }

  /// One of them must match; no entry: whatever it is, even none. An empty list matches nothing.
  private(set) var texts: [Text: [TextPattern]] = [:]
  /// None of them may match.
  private(set) var notTexts: [Text: [TextPattern]] = [:]
  /// nil: any address.
  private(set) var sources: [CIDR]?
  private(set) var notSources: [CIDR] = []
  /// nil: any port.
  private(set) var ports: Set<UInt16>?
  private(set) var notPorts: Set<UInt16> = []

  /// Matches nothing: an address that nobody has, outside of a range that holds it.
  static let nothing = {
    var conditions = RuleConditions()
    conditions.require(sources: [CIDR(.anyV4)])
    if let all = CIDR(.anyV4, prefixLength: 0) { conditions.exclude(sources: [all]) }
    return conditions
  }()

  /// Whether nothing can match.
  var isUnsatisfiable: Bool {
    texts.values.contains([]) || sources == [] || ports == []
  }

  /// Whether it asks who the client is not, and nothing about who it is.
  var admitsNameless: Bool { texts.isEmpty && !notTexts.isEmpty }
}

// MARK: - Conjunction

extension RuleConditions {
  mutating func require(
    _ field: Text, _ patterns: [TextPattern]
  ) throws(TextPattern.Inexpressible) {
    guard let present = texts[field] else { return set(field, patterns) }
    var both: [TextPattern] = []
    for left in present {
      for right in patterns {
        if let pattern = try left.intersection(right) { both.append(pattern) }
      }
    }
    texts[field] = unique(both)
  }

  /// Where nothing was asked of the field before.
  mutating func set(_ field: Text, _ patterns: [TextPattern]) {
    texts[field] = unique(patterns)
  }

  mutating func exclude(_ field: Text, _ patterns: [TextPattern]) {
    notTexts[field] = unique(notTexts[field, default: []] + patterns)
  }

  /// Two ranges are disjoint, or one holds the other.
  mutating func require(sources ranges: [CIDR]) {
    guard let present = sources else {
      sources = unique(ranges)
      return
    }
    var both: [CIDR] = []
    for left in present {
      for right in ranges {
        let (outer, inner) = left.prefixLength <= right.prefixLength ? (left, right) : (right, left)
        if outer.contains(inner.address) { both.append(inner) }
      }
    }
    sources = unique(both)
  }

  mutating func exclude(sources ranges: [CIDR]) { notSources = unique(notSources + ranges) }

  mutating func require(ports numbers: Set<UInt16>) {
    ports = ports?.intersection(numbers) ?? numbers
  }

  mutating func exclude(ports numbers: Set<UInt16>) { notPorts.formUnion(numbers) }

  /// What matches both.
  func and(_ other: Self) throws(TextPattern.Inexpressible) -> Self {
    var both = self
    for field in Text.allCases {
      if let patterns = other.texts[field] { try both.require(field, patterns) }
      if let patterns = other.notTexts[field] { both.exclude(field, patterns) }
    }
    if let ranges = other.sources { both.require(sources: ranges) }
    both.exclude(sources: other.notSources)
    if let numbers = other.ports { both.require(ports: numbers) }
    both.exclude(ports: other.notPorts)
    return both
  }

  /// The same without values that are both required and excluded, which a configuration refuses.
  var simplified: Self {
    var simple = self
    for (field, patterns) in texts {
      let excluded = Set(notTexts[field] ?? [])
      simple.texts[field] = patterns.filter { !excluded.contains($0) }
    }
    if let sources {
      let excluded = Set(notSources)
      simple.sources = sources.filter { !excluded.contains($0) }
    }
    if let ports {
      simple.ports = ports.subtracting(notPorts)
      simple.notPorts = []
    }
    return simple
  }

  private func unique<Value: Hashable>(_ values: [Value]) -> [Value] {
    var seen: Set<Value> = []
    return values.filter { seen.insert($0).inserted }
  }
}

// MARK: - Text

extension RuleConditions {
  /// `FIELD: VALUE` for each that is given.
  fileprivate var fields: [String] {
    var fields: [String] = []
    func add(_ name: String, _ values: [String], quoted: Bool = true) {
      guard !values.isEmpty else { return }
      let list = values.map { quoted ? "\"\($0)\"" : $0 }.joined(separator: ", ")
      fields.append("\(name): [\(list)]")
    }
    for field in Text.allCases {
      add(field.rawValue, (texts[field] ?? []).map(\.description))
      let name = field.rawValue
      add(
        "not\(name.prefix(1).uppercased())\(name.dropFirst())",
        (notTexts[field] ?? []).map(\.description))
    }
    add("sources", (sources ?? []).map(\.description))
    add("notSources", notSources.map(\.description))
    add("ports", (ports ?? []).sorted().map { "\($0)" }, quoted: false)
    add("notPorts", notPorts.sorted().map { "\($0)" }, quoted: false)
    return fields
  }
}
