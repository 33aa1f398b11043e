internal import CLinux
internal import Configuration
internal import DataPlane
internal import Identity
internal import Net
internal import TLS
internal import Telemetry
internal import WorkloadAPI

/// What `culvert identity show` shows, and `culvert identity verify` verifies with: public parts only.
package struct IdentityReport: Codable, Sendable {
  package struct Bundle: Codable, Sendable {
    package var trustDomain: String
    /// DER in base64.
    package var authorities: [String]
    package var revocationLists: [String]
  }

  package var identity: StatusReport.Identity
  /// The own certificates, the leaf first (DER in base64); none without an identity.
  package var chain: [String]
  package var bundles: [StatusReport.Bundle]
  package var trusted: [Bundle]
  /// Peers whose verification is remembered.
  package var verifiedPeers: Int

  init(_ manager: IdentityManager, _ peers: PeerRegistry) {
    identity = StatusReport.Identity(manager)
    chain = (manager.inForce?.material.chainDER ?? []).map(Base64.encode)
    bundles = StatusReport.Bundle.all(manager)
    trusted = (manager.inForce?.material.bundles ?? []).map {
      Bundle(
        trustDomain: $0.trustDomain.name, authorities: $0.certificatesDER.map(Base64.encode),
        revocationLists: $0.revocationListsDER.map(Base64.encode))
    }
    verifiedPeers = peers.count
  }
}

extension StatusReport.Identity {
  init(_ manager: IdentityManager) {
    let now = Int64(time(nil))
    let material = manager.inForce?.material
    func text(_ seconds: Int64) -> String { Timestamp.text(unixMilliseconds: seconds * 1000) }
    self.init(
      source: manager.settings.identity.word, state: manager.word,
      id: material?.id.description, notBefore: material.map { text($0.notBeforeSeconds) },
      notAfter: material.map { text($0.notAfterSeconds) },
      expiresInSeconds: material.map { $0.notAfterSeconds - now },
      svidEpoch: material?.svidEpoch ?? 0, trustEpoch: material?.trustEpoch ?? 0,
      rotations: manager.rotations, lastError: manager.lastError,
      workloadAPI: manager.clientStates)
  }
}

extension StatusReport.Bundle {
  static func all(_ manager: IdentityManager) -> [StatusReport.Bundle] {
    let now = Int64(time(nil))
    return manager.inputs.bundles.map { bundle in
      let federation = manager.federations.first { $0.trustDomain == bundle.trustDomain }
      return StatusReport.Bundle(
        trustDomain: bundle.trustDomain.name, source: bundle.origin.rawValue,
        authorities: bundle.bundle?.count ?? 0,
        revocationLists: bundle.bundle?.revocationLists.count ?? 0,
        lateRevocationLists: bundle.bundle?.revocationLists
          .count { $0.nextUpdateSeconds.map { $0 < now } ?? false } ?? 0,
        sequence: bundle.sequence,
        ageSeconds: bundle.confirmedSeconds.map { max(0, now - $0) },
        url: federation?.endpoint.url.description, lastError: federation?.lastError)
    }.sorted { $0.trustDomain < $1.trustDomain }
  }
}

extension IdentitySource {
  fileprivate var word: String {
    switch self {
    case .files: "files"
    case .workloadAPI: "workload_api"
    case .embeddedCA: "embedded_ca"
    }
  }
}

extension IdentityManager {
  /// The state in one word.
  var word: String {
    switch state {
    case .awaited: "awaited"
    case .unavailable: "unavailable"
    case .ready(let material):
      material.notAfterSeconds < Int64(time(nil)) ? "expired" : "ready"
    }
  }

  /// For the line that says the proxy is ready.
  var summary: String { inForce?.material.id.description ?? "identity \(word)" }

  var clientStates: [String: String]? {
    var states: [String: String] = [:]
    if let state = svidClient?.state { states["FetchX509SVID"] = state.rawValue }
    if let state = bundleClient?.state { states["FetchX509Bundles"] = state.rawValue }
    return states.isEmpty ? nil : states
  }
}
