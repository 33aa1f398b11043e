package import Policy
internal import Synchronization

/// What one worker has counted. Written by that worker only, read by any thread.
@safe package final class WorkerCounters: Sendable {
  /// Words under which refusals are counted; anything else counts as `other`.
  package let refusalWords: [String]
  private let indices: [String: Int]
  private nonisolated(unsafe) let cells: UnsafeMutablePointer<Atomic<UInt64>>

  /// Upper bounds of the histogram of undecided time, in microseconds.
  static let undecidedTimeBounds: [UInt64] = [
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
  ]

  private static let acceptedCell = 0
  private static let undecidedCell = 1
  private static let openCells = 2
  private static let totalCells = openCells + Security.allCases.count
  private static let engineCells = totalCells + Security.allCases.count
  private static let handshakeCells = engineCells + EngineUse.allCases.count
  private static let outcomeCells = handshakeCells + HandshakeKind.allCases.count
  private static let outcomesPerDirection = RelayReason.allCases.count + 2
  private static let undecidedTimeCells =
    outcomeCells + Direction.allCases.count * outcomesPerDirection
  private static let undecidedTimesPerDirection = undecidedTimeBounds.count + 2
  private static let probeCells =
    undecidedTimeCells + Direction.allCases.count * undecidedTimesPerDirection
  private static let identityChangeCell = probeCells + MeshProbeResult.allCases.count
  private static let refusalCells = identityChangeCell + 1

  package init(refusalWords words: [String]) {
    refusalWords = words + ["other"]
    indices = Dictionary(
      zip(refusalWords, refusalWords.indices), uniquingKeysWith: { first, _ in first })
    let count = Self.refusalCells + refusalWords.count
    unsafe cells = .allocate(capacity: count)
    for index in 0..<count { unsafe (cells + index).initialize(to: Atomic(0)) }
  }

  deinit { unsafe cells.deallocate() }

  // MARK: The worker's side

  package func accepted() {
    bump(Self.acceptedCell, 1)
    bump(Self.undecidedCell, 1)
  }

  /// - Parameter undecidedMicroseconds: since the connection was accepted.
  package func decided(
    _ direction: Direction, _ outcome: ConnectionOutcome, undecidedMicroseconds: UInt64
  ) {
    let security = outcome.security
    bump(Self.undecidedCell, -1)
    bump(Self.openCells + security.index, 1)
    bump(Self.totalCells + security.index, 1)
    bump(Self.outcomeCells + direction.index * Self.outcomesPerDirection + outcome.index, 1)
    let times = Self.undecidedTimeCells + direction.index * Self.undecidedTimesPerDirection
    let bucket = Self.undecidedTimeBounds.firstIndex { undecidedMicroseconds <= $0 }
    bump(times + (bucket ?? Self.undecidedTimeBounds.count), 1)
    bump(times + Self.undecidedTimeBounds.count + 1, Int(clamping: undecidedMicroseconds))
  }

  package func probed(_ result: MeshProbeResult) { bump(Self.probeCells + result.index, 1) }

  /// A mesh peer has another identity than the last one at its address and port.
  package func identityChanged() { bump(Self.identityChangeCell, 1) }

  /// - Parameter security: nil if the connection ended undecided.
  package func ended(_ security: Security?) {
    bump(security.map { Self.openCells + $0.index } ?? Self.undecidedCell, -1)
  }

  package func protected(by engine: EngineUse) { bump(Self.engineCells + engine.index, 1) }

  package func shaken(_ handshake: HandshakeKind) {
    bump(Self.handshakeCells + handshake.index, 1)
  }

  package func refused(_ word: String) {
    let index = indices[word] ?? refusalWords.count - 1
    bump(Self.refusalCells + index, 1)
  }

  /// One writer: a load and a store are enough, no locked instruction is needed.
  private func bump(_ cell: Int, _ change: Int) {
    let value = unsafe cells[cell].load(ordering: .relaxed)
    unsafe cells[cell].store(value &+ UInt64(bitPattern: Int64(change)), ordering: .relaxed)
  }

  // MARK: The reader's side

  package var acceptedTotal: UInt64 { read(Self.acceptedCell) }
  package var undecided: UInt64 { read(Self.undecidedCell) }
  package func open(_ security: Security) -> UInt64 { read(Self.openCells + security.index) }
  package func total(_ security: Security) -> UInt64 { read(Self.totalCells + security.index) }

  package func total(_ engine: EngineUse) -> UInt64 { read(Self.engineCells + engine.index) }

  package func total(_ handshake: HandshakeKind) -> UInt64 {
    read(Self.handshakeCells + handshake.index)
  }

  package func total(_ direction: Direction, _ outcome: ConnectionOutcome) -> UInt64 {
    read(Self.outcomeCells + direction.index * Self.outcomesPerDirection + outcome.index)
  }

  package func total(_ result: MeshProbeResult) -> UInt64 { read(Self.probeCells + result.index) }

  package var identityChanges: UInt64 { read(Self.identityChangeCell) }

  /// How long connections of a direction were undecided.
  package func undecidedTimes(_ direction: Direction) -> Histogram {
    let times = Self.undecidedTimeCells + direction.index * Self.undecidedTimesPerDirection
    let count = Self.undecidedTimeBounds.count
    return Histogram(
      bounds: Self.undecidedTimeBounds.map { Double($0) / 1e6 },
      counts: (0...count).map { read(times + $0) }, sum: Double(read(times + count + 1)) / 1e6)
  }

  /// Refusals by word, without the zeros.
  package var refusals: [String: UInt64] {
    var result: [String: UInt64] = [:]
    for (index, word) in refusalWords.enumerated() {
      let value = read(Self.refusalCells + index)
      if value > 0 { result[word] = value }
    }
    return result
  }

  private func read(_ cell: Int) -> UInt64 { unsafe cells[cell].load(ordering: .relaxed) }
}

