internal import Net
internal import Synchronization

/// Source addresses that have presented mesh mTLS: their silence is not taken for plaintext.
///
/// A fixed table shared by all workers; an address may be pushed out by another, never confused
/// with one: a cell holds 64 bits of a hash with a secret seed.
final class MeshSources: Sendable {
  /// Addresses remembered at most.
  static let cells = 4096

  private let table: [Cell]
  private let seed = UInt64.random(in: .min ... .max)

  private final class Cell: Sendable {
    let value = Atomic<UInt64>(0)
  }

  init() { table = (0..<Self.cells).map { _ in Cell() } }

  func insert(_ address: IPAddress) {
    let hash = hash(address)
    table[Int(hash % UInt64(Self.cells))].value.store(hash, ordering: .relaxed)
  }

  func contains(_ address: IPAddress) -> Bool {
    let hash = hash(address)
    return table[Int(hash % UInt64(Self.cells))].value.load(ordering: .relaxed) == hash
  }

  /// Never 0, which marks an empty cell.
  private func hash(_ address: IPAddress) -> UInt64 {
    var hasher = Hasher()
    hasher.combine(seed)
    hasher.combine(address)
    return UInt64(bitPattern: Int64(hasher.finalize())) | 1 << 63
  }
}
