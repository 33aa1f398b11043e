internal import CLinux
internal import Net

/// Unix stream sockets (unix(7)).
enum UnixSocket {
  /// Bytes a path may have: `sun_path` less its final zero.
  static let maximumPathBytes = 107

  /// Listens at `path` with mode 0600; replaces a socket nobody answers at. Its directory is made
  /// with mode 0700 if it is missing.
  ///
  /// - Throws: EADDRINUSE if somebody answers there already.
  static func listen(_ path: String) throws(Errno) -> Descriptor {
    makeDirectory(of: path)
    do throws(Errno) {
      _ = try connect(path)
      throw Errno(EADDRINUSE)
    } catch Errno(ECONNREFUSED) {
      try Errno.check { unsafe unlink(path) }
    } catch .noEntry {
      // Nothing is there.
    }
    let listener = try make(nonBlocking: true)
    let mask = umask(0o177)
    defer { umask(mask) }
    unsafe try withAddress(path) { pointer, length throws(Errno) in
      try Errno.check { unsafe bind(listener.number, pointer, length) }
    }
    try Errno.check { CLinux.listen(listener.number, 16) }
    return listener
  }

  static func connect(_ path: String) throws(Errno) -> Descriptor {
    let socket = try make(nonBlocking: false)
    unsafe try withAddress(path) { pointer, length throws(Errno) in
      try Errno.check { unsafe CLinux.connect(socket.number, pointer, length) }
    }
    return socket
  }

  private static func make(nonBlocking: Bool) throws(Errno) -> Descriptor {
    let flags = SOCK_CLOEXEC.rawValue | (nonBlocking ? SOCK_NONBLOCK.rawValue : 0)
    return Descriptor(
      owning: try Errno.check { socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | flags), 0) })
  }

  private static func makeDirectory(of path: String) {
    guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return }
    // If it cannot be made, binding says why.
    _ = unsafe mkdir(String(path[..<slash]), 0o700)
  }

  private static func withAddress(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Errno) -> Void
  ) throws(Errno) {
    guard path.utf8.count <= maximumPathBytes else { throw Errno(ENAMETOOLONG) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8) }
    var failure: Errno?
    unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        do throws(Errno) {
          try unsafe body(pointer, socklen_t(MemoryLayout<sockaddr_un>.size))
        } catch {
          failure = error
        }
      }
    }
    if let failure { throw failure }
  }
}
