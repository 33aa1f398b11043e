internal import Configuration
internal import Identity
internal import Net
internal import Policy
internal import Telemetry

/// What `culvert migrate` shows: who was seen without mesh mTLS, and whom strict would refuse.
package struct MigrationReport: Codable, Sendable {
  package struct Entry: Codable, Sendable {
    /// `inbound` or `outbound`.
    package var direction: String
    /// What they spoke, or why we spoke as we did: the reason of the connection's line in the log.
    package var reason: String
    /// Inbound the client's, outbound the server's.
    package var address: String
    /// The destination's.
    package var port: UInt16
    package var connections: UInt64
    package var open: UInt64
    /// RFC 3339.
    package var lastSeen: String
    package var secondsAgo: Int64
    /// Whether such a connection would be refused if every mode were strict.
    package var breaks: Bool
  }
  package struct ServerName: Codable, Sendable {
    package var sni: String?
    package var alpn: String?
    package var connections: UInt64
  }

  package var version = AdminRequest.currentVersion
  package var inboundMode: String
  package var outboundMode: String
  package var uptimeSeconds: Int64
  package var entries: [Entry]
  /// Connections that were counted without their addresses, because there were too many.
  package var withoutEntry: UInt64
  /// Since the last of them; absent if there are none.
  package var withoutEntrySecondsAgo: Int64?
  /// What the application's own TLS asked for.
  package var applicationTLS: [ServerName]
}

extension MigrationReport {
  init(
    _ sightings: Sightings, inbound: InboundPolicy, outbound: OutboundPolicy,
    uptimeSeconds: Int64, nowMilliseconds: Int64
  ) {
    let seen = sightings.all
    let strict = (inbound: inbound.asStrict, outbound: outbound.asStrict)
    let entries = seen.entries.map { key, seen in
      Entry(
        direction: key.direction.rawValue, reason: key.reason.rawValue,
        address: key.address.description, port: key.port, connections: seen.count,
        open: seen.open, lastSeen: Timestamp.text(unixMilliseconds: seen.lastMilliseconds),
        secondsAgo: seen.open > 0 ? 0 : max(0, (nowMilliseconds - seen.lastMilliseconds) / 1000),
        breaks: key.direction == .outbound
          ? strict.outbound.refuses(key) : strict.inbound.refuses(key))
    }
    let names = sightings.names.byName.map {
      ServerName(sni: $0.key.serverName, alpn: $0.key.alpn, connections: $0.value)
    }
    self.init(
      inboundMode: inbound.mode.rawValue, outboundMode: outbound.mode.rawValue,
      uptimeSeconds: uptimeSeconds,
      entries: entries.sorted {
        ($0.direction, $0.port, $0.address, $0.reason)
          < ($1.direction, $1.port, $1.address, $1.reason)
      },
      withoutEntry: seen.withoutEntry,
      withoutEntrySecondsAgo: seen.withoutEntry == 0
        ? nil : max(0, (nowMilliseconds - seen.withoutEntryMilliseconds) / 1000),
      applicationTLS: names.sorted { ($0.sni ?? "", $0.alpn ?? "") < ($1.sni ?? "", $1.alpn ?? "") }
    )
  }
}

extension InboundPolicy {
  /// The same with strict in the place of permissive; what is disabled stays so.
  fileprivate var asStrict: InboundPolicy {
    var policy = self
    if mode == .permissive { policy.mode = .strict }
    policy.ports = ports.mapValues { $0 == .permissive ? .strict : $0 }
    return policy
  }

  fileprivate func refuses(_ key: Sightings.Key) -> Bool {
    let facts = InboundFacts(source: key.address, port: key.port)
    if case .refuse = plan(client: key.reason.client, facts) { return true }
    return false
  }
}

extension OutboundPolicy {
  fileprivate var asStrict: OutboundPolicy {
    var policy = self
    if mode == .auto { policy.mode = .strict }
    return policy
  }

  /// A server name is not known any more: a rule that looks for one may let it pass again.
  fileprivate func refuses(_ key: Sightings.Key) -> Bool {
    let destination = SocketAddress(key.address, port: key.port)
    let action: OutboundAction? =
      switch key.reason {
      case .rulePassthrough: .passthrough
      case .rulePlaintext: .plaintext
      default: nil
      }
    if let action, rules.contains(where: { $0.action == action && $0.covers(destination) }) {
      return false
    }
    if case .relay = plan(to: destination) { return false }
    return true
  }
}
