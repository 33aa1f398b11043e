internal import CLinux
package import Net
internal import Synchronization

/// Where workers leave connection records for the control thread to write.
///
/// Bounded: a log that cannot be written must not slow a worker, so records beyond the capacity
/// are dropped and counted.
package final class RecordQueue: Sendable {
  /// Records that may wait to be written.
  package static let capacity = 16_384

  private struct Waiting {
    var records: [ConnectionRecord] = []
    var dropped: UInt64 = 0
  }

  private let waiting = Mutex(Waiting())
  /// An eventfd, readable while records wait.
  package let readable: Descriptor

  package init() throws(Errno) {
    readable = Descriptor(
      owning: try Errno.check { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
  }

  package func append(_ record: ConnectionRecord) {
    let isFirst = waiting.withLock { waiting in
      guard waiting.records.count < Self.capacity else {
        waiting.dropped += 1
        return false
      }
      waiting.records.append(record)
      return waiting.records.count == 1
    }
    if isFirst { _ = eventfd_write(readable.number, 1) }
  }

  /// Takes everything that waits, and how many records were dropped since the last call.
  package func take() -> (records: [ConnectionRecord], dropped: UInt64) {
    var count: eventfd_t = 0
    _ = unsafe eventfd_read(readable.number, &count)
    return waiting.withLock { waiting in
      let taken = (waiting.records, waiting.dropped)
      waiting = Waiting()
      return taken
    }
  }
}
