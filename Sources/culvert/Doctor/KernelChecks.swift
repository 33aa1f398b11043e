internal import CLinux
internal import DataPlane
internal import Net

struct KernelVersion: Comparable, CustomStringConvertible {
  let major: Int
  let minor: Int

  /// The oldest with everything the io_uring backend uses.
  static let ioUringFloor = KernelVersion(major: 6, minor: 1)

  init(major: Int, minor: Int) {
    self.major = major
    self.minor = minor
  }

  /// Reads what uname(2) calls the release, for example `6.1.0-28-amd64`.
  init?(release: String) {
    let parts = release.split(separator: ".", maxSplits: 2)
    guard parts.count >= 2, let major = Int(parts[0]),
      let minor = Int(parts[1].prefix { $0.isASCII && $0.isNumber })
    else { return nil }
    self.init(major: major, minor: minor)
  }

  static func < (left: KernelVersion, right: KernelVersion) -> Bool {
    (left.major, left.minor) < (right.major, right.minor)
  }

  var description: String { "\(major).\(minor)" }
}

enum KernelChecks {
  static func version() -> Check { version(release: release()) }

  static func version(release: String) -> Check {
    let floor = KernelVersion.ioUringFloor
    guard let version = KernelVersion(release: release) else {
      return Check(
        name: "kernel", verdict: .limited, seen: "\(release), which is no version Culvert can read",
        consequence: "the other lines say what it can do")
    }
    guard version >= floor else {
      return Check(
        name: "kernel", verdict: .limited, seen: "Linux \(release)",
        consequence: "older than \(floor): io_uring is not used, the proxy runs on epoll; "
          + "a newer kernel costs less CPU")
    }
    return Check(
      name: "kernel", verdict: .found, seen: "Linux \(release)",
      consequence: "new enough (\(floor)) for the io_uring backend")
  }

  static func ioUring() -> Check {
    ioUring(
      refusal: BackendKind.probe().refusal,
      disabled: SystemFile.integer("/proc/sys/kernel/io_uring_disabled"),
      isFiltered: SystemFile.field("Seccomp", of: "/proc/self/status") == "2",
      kernel: KernelVersion(release: release()))
  }

  /// - Parameters:
  ///   - refusal: what making a ring as a worker makes it ended with.
  ///   - disabled: `kernel.io_uring_disabled` (Linux 6.6; Documentation/admin-guide/sysctl).
  ///   - isFiltered: a seccomp filter is on this process.
  static func ioUring(
    refusal: Errno?, disabled: Int?, isFiltered: Bool, kernel: KernelVersion?
  ) -> Check {
    guard let refusal else {
      return Check(
        name: "io_uring", verdict: .found, seen: "a ring as the workers make it was made",
        consequence: "the proxy uses it")
    }
    let cause = cause(refusal, disabled: disabled, isFiltered: isFiltered, kernel: kernel)
    return Check(
      name: "io_uring", verdict: .missing, seen: "\(refusal): \(cause.reason)",
      consequence: "the proxy uses epoll, which costs more CPU; to change that \(cause.remedy)")
  }

  private static func cause(
    _ refusal: Errno, disabled: Int?, isFiltered: Bool, kernel: KernelVersion?
  ) -> (reason: String, remedy: String) {
    let allow =
      "let the container's seccomp profile allow io_uring_setup, io_uring_enter and "
      + "io_uring_register"
    let enable = "set the sysctl kernel.io_uring_disabled to 0"
    switch refusal {
    case .notPermitted where disabled == 2:
      return ("kernel.io_uring_disabled is 2, for everybody", enable)
    case .notPermitted where disabled == 1 && !isFiltered:
      return (
        "kernel.io_uring_disabled is 1, for all without CAP_SYS_ADMIN",
        "\(enable), or put the proxy's group into kernel.io_uring_group"
      )
    case .notPermitted where disabled == 1:
      return (
        "kernel.io_uring_disabled is 1, and a seccomp filter is on", "\(enable), and \(allow)"
      )
    case .notPermitted where isFiltered:
      return ("a seccomp filter forbids it", allow)
    case .notPermitted, .permissionDenied:
      return (
        "a security module forbids it",
        "let its policy (SELinux, AppArmor) allow io_uring to culvert-proxy"
      )
    case .notSupported where isFiltered:
      return ("a seccomp filter hides it, or the kernel lacks CONFIG_IO_URING", allow)
    case .notSupported:
      return ("the kernel lacks CONFIG_IO_URING", "run a kernel that has it")
    case Errno(EINVAL):
      let floor = KernelVersion.ioUringFloor
      return (
        "the kernel\(kernel.map { " \($0)" } ?? "") lacks a feature of \(floor)",
        "run Linux \(floor) or newer"
      )
    case Errno(ENOMEM):
      return ("no memory for the ring", "raise the memory limit of the process or its cgroup")
    case .processDescriptorLimit, .systemDescriptorLimit:
      return ("no descriptor left for the ring", "raise RLIMIT_NOFILE")
    default:
      return ("an unexpected refusal", BackendKind.remedy(for: refusal))
    }
  }

  private static func release() -> String {
    var names = utsname()
    guard unsafe uname(&names) == 0 else { return "unknown" }
    return unsafe withUnsafeBytes(of: &names.release) {
      unsafe String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
    }
  }
}
