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
    plane: DataPlane,
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
        peers: epoch.outbound.peers.count),
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
      engines: engines, handshakes: handshakes, refused: refused)
  }
}
