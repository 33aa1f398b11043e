package import Net
internal import Synchronization

/// Destinations that have proved mesh and are not to be spoken to in plaintext for a while. Shared
/// by all workers; the control thread keeps them across restarts.
package final class Pins: Sendable {
  /// Destinations kept; beyond, the one that ends first makes room. Only a trusted peer adds one.
  package static let maximumPins = 16_384

  package struct Pin: Hashable, Sendable {
    package var destination: SocketAddress
    /// Unix time, in seconds.
    package var untilSeconds: Int64

    package init(destination: SocketAddress, untilSeconds: Int64) {
      self.destination = destination
      self.untilSeconds = untilSeconds
    }
  }

  private struct State {
    var until: [SocketAddress: Int64] = [:]
    /// Counts changes worth writing down.
    var version: UInt64 = 0
  }

  private let state = Mutex(State())

  package init() {}

  /// A peer at `destination` has proved mesh. Noted anew only once a tenth of the time has passed.
  func note(_ destination: SocketAddress, ttlSeconds: Int, nowSeconds: Int64) {
    let until = nowSeconds + Int64(ttlSeconds)
    state.withLock { state in
      let known = state.until[destination]
      if let known, until - known <= Int64(ttlSeconds / 10), known > nowSeconds { return }
      if known == nil { Self.makeRoom(&state, nowSeconds) }
      state.until[destination] = until
      state.version += 1
    }
  }

  private static func makeRoom(_ state: inout State, _ nowSeconds: Int64) {
    guard state.until.count >= maximumPins else { return }
    state.until = state.until.filter { $0.value > nowSeconds }
    guard state.until.count >= maximumPins,
      let first = state.until.min(by: { $0.value < $1.value })
    else { return }
    state.until[first.key] = nil
  }

  func contains(_ destination: SocketAddress, nowSeconds: Int64) -> Bool {
    state.withLock { ($0.until[destination] ?? 0) > nowSeconds }
  }

  /// What is in force, and the version to compare with later.
  package func all(nowSeconds: Int64) -> (pins: [Pin], version: UInt64) {
    state.withLock { state in
      (
        state.until.filter { $0.value > nowSeconds }
          .map { Pin(destination: $0.key, untilSeconds: $0.value) },
        state.version
      )
    }
  }

  package var count: Int { state.withLock { $0.until.count } }

  /// Counts changes.
  package var version: UInt64 { state.withLock { $0.version } }

  /// Takes over what was written down; of one destination the later time counts.
  package func restore(_ pins: [Pin]) {
    state.withLock { state in
      for pin in pins.prefix(Self.maximumPins) {
        state.until[pin.destination] = max(
          pin.untilSeconds, state.until[pin.destination] ?? pin.untilSeconds)
      }
    }
  }

  /// Forgets the pins of an address, or of one port there, or all.
  ///
  /// - Returns: how many there were.
  package func clear(address: IPAddress? = nil, port: UInt16? = nil) -> Int {
    state.withLock { state in
      let before = state.until.count
      state.until = state.until.filter { pin in
        (address.map { $0 != pin.key.address } ?? false)
          || (port.map { $0 != pin.key.port } ?? false)
      }
      state.version += 1
      return before - state.until.count
    }
  }
}
