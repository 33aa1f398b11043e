package import Net
package import Policy
internal import Synchronization

/// Who speaks without mesh mTLS: what a switch to strict would refuse, as really seen. Written by
/// all workers, once as such a connection begins and once as it ends.
package final class Sightings: Sendable {
  /// Entries kept; what comes on top is counted without its address.
  package static let maximumEntries = 4096
  /// Pairs of server name and protocol kept.
  package static let maximumNames = 64

  package struct Key: Hashable, Sendable {
    package let direction: Direction
    package let reason: RelayReason
    /// Inbound the client's, outbound the server's.
    package let address: IPAddress
    /// The destination's, either way.
    package let port: UInt16

    package init(
      direction: Direction, reason: RelayReason, address: IPAddress, port: UInt16
    ) {
      self.direction = direction
      self.reason = reason
      self.address = address
      self.port = port
    }
  }

  package struct Seen: Hashable, Sendable {
    package var count: UInt64 = 0
    package var open: UInt64 = 0
    /// Unix time at which one began or ended, in milliseconds.
    package var lastMilliseconds: Int64 = 0
  }

  /// What the application's own TLS asks for.
  package struct Name: Hashable, Sendable {
    package var serverName: String?
    package var alpn: String?

    package init(serverName: String?, alpn: String?) {
      self.serverName = serverName
      self.alpn = alpn
    }
  }

  private struct State {
    var entries: [Key: Seen] = [:]
    var withoutEntry: UInt64 = 0
    /// When the last of these was seen.
    var withoutEntryMilliseconds: Int64 = 0
    var names: [Name: UInt64] = [:]
    var otherNames: UInt64 = 0
  }

  private let state = Mutex(State())

  package init() {}

  /// - Parameter name: of the application's own TLS.
  /// - Returns: whether there is an entry, which is to be told of the end.
  package func began(_ key: Key, name: Name?, nowMilliseconds: Int64) -> Bool {
    state.withLock { state in
      if state.entries[key] == nil { Self.makeRoom(&state) }
      let hasEntry = state.entries[key] != nil || state.entries.count < Self.maximumEntries
      if hasEntry {
        var seen = state.entries[key] ?? Seen()
        seen.count += 1
        seen.open += 1
        seen.lastMilliseconds = nowMilliseconds
        state.entries[key] = seen
      } else {
        state.withoutEntry += 1
        state.withoutEntryMilliseconds = nowMilliseconds
      }
      guard let name else { return hasEntry }
      if state.names[name] != nil || state.names.count < Self.maximumNames {
        state.names[name, default: 0] += 1
      } else {
        state.otherNames += 1
      }
      return hasEntry
    }
  }

  /// The one seen longest ago makes room, of those that are not open.
  private static func makeRoom(_ state: inout State) {
    guard state.entries.count >= maximumEntries,
      let oldest = state.entries.lazy.filter({ $0.value.open == 0 })
        .min(by: { $0.value.lastMilliseconds < $1.value.lastMilliseconds })
    else { return }
    state.entries[oldest.key] = nil
    state.withoutEntry += oldest.value.count
    state.withoutEntryMilliseconds = max(
      state.withoutEntryMilliseconds, oldest.value.lastMilliseconds)
  }

  package func ended(_ key: Key, nowMilliseconds: Int64) {
    state.withLock { state in
      guard var seen = state.entries[key], seen.open > 0 else { return }
      seen.open -= 1
      seen.lastMilliseconds = nowMilliseconds
      state.entries[key] = seen
    }
  }

  package var all: (entries: [Key: Seen], withoutEntry: UInt64, withoutEntryMilliseconds: Int64) {
    state.withLock { ($0.entries, $0.withoutEntry, $0.withoutEntryMilliseconds) }
  }

  /// Connections with the application's own TLS, by what they asked for.
  package var names: (byName: [Name: UInt64], others: UInt64) {
    state.withLock { ($0.names, $0.otherNames) }
  }
}
