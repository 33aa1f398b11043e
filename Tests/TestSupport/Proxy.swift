internal import CLinux
internal import Foundation

/// The text of a culvert-proxy configuration.
package struct ProxyConfiguration: Sendable {
  package var certificate: String
  package var privateKey: String
  /// In place of the files: a YAML flow mapping, `workload.identity`.
  package var identity: String?
  /// Trust domain → path of a PEM bundle.
  package var trustBundles: [String: String]
  /// More of `workload.trustBundles`, each a YAML flow mapping.
  package var moreTrustBundles: [String] = []
  /// Key → YAML value of what else is in `workload`.
  package var workload: [String: String] = [:]
  package var inboundMode = "permissive"
  /// Port → mode.
  package var inboundPorts: [UInt16: String] = [:]
  /// Key → YAML value of what else is in `inbound`, `outbound` and `discovery`.
  package var inbound: [String: String] = [:]
  package var outbound: [String: String] = [:]
  package var discovery: [String: String] = [:]
  /// Rules, each a YAML flow mapping.
  package var authorization: [String] = []
  package var outboundMode = "auto"
  /// Each a YAML flow mapping, such as `{ to: [0.0.0.0/0], action: deny }`.
  package var outboundRules: [String] = []
  /// Address range → SPIFFE ID.
  package var peers: [(address: String, identity: String)] = []
  /// Key → YAML value of `interception`.
  package var interception: [String: String] = [:]
  package var limits: [String: Int] = [:]
  /// Key → YAML value of `dataPlane`.
  package var dataPlane: [String: String] = [:]
  package var workers = 2
  /// Run the proxy under a seccomp filter that answers EPERM to io_uring_setup(2).
  package var refusesIOUring = false
  /// A program and its arguments that start the proxy, such as setpriv(1).
  package var launcher: [String] = []
  /// Variables of the proxy's environment.
  package var environment: [String: String] = [:]

  package init(_ credential: Credential, trusting authority: Authority) {
    certificate = credential.certificate
    privateKey = credential.privateKey
    trustBundles = [authority.trustDomain: authority.bundle]
  }

  package init(_ credential: Credential, trusting bundles: [String: String]) {
    certificate = credential.certificate
    privateKey = credential.privateKey
    trustBundles = bundles
  }

  package func yaml(adminSocket: String) -> String {
    let files = "{ files: { certificate: \"\(certificate)\", privateKey: \"\(privateKey)\" } }"
    var lines = ["workload:", "  identity: \(identity ?? files)"]
    lines += workload.sorted(by: <).map { "  \($0): \($1)" }
    let bundles = trustBundles.sorted(by: <).map { "{ trustDomain: \($0), pem: \"\($1)\" }" }
    if !(bundles + moreTrustBundles).isEmpty {
      lines += ["  trustBundles:"] + (bundles + moreTrustBundles).map { "    - \($0)" }
    }
    lines += ["inbound:", "  mode: \(inboundMode)"]
    if !inboundPorts.isEmpty {
      let ports = inboundPorts.sorted(by: <).map { "\($0): \($1)" }.joined(separator: ", ")
      lines.append("  ports: { \(ports) }")
    }
    lines += inbound.sorted(by: <).map { "  \($0): \($1)" }
    lines += ["outbound:", "  mode: \(outboundMode)"]
    lines += outbound.sorted(by: <).map { "  \($0): \($1)" }
    if !outboundRules.isEmpty {
      lines += ["  rules:"] + outboundRules.map { "    - \($0)" }
    }
    if !peers.isEmpty {
      lines += ["  peers:"]
      lines += peers.map { "    - { address: \"\($0.address)\", identity: \"\($0.identity)\" }" }
    }
    if !discovery.isEmpty {
      lines += ["discovery:"] + discovery.sorted(by: <).map { "  \($0): \($1)" }
    }
    if !authorization.isEmpty {
      lines += ["authorization:"] + authorization.map { "  - \($0)" }
    }
    if !interception.isEmpty {
      lines += ["interception:"] + interception.sorted(by: <).map { "  \($0): \($1)" }
    }
    if !limits.isEmpty {
      lines += ["limits:"] + limits.sorted(by: <).map { "  \($0): \($1)" }
    }
    if !dataPlane.isEmpty {
      lines += ["dataPlane:"] + dataPlane.sorted(by: <).map { "  \($0): \($1)" }
    }
    lines += ["workers: \(workers)", "admin:", "  socket: \"\(adminSocket)\""]
    return lines.joined(separator: "\n") + "\n"
  }
}

