internal import Net
internal import Synchronization

/// What the mesh ports of addresses have answered, for a while, shared by all workers.
final class MeshAnswers: Sendable {
  /// Addresses kept; beyond, one makes room.
  static let maximumAddresses = 4096
  static let meshNanoseconds: UInt64 = 60_000_000_000
  static let noMeshNanoseconds: UInt64 = 10_000_000_000
  /// In the last part of its time an answer that is used is asked for again, so that no connection
  /// ever waits for one that is in use.
  static let refreshPart: UInt64 = 4

  struct Answer {
    let isMesh: Bool
    /// The caller is the one to ask again.
    let isToRefresh: Bool
  }

  private struct Entry {
    var isMesh: Bool
    var until: UInt64
    var refreshFrom: UInt64
  }

  private let entries = Mutex<[IPAddress: Entry]>([:])

  func find(_ address: IPAddress, now: UInt64) -> Answer? {
    entries.withLock { entries in
      guard let entry = entries[address], entry.until > now else { return nil }
      let isToRefresh = now >= entry.refreshFrom
      if isToRefresh { entries[address]?.refreshFrom = .max }
      return Answer(isMesh: entry.isMesh, isToRefresh: isToRefresh)
    }
  }

  /// Whether an address has answered as mesh and not otherwise since.
  func isMesh(_ address: IPAddress, now: UInt64) -> Bool {
    entries.withLock { entries in entries[address].map { $0.isMesh && $0.until > now } ?? false }
  }

  /// Nothing has come from an address in time: it is not mesh, unless it was a moment ago. Then the
  /// next connection asks again.
  ///
  /// - Returns: whether it is to be taken for mesh.
  func storeSilence(_ address: IPAddress, now: UInt64) -> Bool {
    let wasMesh = entries.withLock { entries in
      guard let entry = entries[address], entry.isMesh, entry.until > now else { return false }
      entries[address]?.refreshFrom = now
      return true
    }
    if !wasMesh { store(address, isMesh: false, now: now) }
    return wasMesh
  }

  func store(_ address: IPAddress, isMesh: Bool, now: UInt64) {
    let span = isMesh ? Self.meshNanoseconds : Self.noMeshNanoseconds
    let entry = Entry(
      isMesh: isMesh, until: now + span, refreshFrom: now + span - span / Self.refreshPart)
    entries.withLock { entries in
      if entries[address] == nil, entries.count >= Self.maximumAddresses {
        entries = entries.filter { $0.value.until > now }
        if entries.count >= Self.maximumAddresses { entries.remove(at: entries.startIndex) }
      }
      entries[address] = entry
    }
  }

  /// The next connection to the address asks again.
  func forget(_ address: IPAddress) {
    entries.withLock { _ = $0.removeValue(forKey: address) }
  }

  /// Addresses kept now, by answer; those whose time has passed as well.
  var counts: (mesh: Int, noMesh: Int) {
    entries.withLock { entries in
      let mesh = entries.count { $0.value.isMesh }
      return (mesh, entries.count - mesh)
    }
  }
}
