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

  /// Watches these files from now on, and no others. Of one that is watched already, no change
  /// since the last `hasChanged` is forgotten.
  mutating func watch(_ files: [String]) {
    let known = Dictionary(zip(self.files, fingerprints)) { first, _ in first }
    self.files = files
    watchDirectories()
    fingerprints = files.map { known[$0] ?? Self.fingerprint($0) }
  }

  private mutating func watchDirectories() {
    for watch in watches { _ = inotify_rm_watch(readable.number, watch) }
    let mask = UInt32(IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE | IN_ATTRIB)
    let directories = Set(files.flatMap(Self.directories))
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
    guard files.map(Self.fingerprint) != fingerprints else { return false }
    // The links may lead elsewhere now. Look again only once the new places are watched.
    watchDirectories()
    fingerprints = files.map(Self.fingerprint)
    return true
  }

  /// The directories whose entries decide what a path leads to: those of the symbolic links on the
  /// way, and that of the file itself.
  private static func directories(_ path: String) -> [String] {
    var result: [String] = []
    var place = path.hasPrefix("/") ? "/" : "."
    var names = path.split(separator: "/").map(String.init)[...]
    var linksLeft = linksMaximum
    while let name = names.popFirst() {
      let next = place == "/" ? "/\(name)" : "\(place)/\(name)"
      if let target = linkTarget(next) {
        result.append(place)
        linksLeft -= 1
        guard linksLeft > 0 else { break }
        if target.hasPrefix("/") { place = "/" }
        names = (target.split(separator: "/").map(String.init) + names)[...]
        continue
      }
      if names.isEmpty { result.append(place) }
      place = next
    }
    return result
  }

  /// As many as the kernel follows (path_resolution(7)).
  private static let linksMaximum = 40

  private static func linkTarget(_ path: String) -> String? {
    var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
    let count = unsafe bytes.withUnsafeMutableBytes { buffer in
      unsafe readlink(path, buffer.baseAddress!.assumingMemoryBound(to: CChar.self), buffer.count)
    }
    return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
  }

  private static func fingerprint(_ path: String) -> Fingerprint {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { return Fingerprint() }
    return Fingerprint(
      device: UInt(status.st_dev), inode: UInt(status.st_ino), size: Int(status.st_size),
      seconds: status.st_mtim.tv_sec, nanoseconds: status.st_mtim.tv_nsec, mode: status.st_mode)
  }
}
