internal import Configuration

/// `inbound`: the modes that the PeerAuthentications leave, and which of them had a say.
struct ImportedModes {
  var mode: String?
  /// Only ports whose mode differs.
  var ports: [UInt16: String] = [:]
  var sources: [String] = []

  var lines: [String] {
    guard let mode else {
      return ["# No PeerAuthentication applies: permissive, in Istio and here."]
    }
    var lines = ["inbound:"] + sources.map { "  # \($0)" } + ["  mode: \(mode)"]
    if !ports.isEmpty {
      let list = ports.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }
      lines.append("  ports: { \(list.joined(separator: ", ")) }")
    }
    return lines
  }
}

/// A PeerAuthentication that applies to the workload.
struct PeerAuthentication {
  /// From the widest to the narrowest, which wins.
  enum Level: CaseIterable { case mesh, namespace, workload }

  enum Mode: String {
    case unset = "UNSET"
    case disable = "DISABLE"
    case permissive = "PERMISSIVE"
    case strict = "STRICT"

    /// Ours; nil if it is inherited.
    var word: String? {
      switch self {
      case .unset: nil
      case .disable: "disabled"
      case .permissive: "permissive"
      case .strict: "strict"
      }
    }
  }

  let object: KubernetesObject
  let level: Level
  let mode: (value: Mode, field: Field)?
  let ports: [(port: UInt16, value: Mode, field: Field)]
  let creationTimestamp: String?

  /// Returns nil if it does not apply.
  init?(_ object: KubernetesObject, for workload: ImportedWorkload) throws(Problem) {
    let namespace = try object.requiredNamespace()
    guard workload.isInScope(namespace) else { return nil }
    let spec = try object.spec(["selector", "mtls", "portLevelMtls"])
    let hasSelector = try ImportedWorkload.labels(spec.given("selector")) != nil
    guard try workload.isSelected(spec.given("selector")) else { return nil }
    if hasSelector, namespace == workload.rootNamespace {
      throw object.root.problem(
        "a selector in the root namespace: Istio ignores such an object; remove it")
    }
    self.object = object
    level = hasSelector ? .workload : namespace == workload.rootNamespace ? .mesh : .namespace
    mode = try spec.given("mtls").flatMap { field throws(Problem) in
      try Self.mode(field).map { (value, field) in (value: value, field: field) }
    }
    var ports: [(port: UInt16, value: Mode, field: Field)] = []
    if let list = spec.given("portLevelMtls") {
      guard hasSelector else { throw list.problem("goes with a selector only") }
      for (key, mark, value) in try list.entries() {
        guard let port = Field.decimal(key[...]).flatMap(UInt16.init(exactly:)), port > 0 else {
          throw Problem(mark, "\(list.path): expected a port, found \(YAMLNode.quote(key))")
        }
        let mode = try Self.mode(value)
        ports.append((port, mode?.0 ?? .unset, mode?.1 ?? value))
      }
    }
    self.ports = ports
    creationTimestamp = try object.creationTimestamp()
  }

  private static func mode(_ field: Field) throws(Problem) -> (Mode, Field)? {
    guard let field = try field.fields(["mode"]).given("mode") else { return nil }
    guard case .scalar(let text, _) = field.node.content, let mode = Mode(rawValue: text) else {
      throw field.expected("STRICT, PERMISSIVE, DISABLE or UNSET")
    }
    return (mode, field)
  }
}

extension PolicyImport {
  /// The narrowest level that says something wins; at one level the oldest object
  /// (pilot/pkg/security/authn, ComposePeerAuthentication).
  mutating func addModes(_ objects: [KubernetesObject]) {
    var applying: [PeerAuthentication] = []
    for object in objects {
      attempt(object) { (result: inout Self) throws(Problem) in
        if let policy = try PeerAuthentication(object, for: result.workload) {
          applying.append(policy)
        }
      }
    }
    for level in PeerAuthentication.Level.allCases {
      let rivals = applying.filter { $0.level == level }
      guard let oldest = oldest(rivals) else { continue }
      apply(oldest)
    }
  }

  /// The oldest of several objects at one level. Where that cannot be said, all but one are refused.
  private mutating func oldest(_ rivals: [PeerAuthentication]) -> PeerAuthentication? {
    let sorted = rivals.sorted { ($0.creationTimestamp ?? "") < ($1.creationTimestamp ?? "") }
    guard let first = sorted.first, let second = sorted.dropFirst().first else {
      return sorted.first
    }
    if first.creationTimestamp == nil || first.creationTimestamp == second.creationTimestamp {
      refuse(
        second.object.root.problem(
          "applies like \(first.object.source); in Istio the older one wins, and"
            + " metadata.creationTimestamp does not say which that is"),
        of: second.object)
    }
    for loser in sorted.dropFirst() {
      remarks.append("\(loser.object.source) has no effect: \(first.object.title) is older")
    }
    return first
  }

  private mutating func apply(_ policy: PeerAuthentication) {
    modes.sources.append(policy.object.source)
    let inherited = modes.mode ?? "permissive"
    let mode = policy.mode.flatMap { word($0.value, $0.field, policy.object) } ?? inherited
    modes.mode = mode
    for (port, value, field) in policy.ports {
      let word = word(value, field, policy.object)
      if let word, word != mode { modes.ports[port] = word }
    }
  }

  /// nil if the mode is inherited. Istio judges plaintext connections to a port whose mTLS is
  /// disabled; ours do not come to the proxy.
  private mutating func word(
    _ mode: PeerAuthentication.Mode, _ field: Field, _ object: KubernetesObject
  ) -> String? {
    guard mode == .disable, !rules.isEmpty else { return mode.word }
    refuse(
      field.problem(
        "DISABLE takes connections out of the proxy here, and no authorization rule would hold for"
          + " them"),
      of: object, leavingOut: "the mode of the wider level holds")
    return nil
  }
}
