package import Identity
internal import Net

/// The file of `culvert-workload-agent`: which process gets which identity.
package struct RegistrationEntries: Hashable, Sendable {
  /// The bundle of another trust domain.
  package struct FederatedBundle: Hashable, Sendable {
    package var trustDomain: TrustDomain
    /// Absolute path of a PEM file with one or more CA certificates.
    package var pem: String
  }

  /// One identity and what a process must be to get it.
  package struct Entry: Hashable, Sendable {
    package let id: SPIFFEID
    /// All of them must fit; at least one.
    package let selectors: [Selector]
    /// Told to the workload; empty for none.
    package let hint: String
    package let lifetimeSeconds: Int64
    /// Trust domains whose bundles the workload gets as well.
    package let federatesWith: [TrustDomain]
  }

  /// A property of a process that the kernel vouches for.
  package enum Selector: Hashable, Sendable, CustomStringConvertible {
    case userID(UInt32)
    case groupID(UInt32)
    /// The absolute path of its program.
    case path(String)

    package var description: String {
      switch self {
      case .userID(let id): "unix:uid:\(id)"
      case .groupID(let id): "unix:gid:\(id)"
      case .path(let path): "unix:path:\(path)"
      }
    }
  }

  package static let entriesMaximum = 4096
  package static let selectorsMaximum = 16
  package static let defaultLifetimeSeconds = 3600
  static let lifetimeSecondsRange = 1...315_360_000
  static let hintMaximumBytes = 1024

  package let entries: [Entry]
  package let federatedBundles: [FederatedBundle]
  /// Absolute paths of CRLs, PEM or DER.
  package let crls: [String]

  /// Files other than the entries' own, which are to be read again when they change.
  package var files: [String] { federatedBundles.map(\.pem) + crls }

  /// Reads and validates a file. The files it names are not opened.
  ///
  /// - Parameter trustDomain: the one in which all identities must be.
  package static func load(
    path: String, trustDomain: TrustDomain
  ) throws(ConfigurationError) -> RegistrationEntries {
    let (bytes, directory) = try Settings.read(path)
    return try parse(yaml: bytes, file: path, directory: directory, trustDomain: trustDomain)
  }

  /// Validates a text. Pure.
  package static func parse(
    yaml: [UInt8], file: String, directory: String, trustDomain: TrustDomain
  ) throws(ConfigurationError) -> RegistrationEntries {
    do throws(Problem) {
      let root = Field(path: "", node: try YAMLReader.read(yaml))
      return try RegistrationEntries(root, directory: directory, trustDomain: trustDomain)
    } catch {
      throw ConfigurationError(
        file: file, line: error.mark.line, column: error.mark.column, message: error.message)
    }
  }

  private init(_ root: Field, directory: String, trustDomain: TrustDomain) throws(Problem) {
    let fields = try root.fields(["entries", "federatedBundles", "crls"])
    federatedBundles = try Self.bundles(fields["federatedBundles"], directory, own: trustDomain)
    var crls: [String] = []
    for item in try fields["crls"]?.items() ?? [] { crls.append(try item.path(in: directory)) }
    self.crls = crls
    let known = Set(federatedBundles.map(\.trustDomain))
    let list = try fields.required("entries", in: root)
    let items = try list.items()
    guard items.count <= Self.entriesMaximum else {
      throw list.problem("more than \(Self.entriesMaximum) entries")
    }
    var entries: [Entry] = []
    for item in items { entries.append(try Entry(item, trustDomain, bundles: known)) }
    self.entries = entries
  }

  private static func bundles(
    _ field: Field?, _ directory: String, own: TrustDomain
  ) throws(Problem) -> [FederatedBundle] {
    var bundles: [FederatedBundle] = []
    var seen: Set<TrustDomain> = [own]
    for item in try field?.items() ?? [] {
      let fields = try item.fields(["trustDomain", "pem"])
      let name = try fields.required("trustDomain", in: item)
      let trustDomain = try name.trustDomain()
      guard seen.insert(trustDomain).inserted else {
        throw name.problem("\"\(trustDomain)\" already has a bundle")
      }
      let pem = try fields.required("pem", in: item).path(in: directory)
      bundles.append(FederatedBundle(trustDomain: trustDomain, pem: pem))
    }
    return bundles
  }
}

extension RegistrationEntries.Entry {
  fileprivate init(
    _ field: Field, _ trustDomain: TrustDomain, bundles: Set<TrustDomain>
  ) throws(Problem) {
    let fields = try field.fields(["id", "selectors", "hint", "lifetimeSeconds", "federatesWith"])
    id = try Self.id(fields.required("id", in: field), trustDomain)
    let list = try fields.required("selectors", in: field)
    let items = try list.nonEmptyItems()
    guard items.count <= RegistrationEntries.selectorsMaximum else {
      throw list.problem("more than \(RegistrationEntries.selectorsMaximum) selectors")
    }
    var selectors: [RegistrationEntries.Selector] = []
    for item in items { selectors.append(try RegistrationEntries.Selector(item)) }
    self.selectors = selectors
    hint = try Self.hint(fields["hint"])
    lifetimeSeconds = Int64(
      try fields["lifetimeSeconds"]?.integer(RegistrationEntries.lifetimeSecondsRange)
        ?? RegistrationEntries.defaultLifetimeSeconds)
    var federated: [TrustDomain] = []
    for item in try fields["federatesWith"]?.items() ?? [] {
      let name = try item.trustDomain()
      guard bundles.contains(name) else {
        throw item.problem("\"\(name)\" has no entry in federatedBundles")
      }
      federated.append(name)
    }
    federatesWith = federated
  }

  private static func id(_ field: Field, _ trustDomain: TrustDomain) throws(Problem) -> SPIFFEID {
    let text = try field.text()
    let id: SPIFFEID
    do throws(SPIFFEIDError) {
      id = try SPIFFEID(text)
    } catch {
      throw field.problem("\(YAMLNode.quote(text)) is not a SPIFFE ID: \(error.rawValue)")
    }
    guard !id.path.isEmpty else { throw field.problem("a workload's ID has a path") }
    guard id.trustDomain == trustDomain else {
      throw field.problem("\(id) is not in \(trustDomain), which this agent issues for")
    }
    return id
  }

  private static func hint(_ field: Field?) throws(Problem) -> String {
    guard let field else { return "" }
    if case .scalar("", isPlain: false) = field.node.content { return "" }
    let hint = try field.text()
    guard hint.utf8.count <= RegistrationEntries.hintMaximumBytes else {
      throw field.problem("longer than \(RegistrationEntries.hintMaximumBytes) bytes")
    }
    return hint
  }
}

extension RegistrationEntries.Selector {
  fileprivate init(_ field: Field) throws(Problem) {
    let text = try field.text()
    let parts = text.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
    let value = parts.count == 3 ? parts[2] : ""
    let number = Field.decimal(value).flatMap(UInt32.init(exactly:))
    switch (parts.first, parts.dropFirst().first, number) {
    case ("unix", "uid", let number?): self = .userID(number)
    case ("unix", "gid", let number?): self = .groupID(number)
    case ("unix", "path", _) where value.hasPrefix("/"): self = .path(String(value))
    default:
      throw field.problem(
        "\(YAMLNode.quote(text)) is not unix:uid:NUMBER, unix:gid:NUMBER or unix:path:/PROGRAM")
    }
  }
}