/// One line of the connection log, taken apart.
package struct ConnectionRecord: Sendable, CustomStringConvertible {
  package let description: String
  private let fields: [Substring: Substring]

  init?(_ line: String) {
    let words = line.split(separator: " ")
    guard words.count > 2, words[1] == "connection" else { return nil }
    description = line
    fields = Dictionary(
      words.dropFirst(2).compactMap { word in
        guard let equals = word.firstIndex(of: "=") else { return nil }
        return (word[..<equals], word[word.index(after: equals)...])
      }, uniquingKeysWith: { first, _ in first })
  }

  package subscript(_ key: String) -> String? { fields[key[...]].map(String.init) }

  package var direction: String? { self["direction"] }
  package var end: String? { self["end"] }
  package var security: String? { self["security"] }
  package var reason: String? { self["reason"] }
  package var bytesSent: Int? { self["bytes_sent"].flatMap { Int($0) } }
  package var bytesReceived: Int? { self["bytes_recv"].flatMap { Int($0) } }
}

/// What `culvert status --json` says.
package struct ProxyStatus: Decodable, Sendable {
  package struct Listener: Decodable, Sendable {
    package let role: String
    package let address: String
  }

  package struct Direction: Decodable, Sendable {
    package let mode: String
  }

  package struct Identity: Decodable, Sendable {
    package let state: String
    package let id: String?
    package let svidEpoch: Int
    package let trustEpoch: Int
    package let rotations: Int
    package let expiresInSeconds: Int?
    package let lastError: String?
    package let workloadAPI: [String: String]?
  }

  package struct Bundle: Decodable, Sendable {
    package let trustDomain: String
    package let source: String
    package let authorities: Int
    package let revocationLists: Int
    package let sequence: UInt64?
    package let ageSeconds: Int?
    package let lastError: String?
  }

  package struct Discovery: Decodable, Sendable {
    package let announce: String
    package let announceReason: String?
    package let meshAddresses: Int
    package let noMeshAddresses: Int
    package let probes: [String: Int]
    package let identityChanges: Int
  }

  package struct Connections: Decodable, Sendable {
    package let open: [String: Int]
    package let accepted: Int
    package let refused: [String: Int]
    package let engines: [String: Int]
    package let handshakes: [String: Int]

    package var openCount: Int { open.values.reduce(0, +) }
  }

  package struct KernelTLS: Decodable, Sendable {
    package let mode: String
    package let send: [String]
    package let receive: [String]
    package let rekey: Bool
    package let sendReason: String?
  }

  package let version: Int
  package let pid: Int
  package let epoch: Int
  package let backend: String
  package let workers: Int
  package let listeners: [Listener]
  package let inbound: Direction
  package let outbound: Direction
  package let discovery: Discovery
  package let identity: Identity
  package let bundles: [Bundle]
  package let connections: Connections
  package let kernelTLS: KernelTLS
  package let draining: Bool
}

