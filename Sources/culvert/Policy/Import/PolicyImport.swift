internal import Configuration

/// Turns objects of Istio and SMI into the configuration of one workload.
///
/// Nothing is widened: what cannot be said exactly is refused, each with its place.
struct PolicyImport {
  /// As many as a configuration may hold.
  static let rulesMaximum = 10_000

  let workload: ImportedWorkload
  var rules: [ImportedRule] = []
  var modes = ImportedModes()
  var refusals: [ImportRefusal] = []
  /// What is worth knowing about the result; comments in it.
  var remarks: [String] = []

  init(_ objects: [KubernetesObject], for workload: ImportedWorkload) {
    self.workload = workload
    let istio = objects.filter { $0.group == "security.istio.io" }
    refuseUnknown(objects)
    refuseRepeated(objects)
    for object in istio where object.kind == "AuthorizationPolicy" {
      attempt(object) { (result: inout Self) throws(Problem) in
        try result.add(authorizationPolicy: object)
      }
    }
    addTrafficTargets(objects)
    addModes(istio.filter { $0.kind == "PeerAuthentication" })
  }

  /// Kinds that are read, with their versions.
  private static let known: [String: Set<String>] = [
    "security.istio.io/PeerAuthentication": ["v1", "v1beta1"],
    "security.istio.io/AuthorizationPolicy": ["v1", "v1beta1"],
    "access.smi-spec.io/TrafficTarget": ["v1alpha1", "v1alpha2", "v1alpha3"],
    "specs.smi-spec.io/TCPRoute": ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"],
  ]
  /// Kinds that mean nothing before a TrafficTarget names them.
  private static let passive: Set<String> = [
    "specs.smi-spec.io/HTTPRouteGroup", "specs.smi-spec.io/UDPRoute",
  ]

  private mutating func refuseUnknown(_ objects: [KubernetesObject]) {
    for object in objects {
      let kind = "\(object.group)/\(object.kind)"
      guard !Self.passive.contains(kind) else { continue }
      guard let versions = Self.known[kind] else {
        guard object.namespace.map(workload.isInScope) ?? true else { continue }
        refuse(
          object.root.problem("objects of this kind are not imported"), of: object,
          leavingOut: "whatever it says is not enforced here")
        continue
      }
      if !versions.contains(object.version) {
        refuse(
          object.root.problem("version \(YAMLNode.quote(object.version)) is not known"), of: object)
      }
    }
  }

  private mutating func refuseRepeated(_ objects: [KubernetesObject]) {
    var first: [String: KubernetesObject] = [:]
    for object in objects {
      let key = "\(object.group)/\(object.title)"
      if let other = first[key] {
        refuse(object.root.problem("given twice, first at \(other.place)"), of: object)
      } else {
        first[key] = object
      }
    }
  }
}

// MARK: - Refusing

/// Something that Culvert cannot say, or that is wrong.
struct ImportRefusal {
  let file: String
  let problem: Problem
  /// Of the object.
  let title: String
  /// What it means to leave it out; nil: it cannot be left out.
  let consequence: String?

  /// `FILE:LINE:COLUMN: OBJECT: message`
  var description: String {
    "\(file):\(problem.mark.line):\(problem.mark.column): \(title): \(problem.message)"
  }
}

extension PolicyImport {
  /// - Parameter consequence: what leaving it out means; nil if it must not be left out.
  mutating func refuse(
    _ problem: Problem, of object: KubernetesObject, leavingOut consequence: String? = nil
  ) {
    refusals.append(
      ImportRefusal(
        file: object.file, problem: problem, title: object.title, consequence: consequence))
  }

  mutating func attempt(
    _ object: KubernetesObject, _ body: (inout Self) throws(Problem) -> Void
  ) {
    do throws(Problem) {
      try body(&self)
    } catch {
      refuse(error, of: object)
    }
  }
}

// MARK: - Text

extension PolicyImport {
  /// What goes into the configuration file.
  var text: String {
    var lines = ["# For namespace \(workload.namespace)\(labelsText)\(serviceAccountText)."]
    lines += refusals.map { refusal in
      "# not imported: \(refusal.description); \(refusal.consequence ?? "")"
    }
    lines += remarks.map { "# \($0)" }
    lines += modes.lines
    if rules.isEmpty {
      lines.append("# No authorization rule applies: every connection is allowed.")
    } else {
      lines.append("authorization:")
      for rule in rules { lines += ["  # \(rule.comment)", "  - \(rule.text)"] }
    }
    return lines.map { Output.printable($0) + "\n" }.joined()
  }

  private var labelsText: String {
    guard let labels = workload.labels, !labels.isEmpty else { return "" }
    let pairs = labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    return ", labels \(pairs.joined(separator: ","))"
  }

  private var serviceAccountText: String {
    workload.serviceAccount.map { ", service account \($0)" } ?? ""
  }
}
