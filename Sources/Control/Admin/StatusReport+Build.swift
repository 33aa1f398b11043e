internal import CLinux
internal import Configuration
internal import DataPlane
internal import Identity
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

extension StatusReport {
  init(
    epoch: NamespaceEpoch, identity: IdentityManager, settings: Settings, configuration: String,
    plane: DataPlane, announcing: borrowing Announcing,
    uptimeSeconds: Int64, lastReloadError: String?, isDraining: Bool, droppedLogLines: UInt64
  ) {
    self.init(
      culvert: Culvert.version, pid: getpid(), uptimeSeconds: uptimeSeconds,
      epoch: epoch.number, configuration: configuration, lastReloadError: lastReloadError,
      backend: plane.backend.rawValue, workers: plane.links.count,
      listeners: plane.listeners.map {
        Listener(role: $0.direction.rawValue, address: $0.address.description)
      },
      inbound: Inbound(
        mode: epoch.inbound.mode.rawValue,
        ports: Dictionary(
          uniqueKeysWithValues: epoch.inbound.ports.map { (String($0.key), $0.value.rawValue) })),
      outbound: Outbound(
        mode: epoch.outbound.mode.rawValue, rules: epoch.outbound.rules.count,
        peers: epoch.outbound.peers.count, registryOnly: epoch.outbound.isRegistryOnly,
        pins: epoch.outbound.pins.map { _ in plane.pins.count }),
      discovery: Discovery(announcing, epoch.discovery, plane),
      authorization: Authorization(
        rules: epoch.authorization.rules.count,
        audited: epoch.authorization.rules.count { $0.isAudit }),
      identity: Identity(identity), bundles: Bundle.all(identity),
      kernelTLS: KernelTLS(plane.kernel, mode: epoch.records.kernelTLS),
      connections: Connections(plane.links.map(\.counters)), draining: isDraining,
      droppedLogLines: droppedLogLines)
  }
}

extension StatusReport.KernelTLS {
  init(_ verdict: KernelVerdict, mode: KernelTLSMode) {
    self.init(
      mode: mode.rawValue, send: verdict.sendSuites.map(\.name),
      receive: verdict.receiveSuites.map(\.name), rekey: verdict.canRekey,
      sendReason: verdict.sendReason, receiveReason: verdict.receiveReason)
  }
}

extension StatusReport.Connections {
  init(_ workers: [WorkerCounters]) {
    var open: [String: UInt64] = [:]
    var total: [String: UInt64] = [:]
    for security in Security.allCases where security != .none {
      open[security.rawValue] = workers.reduce(0) { $0 &+ $1.open(security) }
      total[security.rawValue] = workers.reduce(0) { $0 &+ $1.total(security) }
    }
    open["undecided"] = workers.reduce(0) { $0 &+ $1.undecided }
    var engines: [String: UInt64] = [:]
    for engine in EngineUse.allCases {
      engines[engine.rawValue] = workers.reduce(0) { $0 &+ $1.total(engine) }
    }
    var handshakes: [String: UInt64] = [:]
    for kind in HandshakeKind.allCases {
      handshakes[kind.rawValue] = workers.reduce(0) { $0 &+ $1.total(kind) }
    }
    var refused: [String: UInt64] = [:]
    for worker in workers { refused.merge(worker.refusals, uniquingKeysWith: &+) }
    self.init(
      open: open, total: total, accepted: workers.reduce(0) { $0 &+ $1.acceptedTotal },
      engines: engines, handshakes: handshakes, refused: refused, outcomes: Self.outcomes(workers),
      undecidedSeconds: Self.undecidedSeconds(workers))
  }

  private static func outcomes(_ workers: [WorkerCounters]) -> [StatusReport.Outcome] {
    Direction.allCases.flatMap { direction in
      ConnectionOutcome.allCases.compactMap { outcome in
        let count = workers.reduce(0) { $0 &+ $1.total(direction, outcome) }
        guard count > 0 else { return nil }
        var reason: RelayReason?
        if case .relayed(let relayed) = outcome { reason = relayed }
        return StatusReport.Outcome(
          direction: direction.rawValue, security: outcome.security.rawValue,
          reason: reason?.rawValue, connections: count)
      }
    }
  }

  private static func undecidedSeconds(_ workers: [WorkerCounters]) -> [String: Histogram] {
    var result: [String: Histogram] = [:]
    for direction in Direction.allCases {
      for worker in workers {
        let times = worker.undecidedTimes(direction)
        if result[direction.rawValue]?.add(times) == nil { result[direction.rawValue] = times }
      }
    }
    return result
  }
}

extension StatusReport.Discovery {
  init(_ announcing: borrowing Announcing, _ settings: DiscoverySettings, _ plane: DataPlane) {
    let answers = plane.meshAnswers
    let workers = plane.links.map(\.counters)
    var probes: [String: UInt64] = [:]
    for result in MeshProbeResult.allCases {
      probes[result.rawValue] = workers.reduce(0) { $0 &+ $1.total(result) }
    }
    self.init(
      announce: announcing.state.rawValue, announceReason: announcing.reason,
      probe: settings.probe.rawValue, meshRanges: settings.meshRanges.map(\.description),
      meshAddresses: answers.mesh, noMeshAddresses: answers.noMesh, probes: probes,
      identityChanges: workers.reduce(0) { $0 &+ $1.identityChanges })
  }
}
