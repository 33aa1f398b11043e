internal import CLinux
internal import Net

/// A network namespace that only one thread is in, and that ends with it: what is tried there
/// touches nothing of the caller's.
enum PrivateNamespace {
  /// CLONE_NEWNET (linux/sched.h); unshare(2) moves the calling thread alone.
  private static let cloneNewNetwork: Int32 = 0x4000_0000

  private final class Box<Value> {
    let body: () -> Value
    var value: Value?
    var failure: Errno?

    init(_ body: @escaping () -> Value) { self.body = body }

    func run() {
      do throws(Errno) {
        try Errno.check { culvert_unshare(cloneNewNetwork) }
        value = body()
      } catch {
        failure = error
      }
    }
  }

  /// Runs `body` on a thread in a new network namespace, and waits for it.
  ///
  /// - Throws: EPERM without CAP_SYS_ADMIN; what pthread_create(3) or unshare(2) say otherwise.
  static func run<Value: Sendable>(
    _ body: @escaping @Sendable () -> Value
  ) throws(Errno) -> Value {
    let box = Box(body)
    // The thread takes a closure without a type, as C cannot be told of `Value`.
    let work = Box<Void> { box.run() }
    var thread = pthread_t()
    let status = unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        unsafe Unmanaged<Box<Void>>.fromOpaque(argument).takeUnretainedValue().body()
        return nil
      }, Unmanaged.passUnretained(work).toOpaque())
    guard status == 0 else { throw Errno(status) }
    pthread_join(thread, nil)
    // Only now may both be given up: the thread has used them unretained.
    return try withExtendedLifetime(work) { () throws(Errno) -> Value in
      if let failure = box.failure { throw failure }
      guard let value = box.value else { preconditionFailure("the thread has ended") }
      return value
    }
  }
}
