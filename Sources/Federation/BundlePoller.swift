internal import CLinux
package import Identity
package import Net
internal import Synchronization

/// Fetches bundles on threads of its own, since a fetch waits.
package final class BundlePoller: Sendable {
  /// Fetches at one time; more wait in order.
  package static let maximumConcurrentFetches = 4
  /// 256 KiB: what resolving a name and verifying a certificate take, several times over.
  static let stackBytes = 256 * 1024

  package typealias Fetched = (tag: Int, result: Result<SPIFFEBundle, BundleFetchError>)

  /// As much waits, and as many results, as the caller has started: one for each of its endpoints.
  private struct State {
    var waiting: [(request: BundleRequest, tag: Int)] = []
    var threadCount = 0
    var results: [Fetched] = []
  }

  private let state = Mutex(State())
  /// An eventfd, readable while results wait.
  package let readable: Descriptor

  package init() throws(Errno) {
    readable = Descriptor(
      owning: try Errno.check { eventfd(0, Int32(EFD_CLOEXEC) | Int32(EFD_NONBLOCK)) })
  }

  /// Fetches as soon as there is a thread for it; `tag` comes back with the result.
  package func start(_ request: BundleRequest, tag: Int) {
    let needsThread = state.withLock { state in
      state.waiting.append((request, tag))
      guard state.threadCount < Self.maximumConcurrentFetches else { return false }
      state.threadCount += 1
      return true
    }
    guard needsThread, let error = startThread() else { return }
    // Whatever waits is for the threads there are; if there are none, it has failed.
    let failure = BundleFetchError(.connectFailed, "cannot start a thread: \(error)")
    state.withLock { state in
      state.threadCount -= 1
      guard state.threadCount == 0 else { return }
      state.results += state.waiting.map { ($0.tag, .failure(failure)) }
      state.waiting.removeAll()
    }
    _ = eventfd_write(readable.number, 1)
  }

  /// Takes what has been fetched, or was not.
  package func take() -> [Fetched] {
    var count: eventfd_t = 0
    _ = unsafe eventfd_read(readable.number, &count)
    return state.withLock { state in
      defer { state.results.removeAll() }
      return state.results
    }
  }

  // MARK: Threads

  /// - Returns: why there is none.
  private func startThread() -> Errno? {
    var attributes = pthread_attr_t()
    unsafe pthread_attr_init(&attributes)
    defer { unsafe pthread_attr_destroy(&attributes) }
    unsafe pthread_attr_setstacksize(&attributes, Self.stackBytes)
    unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    var thread = pthread_t()
    // The thread keeps the poller until it ends.
    let retained = unsafe Unmanaged.passRetained(self)
    let status = unsafe pthread_create(
      &thread, &attributes,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<BundlePoller>.fromOpaque(argument).takeRetainedValue().work()
        return nil
      }, retained.toOpaque())
    guard status != 0 else { return nil }
    unsafe retained.release()
    return Errno(status)
  }

  private func work() {
    // Signals are for the control thread; SIGPIPE is an error that write(2) reports anyway.
    var mask = sigset_t()
    unsafe sigfillset(&mask)
    unsafe pthread_sigmask(SIG_BLOCK, &mask, nil)
    while let (request, tag) = next() {
      let result = Result { () throws(BundleFetchError) in try request.fetch() }
      state.withLock { $0.results.append((tag, result)) }
      _ = eventfd_write(readable.number, 1)
    }
  }

  /// The next request; with none the thread no longer counts.
  private func next() -> (request: BundleRequest, tag: Int)? {
    state.withLock { state in
      guard !state.waiting.isEmpty else {
        state.threadCount -= 1
        return nil
      }
      return state.waiting.removeFirst()
    }
  }
}
