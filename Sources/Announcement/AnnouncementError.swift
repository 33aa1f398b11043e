internal import CLinux
package import Net

/// Why mesh cannot be announced here; the text is one line that says what to do.
package struct AnnouncementError: Error, Hashable, Sendable, CustomStringConvertible {
  /// What was being done, in order.
  package enum Step: String, Sendable {
    /// Finding and opening the process's cgroup.
    case cgroup
    /// Giving the program to the kernel.
    case load
    /// Attaching it to the cgroup.
    case attach
    /// Trying it on a connection over loopback.
    case selfTest = "self_test"
  }

  package let step: Step
  /// What the kernel said, if it was the kernel that said no.
  package let errno: Errno?
  private let reason: String

  init(_ step: Step, _ errno: Errno? = nil, _ reason: String) {
    self.step = step
    self.errno = errno
    self.reason = reason
  }

  package var description: String {
    let what =
      switch step {
      case .cgroup: "cannot find the cgroup to announce mesh from"
      case .load: "cannot load the program that announces mesh"
      case .attach: "cannot attach the program that announces mesh"
      case .selfTest: "announcing mesh does not work here"
      }
    return what + (errno.map { " (\($0))" } ?? "") + ": " + reason
  }
}

extension AnnouncementError {
  static let noControlGroup = AnnouncementError(
    .cgroup, nil, "this process is in no cgroup v2: mount one (mount -t cgroup2), or boot with it")

  static let outsideControlGroup = AnnouncementError(
    .cgroup, nil,
    "the process is outside its cgroup namespace's root: start it in a cgroup of its own")

  static func cannotOpen(_ errno: Errno) -> AnnouncementError {
    switch errno {
    case .notPermitted:
      AnnouncementError(
        .cgroup, errno,
        "no cgroup v2 is mounted where the process can see it (ip netns exec hides /sys); mount it "
          + "there, or allow the process CAP_SYS_ADMIN until it has started")
    case .notSupported:
      AnnouncementError(.cgroup, errno, "mount cgroup v2, or use a kernel of 5.15 or later")
    default: AnnouncementError(.cgroup, errno, "mount cgroup v2 at /sys/fs/cgroup")
    }
  }

  /// - Parameter log: the last line of what the kernel's verifier wrote.
  static func cannotLoad(_ errno: Errno, log: String?) -> AnnouncementError {
    switch errno {
    case .notPermitted:
      AnnouncementError(
        .load, errno,
        "allow it CAP_BPF and CAP_NET_ADMIN until it has started, and bpf(2) in the seccomp profile"
      )
    case .notSupported:
      AnnouncementError(.load, errno, "this kernel has no bpf(2) (CONFIG_BPF_SYSCALL)")
    default:
      AnnouncementError(
        .load, errno,
        "use a kernel of 5.15 or later with CONFIG_CGROUP_BPF" + (log.map { "; \($0)" } ?? ""))
    }
  }

  static func noNamespaceCookie(_ errno: Errno) -> AnnouncementError {
    AnnouncementError(
      .load, errno, "the network namespace has no cookie: use a kernel of 5.15 or later")
  }

  static func cannotAttach(_ errno: Errno) -> AnnouncementError {
    switch errno {
    case .notPermitted:
      AnnouncementError(
        .attach, errno,
        "a program is attached to this cgroup, or to one above, that allows none beside it; "
          + "bpftool cgroup tree lists them")
    default:
      AnnouncementError(
        .attach, errno, "use a kernel of 5.15 or later with CONFIG_CGROUP_BPF")
    }
  }

  static func cannotTry(_ errno: Errno) -> AnnouncementError {
    switch errno {
    case .notPermitted:
      AnnouncementError(.selfTest, errno, "marking sockets needs CAP_NET_ADMIN")
    case Errno(ENETDOWN):
      AnnouncementError(.selfTest, errno, "lo is down: run: ip link set lo up")
    default:
      AnnouncementError(
        .selfTest, errno, "a connection over 127.0.0.1 failed: something filters it")
    }
  }

  static let notSeen = AnnouncementError(
    .selfTest, nil,
    "an announced connection over 127.0.0.1 was not seen as one: something strips TCP option "
      + "\(AnnouncementOption.kind), or net.ipv4.tcp_syncookies is 2")

  static let seenUnannounced = AnnouncementError(
    .selfTest, nil,
    "a silent connection over 127.0.0.1 was seen as announced: another program writes TCP option "
      + "\(AnnouncementOption.kind)")
}