/// A culvert-proxy running in a namespace.
package final class Proxy: Sendable {
  package let namespace: Namespace
  package let program: Program
  private let directory: TemporaryDirectory
  private let current: Box<ProxyConfiguration>

  package var configurationPath: String { directory.path + "/culvert.yaml" }
  package var adminSocket: String { directory.path + "/admin.sock" }

  /// Writes the configuration and starts the proxy; returns once it accepts connections.
  package init(in namespace: Namespace, _ configuration: ProxyConfiguration) throws {
    self.namespace = namespace
    directory = try TemporaryDirectory()
    current = Box(configuration)
    try directory.write(
      configuration.yaml(adminSocket: directory.path + "/admin.sock"), to: "culvert.yaml")
    program = try namespace.start(
      configuration.launcher + [
        Machine.program("culvert-proxy"), "--config", directory.path + "/culvert.yaml",
      ],
      environment: configuration.environment, refusingIOUring: configuration.refusesIOUring)
    try program.waitForError(containing: "culvert-proxy: ready")
  }

  /// Installs the rules that the configuration asks for.
  package func installRules(_ options: [String] = []) throws {
    try Program.check(
      [
        Machine.program("culvert-init"), "install", "--netns", namespace.name, "--config",
        configurationPath,
      ] + options)
  }

  /// Ends the proxy at once and takes the rules away: the namespace is without mesh again.
  package func remove() throws {
    program.kill()
    try Program.check([Machine.program("culvert-init"), "remove", "--netns", namespace.name])
  }

  package func status() throws -> ProxyStatus {
    let text = try Program.check([
      Machine.program("culvert"), "status", "--json", "--admin-socket", adminSocket,
    ])
    do {
      return try JSONDecoder().decode(ProxyStatus.self, from: Data(text.utf8))
    } catch {
      throw Trouble("status does not decode: \(error)\n\(text)")
    }
  }

  /// The value of one of `culvert metrics`, by its name and labels as they are exposed.
  package func metric(_ name: String) throws -> Double? {
    let text = try Program.check([
      Machine.program("culvert"), "metrics", "--admin-socket", adminSocket,
    ])
    let line = text.split(separator: "\n").first { $0.hasPrefix(name + " ") }
    return line.flatMap { Double($0.dropFirst(name.count + 1)) }
  }

  /// Changes the configuration file and waits until the new one is in force.
  package func reconfigure(_ change: (inout ProxyConfiguration) -> Void) throws {
    let configuration = current.update { configuration in
      change(&configuration)
      return configuration
    }
    let said = program.errors.lines.count
    try rewriteConfiguration(configuration.yaml(adminSocket: adminSocket))
    try program.waitForError(containing: "configuration loaded, epoch", after: said)
  }

  /// Replaces the configuration file by any text. The proxy notices by itself.
  package func rewriteConfiguration(_ text: String) throws {
    try directory.write(text, to: "culvert.yaml")
  }

  package var configurationText: String {
    String(decoding: contents(ofFile: configurationPath), as: UTF8.self)
  }

  package var records: [ConnectionRecord] {
    program.output.lines.compactMap { ConnectionRecord($0) }
  }

  /// Waits for a line of the connection log.
  @discardableResult
  package func waitForRecord(
    seconds: Double = patience, where matches: (ConnectionRecord) -> Bool
  ) throws -> ConnectionRecord {
    let line = program.output.wait(seconds: seconds) { line in
      ConnectionRecord(line).map(matches) ?? false
    }
    guard let record = line.flatMap({ ConnectionRecord($0) }) else {
      throw Trouble("no such line in the connection log\n\(program.transcript)")
    }
    return record
  }

  /// Waits until the log has so many lines of a direction, and returns all it has.
  package func waitForRecords(_ count: Int, _ direction: String) throws -> [ConnectionRecord] {
    var found: [ConnectionRecord] = []
    try eventually("\(count) \(direction) lines in the connection log") {
      found = records.filter { $0.direction == direction }
      return found.count >= count
    }
    return found
  }

  /// Waits for a refusal with this reason.
  @discardableResult
  package func waitForRefusal(_ reason: String) throws -> ConnectionRecord {
    try waitForRecord { $0.reason == reason && $0.end == "refused" }
  }
}
