internal import Telemetry

/// What a proxy tells Prometheus (text format 0.0.4), made of its status.
enum MetricsText {
  static func text(
    _ report: StatusReport, names: (byName: [Sightings.Name: UInt64], others: UInt64) = ([:], 0)
  ) -> String {
    var text = Exposition()
    text.gauge("culvert_up", "1 while the proxy runs.", [([:], 1)])
    text.gauge(
      "culvert_identity_state", "1 for the state the identity is in.",
      ["ready", "expired", "awaited", "unavailable"].map {
        (["state": $0], report.identity.state == $0 ? 1 : 0)
      })
    if let seconds = report.identity.expiresInSeconds {
      text.gauge(
        "culvert_identity_expiry_seconds",
        "Seconds until the own X.509-SVID ends; negative once it has.", [([:], Double(seconds))])
    }
    text.counter(
      "culvert_identity_rotations_total", "X.509-SVIDs that took the place of one before.",
      [([:], report.identity.rotations)])
    text.gauge(
      "culvert_identity_error", "1 if what a source gave last is not in force.",
      [([:], report.identity.lastError == nil ? 0 : 1)])
    text.gauge(
      "culvert_trust_epoch", "Counts the sets of bundles and revocation lists.",
      [([:], Double(report.identity.trustEpoch))])
    text.gauge(
      "culvert_bundle_age_seconds", "Seconds since the source of a trust bundle confirmed it.",
      report.bundles.compactMap { bundle in
        bundle.ageSeconds.map { (labels(bundle), Double($0)) }
      })
    text.gauge(
      "culvert_bundle_authorities", "CA certificates of a trust bundle; 0 is distrusted.",
      report.bundles.map { (labels($0), Double($0.authorities)) })
    text.gauge(
      "culvert_bundle_late_revocation_lists",
      "Revocation lists of a trust bundle whose next one should have come already.",
      report.bundles.map { (labels($0), Double($0.lateRevocationLists)) })
    text.counter(
      "culvert_handshakes_total", "mTLS handshakes finished, by how the peer proved itself.",
      report.connections.handshakes.sorted { $0.key < $1.key }.map { (["kind": $0.key], $0.value) })
    text.counter(
      "culvert_connections_total",
      "Connections decided, by direction, security and why bytes are relayed as they are.",
      report.connections.outcomes.map {
        (
          ["direction": $0.direction, "security": $0.security, "reason": $0.reason ?? ""],
          $0.connections
        )
      })
    text.histogram(
      "culvert_undecided_seconds",
      "Time from accepting a connection to knowing what to do with it, by direction.",
      report.connections.undecidedSeconds.sorted { $0.key < $1.key }
        .map { (["direction": $0.key], $0.value) })
    discovery(report, &text)
    text.counter(
      "culvert_refused_total", "Connections refused, by reason.",
      report.connections.refused.sorted { $0.key < $1.key }.map { (["reason": $0.key], $0.value) })
    applicationTLS(names, &text)
    return text.finished
  }

  private static func discovery(_ report: StatusReport, _ text: inout Exposition) {
    text.gauge(
      "culvert_announce_state", "1 for whether mesh is announced in the TCP handshake.",
      ["works", "off", "failed"].map {
        (["state": $0], report.discovery.announce == $0 ? 1 : 0)
      })
    text.counter(
      "culvert_mesh_probes_total", "Mesh ports asked, by result.",
      report.discovery.probes.sorted { $0.key < $1.key }.map { (["result": $0.key], $0.value) })
    text.counter(
      "culvert_peer_identity_changes_total",
      "Mesh peers with another identity than the last one at their address and port.",
      [([:], report.discovery.identityChanges)])
    if let pins = report.outbound.pins {
      text.gauge(
        "culvert_pins", "Destinations that are not spoken to in plaintext for a while.",
        [([:], Double(pins))])
    }
  }

  /// What the application's own TLS asks for: at most `Sightings.maximumNames` pairs of labels.
  static func applicationTLS(
    _ names: (byName: [Sightings.Name: UInt64], others: UInt64), _ text: inout Exposition
  ) {
    var samples = names.byName.map { name, count in
      (["sni": name.serverName ?? "", "alpn": name.alpn ?? "", "other": "0"], count)
    }
    samples.sort {
      ($0.0["sni"] ?? "", $0.0["alpn"] ?? "") < ($1.0["sni"] ?? "", $1.0["alpn"] ?? "")
    }
    if names.others > 0 { samples.append((["sni": "", "alpn": "", "other": "1"], names.others)) }
    text.counter(
      "culvert_application_tls_total",
      "Connections with the application's own TLS, by what its ClientHello asks for.", samples)
  }

  private static func labels(_ bundle: StatusReport.Bundle) -> [String: String] {
    ["trust_domain": bundle.trustDomain, "source": bundle.source]
  }
}
