internal import CLinux
internal import Net

/// Notices that one of a set of files has become another, however it was replaced: written in
/// place, renamed over, or behind a symbolic link that was swapped (as in a Kubernetes projected
/// volume).
struct FileWatch: ~Copyable {
  /// What stat(2) says of the file a path leads to.
  private struct Fingerprint: Equatable {
    var device: UInt = 0
    var inode: UInt = 0
    var size = 0
    var seconds = 0
    var nanoseconds = 0
    var mode: UInt32 = 0
  }

  /// An inotify descriptor, readable when something in a watched directory has changed.
  let readable: Descriptor
  private var watches: [Int32] = []
  private var files: [String] = []
  private var fingerprints: [Fingerprint] = []

  init() throws(Errno) {
    readable = Descriptor(
      owning: try Errno.check { inotify_init1(Int32(IN_CLOEXEC) | Int32(IN_NONBLOCK)) })
  }

  /// Watches these files from now on, and no others.
  mutating func watch(_ files: [String]) {
    for watch in watches { _ = inotify_rm_watch(readable.number, watch) }
    // What is known of a file stays known, so that a change since then is noticed.
    let known = Dictionary(zip(self.files, fingerprints), uniquingKeysWith: { first, _ in first })
    self.files = files
    fingerprints = files.map { known[$0] ?? Self.fingerprint($0) }
    let mask = UInt32(IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ATTRIB)
    let directories = Set(files.map(Self.directory))
    // A directory that cannot be watched is still covered by SIGHUP.
    watches = directories.map { unsafe inotify_add_watch(readable.number, $0, mask) }
      .filter { $0 >= 0 }
  }

  /// Empties the descriptor.
  func drain() {
    var buffer = [UInt8](repeating: 0, count: 4096)
    while unsafe read(readable.number, &buffer, buffer.count) > 0 {}
  }

  /// Whether a file has changed since the last call, or since it is watched.
  mutating func hasChanged() -> Bool {
    let current = files.map(Self.fingerprint)
    defer { fingerprints = current }
    return current != fingerprints
  }

  private static func directory(_ path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  private static func fingerprint(_ path: String) -> Fingerprint {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { return Fingerprint() }
    return Fingerprint(
      device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
      seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec, mode: status.st_mode)
  }
}
