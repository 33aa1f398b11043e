package import Policy
internal import Synchronization

/// What one worker has counted. Written by that worker only, read by any thread.
@safe package final class WorkerCounters: Sendable {
  /// Words under which refusals are counted; anything else counts as `other`.
  package let refusalWords: [String]
  private let indices: [String: Int]
  private nonisolated(unsafe) let cells: UnsafeMutablePointer<Atomic<UInt64>>

  private static let acceptedCell = 0
  private static let undecidedCell = 1
  private static let openCells = 2
  private static let totalCells = openCells + Security.allCases.count
  private static let engineCells = totalCells + Security.allCases.count
  private static let handshakeCells = engineCells + EngineUse.allCases.count
  private static let refusalCells = handshakeCells + HandshakeKind.allCases.count

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

  package func decided(_ security: Security) {
    bump(Self.undecidedCell, -1)
    bump(Self.openCells + security.index, 1)
    bump(Self.totalCells + security.index, 1)
  }

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

extension Security {
  fileprivate var index: Int {
    switch self {
    case .mutualTLS: 0
    case .applicationTLS: 1
    case .passthrough: 2
    case .plaintext: 3
    case .none: 4
    }
  }
}
