internal import CLinux
internal import Net
internal import Policy
internal import Synchronization
internal import TLS
package import Telemetry

/// What the control thread tells a worker.
///
/// Sendable although a context is not: it is made for one worker and given away with the order.
enum Order: @unchecked Sendable {
  /// New connections of the namespace are judged by this from now on. The contexts are made for
  /// this worker and handed over.
  case install(NamespaceEpoch, WorkerContexts, namespace: Int)
  /// End what would not be let in, or sent, now.
  case enforce
  /// Accept nothing inbound any more; outbound goes on.
  case drain
  /// Close in order whatever is still open.
  case finish
  /// Close everything and end the thread.
  case stop
}

/// What one worker and the control thread share.
package final class WorkerLink: Sendable {
  package let counters: WorkerCounters
  private let orders = Mutex<[Order]>([])
  /// An eventfd, readable while orders wait.
  let wake: Descriptor

  init() throws(Errno) {
    counters = WorkerCounters(
      refusalWords: Refusal.allCases.map(\.rawValue) + PeerRefusal.allCases.map(\.rawValue))
    wake = Descriptor(
      owning: try Errno.check { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
  }

  func give(_ order: Order) {
    orders.withLock { $0.append(order) }
    _ = eventfd_write(wake.number, 1)
  }

  func take() -> [Order] {
    var count: eventfd_t = 0
    _ = unsafe eventfd_read(wake.number, &count)
    return orders.withLock { orders in
      defer { orders.removeAll() }
      return orders
    }
  }
}

/// What all workers share.
final class SharedState: Sendable {
  let records: RecordQueue
  let meshSources = MeshSources()
  let meshAnswers = MeshAnswers()
  let knownPeers = KnownPeers()
  let pins = Pins()
  let sightings = Sightings()
  /// Connections open in the whole process.
  let openConnections = Atomic<Int>(0)

  init() throws(Errno) { records = try RecordQueue() }
}
