internal import Glibc

/// A file descriptor with one owner; it is closed when the owner lets go.
package struct Descriptor: ~Copyable, Sendable {
  /// The number, valid as long as this value lives.
  package let number: Int32

  /// Takes ownership of an open descriptor.
  package init(owning number: Int32) {
    precondition(number >= 0, "not an open descriptor")
    self.number = number
  }

  deinit { _ = Glibc.close(number) }

  /// Gives up ownership without closing.
  package consuming func release() -> Int32 {
    let number = number
    discard self
    return number
  }
}
