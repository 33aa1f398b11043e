internal import Glibc

/// The error number a system call left behind.
package struct Errno: Error, Hashable, Sendable, CustomStringConvertible {
  /// The positive number, as in errno(3).
  package let code: Int32

  package init(_ code: Int32) { self.code = code }

  /// The calling thread's `errno`.
  package static var current: Errno { Errno(errno) }

  package static let tryAgain = Errno(EAGAIN)
  package static let inProgress = Errno(EINPROGRESS)
  package static let interrupted = Errno(EINTR)
  package static let connectionReset = Errno(ECONNRESET)
  package static let brokenPipe = Errno(EPIPE)
  package static let noEntry = Errno(ENOENT)
  package static let permissionDenied = Errno(EACCES)
  package static let notPermitted = Errno(EPERM)
  package static let cancelled = Errno(ECANCELED)
  package static let notSupported = Errno(ENOSYS)
  package static let addressNotAvailable = Errno(EADDRNOTAVAIL)
  package static let processDescriptorLimit = Errno(EMFILE)
  package static let systemDescriptorLimit = Errno(ENFILE)

  /// What strerror(3) says.
  package var description: String {
    var text = [CChar](repeating: 0, count: 128)
    return unsafe text.withUnsafeMutableBufferPointer { buffer -> String in
      guard let base = buffer.baseAddress, unsafe strerror_r(code, base, buffer.count) == 0
      else { return "error \(code)" }
      return unsafe String(cString: base)
    }
  }

  /// Runs a call that reports failure as -1 and repeats it while a signal interrupts it.
  @discardableResult
  package static func check<Value: FixedWidthInteger & SignedInteger>(
    _ call: () -> Value
  ) throws(Errno) -> Value {
    while true {
      let value = call()
      if value >= 0 { return value }
      let error = Errno.current
      if error != .interrupted { throw error }
    }
  }
}