/// What has protected a connection's records at some time; the raw value is the word in metrics and
/// tools. A connection that moves counts under each.
package enum EngineUse: String, Hashable, Sendable, CaseIterable {
  case openssl
  case user
  case kernelSend = "kernel_send"
  case kernelReceive = "kernel_receive"

  fileprivate var index: Int {
    switch self {
    case .openssl: 0
    case .user: 1
    case .kernelSend: 2
    case .kernelReceive: 3
    }
  }
}

/// How a peer proved its identity; the raw value is the word in logs, metrics and tools.
package enum HandshakeKind: String, Hashable, Sendable, CaseIterable {
  /// By its certificate.
  case full
  /// By a session that it had agreed on with its certificate earlier.
  case resumed

  fileprivate var index: Int { self == .full ? 0 : 1 }
}

/// What became of a connection that was not refused.
package enum ConnectionOutcome: Hashable, Sendable {
  case mutualTLS
  case originatedTLS
  case relayed(RelayReason)

  package static let allCases: [ConnectionOutcome] =
    [.mutualTLS, .originatedTLS] + RelayReason.allCases.map(ConnectionOutcome.relayed)

  package var security: Security {
    switch self {
    case .mutualTLS: .mutualTLS
    case .originatedTLS: .originatedTLS
    case .relayed(let reason): reason.security
    }
  }

  fileprivate var index: Int {
    switch self {
    case .mutualTLS: 0
    case .originatedTLS: 1
    case .relayed(let reason): 2 + reason.index
    }
  }
}

/// What a handshake on a mesh port has told; the raw value is the word in metrics.
package enum MeshProbeResult: String, Hashable, Sendable, CaseIterable {
  case mesh
  /// Nobody listens there, nobody answers in time, or the handshake fails.
  case noMeshPort = "no_mesh_port"

  fileprivate var index: Int { self == .mesh ? 0 : 1 }
}

extension Direction {
  fileprivate var index: Int {
    switch self {
    case .outbound: 0
    case .inbound: 1
    case .mesh: 2
    }
  }
}

extension RelayReason {
  fileprivate var index: Int {
    switch self {
    case .clientPlaintext: 0
    case .clientTLS: 1
    case .serverFirst: 2
    case .declaredProbe: 3
    case .rulePlaintext: 4
    case .rulePassthrough: 5
    case .peerNotMesh: 6
    case .notKnownAsMesh: 7
    case .notAnnounced: 8
    case .noMeshPort: 9
    case .modeDisabled: 10
    }
  }
}

extension Security {
  fileprivate var index: Int {
    switch self {
    case .mutualTLS: 0
    case .originatedTLS: 1
    case .applicationTLS: 2
    case .passthrough: 3
    case .plaintext: 4
    case .none: 5
    }
  }
}
