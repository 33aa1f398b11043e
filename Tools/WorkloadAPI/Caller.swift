import CLinux
import Configuration
import Net

/// What the kernel says of the process at the other end of a unix socket, as it was when it
/// connected (SO_PEERCRED, unix(7)). A process that hands its connection on hands on what it is
/// entitled to.
struct Caller: Hashable, Sendable, CustomStringConvertible {
  let pid: Int32
  let userID: UInt32
  let groupID: UInt32
  /// Nil if it cannot be told: the process has gone, or it is in another PID namespace.
  let program: String?

  init(of descriptor: Int32) throws(Errno) {
    // struct ucred.
    var credentials: (pid: Int32, uid: UInt32, gid: UInt32) = (0, 0, 0)
    var length = socklen_t(MemoryLayout.size(ofValue: credentials))
    try Errno.check {
      unsafe getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &credentials, &length)
    }
    (pid, userID, groupID) = credentials
    program = credentials.pid > 0 ? Self.linkTarget("/proc/\(credentials.pid)/exe") : nil
  }

  init(pid: Int32, userID: UInt32, groupID: UInt32, program: String?) {
    self.pid = pid
    self.userID = userID
    self.groupID = groupID
    self.program = program
  }

  func fits(_ selector: RegistrationEntries.Selector) -> Bool {
    switch selector {
    case .userID(let id): userID == id
    case .groupID(let id): groupID == id
    case .path(let path): program == path
    }
  }

  var description: String {
    "pid=\(pid) uid=\(userID) gid=\(groupID) program=\(program.map(Log.quote) ?? "unknown")"
  }

  private static func linkTarget(_ path: String) -> String? {
    var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = unsafe bytes.withUnsafeMutableBytes { buffer in
      unsafe buffer.withMemoryRebound(to: CChar.self) { buffer in
        guard let start = buffer.baseAddress else { return -1 }
        return unsafe readlink(path, start, buffer.count)
      }
    }
    // A path that fills the buffer may have been cut; one that is no text fits no selector.
    guard count > 0, count < bytes.count else { return nil }
    return String(validating: bytes[..<count], as: UTF8.self)
  }
}

/// One line at a time on standard error, without ever waiting for a reader.
enum Log {
  static func write(_ line: String) {
    var request = pollfd(fd: STDERR_FILENO, events: Int16(POLLOUT), revents: 0)
    guard unsafe poll(&request, 1, 0) == 1 else { return }
    let bytes = Array("culvert-workload-agent: \(line)\n".utf8)
    _ = unsafe CLinux.write(STDERR_FILENO, bytes, bytes.count)
  }

  static func quote(_ text: String) -> String {
    "\"" + text.unicodeScalars.map { $0.escaped(asASCII: true) }.joined() + "\""
  }
}

/// CLOCK_MONOTONIC in milliseconds, and the wall clock in seconds.
enum Clock {
  static func milliseconds() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  static func seconds() -> Int64 { Int64(time(nil)) }
}
