internal import Configuration

/// One object of a Kubernetes API, as far as policy needs to know it.
struct KubernetesObject {
  let file: String
  let root: Field
  /// `security.istio.io`; empty for the core group.
  let group: String
  let version: String
  let kind: String
  let name: String
  /// nil if it is not given, as with cluster-wide objects.
  let namespace: String?
  private let metadata: [String: Field]

  /// How messages call it: `AuthorizationPolicy shop/web`.
  var title: String { "\(kind) \(namespace.map { $0 + "/" } ?? "")\(name)" }

  /// Where it begins: `FILE:LINE`.
  var place: String { "\(file):\(root.mark.line)" }

  /// Its title and its place.
  var source: String { "\(title) (\(place))" }
}

// MARK: - Reading

extension KubernetesObject {
  /// In one run, over all files.
  static let objectsMaximum = 10_000

  /// The objects of a file, those of lists among them.
  static func read(_ path: String) throws(ConfigurationError) -> [KubernetesObject] {
    var objects: [KubernetesObject] = []
    for document in try Field.documents(path: path) {
      do throws(Problem) {
        try append(document, file: path, to: &objects)
      } catch {
        throw ConfigurationError(
          file: path, line: error.mark.line, column: error.mark.column, message: error.message)
      }
    }
    return objects
  }

  private static func append(
    _ root: Field, file: String, to objects: inout [KubernetesObject]
  ) throws(Problem) {
    let fields = try root.dictionary()
    let kind = try fields.required("kind", in: root).text()
    if kind.hasSuffix("List"), let items = fields["items"] {
      for item in try items.items() {
        try append(Field(path: "", node: item.node), file: file, to: &objects)
      }
      return
    }
    guard objects.count < objectsMaximum else {
      throw root.problem("more than \(objectsMaximum) objects")
    }
    objects.append(try KubernetesObject(root, fields, kind: kind, file: file))
  }

  private init(
    _ root: Field, _ fields: [String: Field], kind: String, file: String
  ) throws(Problem) {
    self.file = file
    self.root = root
    self.kind = kind
    let apiVersion = try fields.required("apiVersion", in: root).text()
    let parts = apiVersion.split(separator: "/", maxSplits: 1)
    group = parts.count == 2 ? String(parts[0]) : ""
    version = parts.last.map(String.init) ?? ""
    let metadata = try fields.required("metadata", in: root)
    self.metadata = try metadata.dictionary()
    name = try self.metadata.required("name", in: metadata).objectName()
    namespace = try self.metadata.given("namespace")?.objectName()
  }
}

// MARK: - Parts

extension KubernetesObject {
  /// The namespace of an object that must have one.
  func requiredNamespace() throws(Problem) -> String {
    guard let namespace else {
      throw root.problem("metadata.namespace is missing: nobody can say where it applies")
    }
    return namespace
  }

  /// The fields of `spec`, which may hold `known` only; none if there is no `spec`.
  func spec(_ known: [String]) throws(Problem) -> [String: Field] {
    let fields = try root.fields(["apiVersion", "kind", "metadata", "spec", "status"])
    return try fields.given("spec")?.fields(known) ?? [:]
  }

  /// Istio's annotation for a policy that is evaluated and logged, not enforced.
  func isDryRun() throws(Problem) -> Bool {
    let annotations = try metadata.given("annotations")?.dictionary() ?? [:]
    guard let field = annotations["istio.io/dry-run"] else { return false }
    guard case .scalar(let text, _) = field.node.content, text == "true" || text == "false" else {
      throw field.expected("\"true\" or \"false\"")
    }
    return text == "true"
  }

  /// `2026-01-31T12:00:00Z`, which sorts as text; nil for an object that was never applied.
  func creationTimestamp() throws(Problem) -> String? {
    guard let field = metadata.given("creationTimestamp") else { return nil }
    let text = try field.text()
    let isTimestamp =
      text.utf8.count == 20
      && zip(text.utf8, "0000-00-00T00:00:00Z".utf8).allSatisfy { byte, form in
        form == UInt8(ascii: "0") ? (48...57).contains(byte) : byte == form
      }
    guard isTimestamp else { throw field.expected("a time such as 2026-01-31T12:00:00Z") }
    return text
  }
}

extension Field {
  func dictionary() throws(Problem) -> [String: Field] {
    var fields: [String: Field] = [:]
    for (key, _, value) in try entries() { fields[key] = value }
    return fields
  }

  /// A name of Kubernetes: letters, digits, `.`, `-`, at most 253 (RFC 1123).
  func objectName() throws(Problem) -> String {
    let text = try text()
    guard text.utf8.count <= 253,
      text.utf8.allSatisfy({ $0 != UInt8(ascii: "/") && Self.isPlain($0) })
    else { throw expected("a name of a-z, 0-9, '.' and '-'") }
    return text
  }

  /// Bytes of names, SPIFFE IDs and namespaces, which need no escape in a configuration.
  static func isPlain(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"),
      UInt8(ascii: "_"), UInt8(ascii: "/"):
      true
    default: false
    }
  }
}

extension [String: Field] {
  /// A field that is there and not null.
  func given(_ key: String) -> Field? {
    self[key].flatMap { $0.node.isNothing ? nil : $0 }
  }
}
