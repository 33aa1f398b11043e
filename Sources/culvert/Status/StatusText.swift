internal import Control
internal import FoundationEssentials

/// A status report for people.
enum StatusText {
  /// An identity is said to expire soon once less than this part of its life is left: whoever
  /// renews it has by then missed its turn.
  private static let soonPart = 0.25

  static func text(_ report: StatusReport) -> String {
    Output.columns(proxy(report) + flow(report) + identity(report) + connections(report))
  }

  private static func proxy(_ report: StatusReport) -> [(String, String)] {
    var rows = [
      (
        "proxy",
        "culvert-proxy \(report.culvert), pid \(report.pid), "
          + "up \(duration(report.uptimeSeconds))" + (report.draining ? ", DRAINING" : "")
      ),
      ("configuration", "\(report.configuration), epoch \(report.epoch)"),
    ]
    if let error = report.lastReloadError {
      rows.append(("reload failed", "epoch \(report.epoch) stays in force: \(error)"))
    }
    rows.append(("kTLS", kernelTLS(report.kernelTLS)))
    rows.append(("backend", "\(report.backend), \(counted(report.workers, "worker"))"))
    return rows
  }

  private static func kernelTLS(_ kernel: StatusReport.KernelTLS) -> String {
    func part(_ way: String, _ suites: [String], _ reason: String?) -> String {
      let what = suites.isEmpty ? "none" : suites.joined(separator: " ")
      return "\(way) \(what)" + (reason.map { " (\($0))" } ?? "")
    }
    if kernel.send.isEmpty, kernel.receive.isEmpty, kernel.sendReason == kernel.receiveReason {
      return "\(kernel.mode), not used" + (kernel.sendReason.map { ": \($0)" } ?? "")
    }
    return [
      kernel.mode, part("send", kernel.send, kernel.sendReason),
      part("receive", kernel.receive, kernel.receiveReason),
    ].joined(separator: "; ")
  }

  private static func flow(_ report: StatusReport) -> [(String, String)] {
    let listeners = report.listeners.map { "\($0.role) \($0.address)" }
    let ports = report.inbound.ports.sorted { (UInt16($0.key) ?? 0) < (UInt16($1.key) ?? 0) }
      .map { "port \($0.key) \($0.value)" }
    var outbound = [
      report.outbound.mode, counted(report.outbound.rules, "rule"),
      counted(report.outbound.peers, "peer"),
    ]
    if report.outbound.registryOnly { outbound.append("registry only") }
    if let pins = report.outbound.pins { outbound.append(counted(pins, "pin")) }
    return [
      ("listeners", listeners.joined(separator: ", ")),
      ("inbound", ([report.inbound.mode] + ports).joined(separator: ", ")),
      ("authorization", authorization(report.authorization)),
      ("outbound", outbound.joined(separator: ", ")),
      ("discovery", discovery(report.discovery)),
    ]
  }

  private static func authorization(_ rules: StatusReport.Authorization) -> String {
    rules.rules == 0
      ? "no rules: whoever is served may connect"
      : counted(rules.rules, "rule") + (rules.audited > 0 ? ", \(rules.audited) audited" : "")
  }

  private static func discovery(_ discovery: StatusReport.Discovery) -> String {
    var parts = [
      "announce \(discovery.announce)"
        + (discovery.announceReason.map { " (\($0))" } ?? ""),
      "probe \(discovery.probe)",
      "\(discovery.meshAddresses) mesh and \(discovery.noMeshAddresses) other "
        + (discovery.meshAddresses + discovery.noMeshAddresses == 1 ? "address" : "addresses")
        + " probed",
      "in \(discovery.meshRanges.joined(separator: " "))",
    ]
    if discovery.identityChanges > 0 {
      parts.append(counted(discovery.identityChanges, "change") + " of a peer's identity")
    }
    return parts.joined(separator: "; ")
  }

  private static func identity(_ report: StatusReport) -> [(String, String)] {
    IdentityText.own(report.identity)
      + report.bundles.map { ("bundle", IdentityText.line($0)) }
  }

  private static func connections(_ report: StatusReport) -> [(String, String)] {
    let connections = report.connections
    var rows = [
      ("open", counts(connections.open)),
      ("since start", "\(connections.accepted) accepted; \(counts(connections.total))"),
      ("handshakes", counts(connections.handshakes)),
      ("engines", counts(connections.engines)),
      ("refused", connections.refused.isEmpty ? "none" : counts(connections.refused)),
    ]
    if report.droppedLogLines > 0 {
      rows.append(("log", "\(counted(report.droppedLogLines, "line")) dropped"))
    }
    return rows
  }

  // MARK: Words

  /// When an identity ends, and loudly if that is soon or past.
  static func expiry(_ identity: StatusReport.Identity) -> String {
    guard let end = identity.notAfter, let left = identity.expiresInSeconds else {
      return "unknown"
    }
    guard left > 0 else {
      return "\(end), EXPIRED \(duration(Int64(clamping: left.magnitude))) ago"
    }
    let text = "\(end), in \(duration(left))"
    guard let from = identity.notBefore.flatMap(seconds), let to = seconds(end),
      Double(left) < soonPart * (to - from)
    else { return text }
    return text + ", EXPIRES SOON"
  }

  /// The two largest units that matter: `3 d 4 h`, `12 min 5 s`.
  static func duration(_ seconds: Int64) -> String {
    let units: [(Int64, String)] = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")]
    guard let first = units.firstIndex(where: { seconds >= $0.0 }) else { return "0 s" }
    var rest = seconds
    var parts: [String] = []
    for (size, name) in units[first..<min(first + 2, units.count)] {
      if rest / size > 0 { parts.append("\(rest / size) \(name)") }
      rest %= size
    }
    return parts.joined(separator: " ")
  }

  private static func counts(_ values: [String: UInt64]) -> String {
    values.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }.joined(separator: ", ")
  }

  static func counted(_ count: some BinaryInteger, _ noun: String) -> String {
    "\(count) \(noun)" + (count == 1 ? "" : "s")
  }

  private static func seconds(_ time: String) -> Double? {
    let style = Date.ISO8601FormatStyle(includingFractionalSeconds: time.contains("."))
    return try? style.parse(time).timeIntervalSince1970
  }
}
