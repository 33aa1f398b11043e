internal import CLinux
internal import Glibc

/// Unix stream sockets (unix(7)).
package enum UnixSocket {
  /// Bytes a path may have: `sun_path` less its final zero.
  package static let maximumPathBytes = 107

  /// Listens at `path`, not blocking; replaces a socket nobody answers at. Its directory is made
  /// if it is missing, with mode 0700 or, where others may connect, 0755.
  ///
  /// - Parameter mode: who may connect: those who may write to it.
  /// - Throws: EADDRINUSE if somebody answers there already, EEXIST if something other than a
  ///   socket is there.
  package static func listen(
    _ path: String, mode: UInt32 = 0o600
  ) throws(Errno) -> Descriptor {
    makeDirectory(of: path, mode: mode & 0o077 == 0 ? 0o700 : 0o755)
    do throws(Errno) {
      let probe = try make(nonBlocking: true)
      try connect(probe, path)
      throw Errno(EADDRINUSE)
    } catch .tryAgain {
      throw Errno(EADDRINUSE)  // Its backlog is full, so somebody listens.
    } catch Errno(ECONNREFUSED) {
      // The same answer comes for a file that is no socket (net/unix/af_unix.c `unix_find_bsd`).
      guard isSocket(path) else { throw Errno(EEXIST) }
      try Errno.check { unsafe unlink(path) }
    } catch .noEntry {
      // Nothing is there.
    }
    let listener = try make(nonBlocking: true)
    // The file takes its mode from the socket (`unix_bind_bsd`), so it never has a wider one.
    try Errno.check { fchmod(listener.number, mode) }
    unsafe try withAddress(path) { pointer, length throws(Errno) in
      try Errno.check { unsafe bind(listener.number, pointer, length) }
    }
    // The umask may have taken bits away that others need.
    if mode & 0o077 != 0 { try Errno.check { unsafe chmod(path, mode) } }
    try Errno.check { CLinux.listen(listener.number, 16) }
    return listener
  }

  /// A blocking socket.
  ///
  /// - Parameter timeoutMilliseconds: how long a full backlog is waited for, then EAGAIN.
  package static func connect(
    _ path: String, timeoutMilliseconds: Int
  ) throws(Errno) -> Descriptor {
    let socket = try make(nonBlocking: false)
    try setTimeout(socket, SO_SNDTIMEO, milliseconds: timeoutMilliseconds)
    try connect(socket, path)
    return socket
  }

  /// A socket that does not block; EAGAIN if the backlog is full.
  package static func connectAtOnce(_ path: String) throws(Errno) -> Descriptor {
    let socket = try make(nonBlocking: true)
    try connect(socket, path)
    return socket
  }

  /// Sets SO_RCVTIMEO or SO_SNDTIMEO; at least 1 ms, since 0 would mean for ever.
  package static func setTimeout(
    _ socket: borrowing Descriptor, _ option: Int32, milliseconds: Int
  ) throws(Errno) {
    let wait = max(1, milliseconds)
    var time = timeval(tv_sec: wait / 1000, tv_usec: wait % 1000 * 1000)
    let number = socket.number
    try Errno.check {
      unsafe setsockopt(
        number, SOL_SOCKET, option, &time, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  private static func connect(_ socket: borrowing Descriptor, _ path: String) throws(Errno) {
    let number = socket.number
    unsafe try withAddress(path) { pointer, length throws(Errno) in
      try Errno.check { unsafe CLinux.connect(number, pointer, length) }
    }
  }

  private static func isSocket(_ path: String) -> Bool {
    var status = stat()
    // S_IFMT and S_IFSOCK (inode(7)).
    return unsafe lstat(path, &status) == 0 && status.st_mode & 0o170000 == 0o140000
  }

  private static func make(nonBlocking: Bool) throws(Errno) -> Descriptor {
    let flags = SOCK_CLOEXEC.rawValue | (nonBlocking ? SOCK_NONBLOCK.rawValue : 0)
    return Descriptor(
      owning: try Errno.check { socket(AF_UNIX, Int32(SOCK_STREAM.rawValue | flags), 0) })
  }

  private static func makeDirectory(of path: String, mode: UInt32) {
    guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return }
    // If it cannot be made, binding says why.
    _ = unsafe mkdir(String(path[..<slash]), mode)
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
