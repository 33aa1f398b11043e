internal import CLinux
internal import Net

/// The cgroup v2 that the process is in.
enum ControlGroup {
  /// Of the kernel's tables about cgroups and mounts.
  static let maximumTableBytes = 4 << 20
  /// CGROUP2_SUPER_MAGIC (linux/magic.h).
  private static let fileSystem = 0x6367_7270

  /// Opens the directory, through a mount that is visible or, where none is, through one of its
  /// own that nobody sees.
  static func open() throws(AnnouncementError) -> Descriptor {
    guard let groups = table("/proc/thread-self/cgroup"), let group = path(in: groups)
    else { throw .noControlGroup }
    return try open(group, mounts: table("/proc/thread-self/mountinfo") ?? "")
  }

  static func open(
    _ group: String, mounts: String
  ) throws(AnnouncementError) -> Descriptor {
    guard !group.split(separator: "/").contains("..") else { throw .outsideControlGroup }
    for directory in directories(of: group, mounts: mounts) {
      if let descriptor = openIfControlGroup(directory) { return descriptor }
    }
    do throws(Errno) {
      return try openDetached(group)
    } catch {
      throw .cannotOpen(error)
    }
  }

  /// The process's path in the hierarchy, of /proc/PID/cgroup (cgroups(7)).
  static func path(in groups: String) -> String? {
    groups.split(separator: "\n").first { $0.hasPrefix("0::/") }.map { String($0.dropFirst(3)) }
  }

  /// Where the group's directory may be, by /proc/PID/mountinfo (proc(5)): a mount shows the
  /// hierarchy from its root on, and may itself be hidden by another.
  static func directories(of group: String, mounts: String) -> [String] {
    mounts.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      guard fields.count > 4, let separator = fields.firstIndex(of: "-"),
        fields.dropFirst(separator + 1).first == "cgroup2"
      else { return nil }
      let (root, point) = (unescaped(fields[3]), unescaped(fields[4]))
      if root == "/" { return point + group }
      guard group == root || group.hasPrefix(root + "/") else { return nil }
      return point + group.dropFirst(root.count)
    }
  }

  /// Space, tab, newline and backslash are written as three octal digits.
  private static func unescaped(_ field: Substring) -> String {
    var bytes: [UInt8] = []
    var rest = Array(field.utf8)[...]
    while let byte = rest.popFirst() {
      let digits = String(decoding: rest.prefix(3), as: UTF8.self)
      if byte == UInt8(ascii: "\\"), let value = UInt8(digits, radix: 8) {
        rest = rest.dropFirst(3)
        bytes.append(value)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func table(_ path: String) -> String? {
    (try? RegularFile.contents(path, maximumBytes: maximumTableBytes)).map {
      String(decoding: $0, as: UTF8.self)
    }
  }

  private static let directoryFlags = O_RDONLY | O_CLOEXEC | O_DIRECTORY

  private static func openIfControlGroup(_ path: String) -> Descriptor? {
    let number = unsafe culvert_open(path, directoryFlags, 0)
    guard number >= 0 else { return nil }
    let descriptor = Descriptor(owning: number)
    var status = statfs()
    guard unsafe fstatfs(number, &status) == 0, Int(status.f_type) == fileSystem
    else { return nil }
    return descriptor
  }

  /// A mount that is in no directory (fsmount(2), Linux 5.2); needs CAP_SYS_ADMIN.
  private static func openDetached(_ group: String) throws(Errno) -> Descriptor {
    let context = Descriptor(owning: try Errno.check { unsafe culvert_fsopen("cgroup2") })
    let contextNumber = context.number
    try Errno.check { culvert_fsconfig_create(contextNumber) }
    let mount = Descriptor(owning: try Errno.check { culvert_fsmount(contextNumber) })
    let mountNumber = mount.number
    let relative = group == "/" ? "." : String(group.drop { $0 == "/" })
    return Descriptor(
      owning: try Errno.check { unsafe culvert_openat(mountNumber, relative, directoryFlags) })
  }
}
