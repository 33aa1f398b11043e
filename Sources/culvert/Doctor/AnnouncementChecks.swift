internal import Announcement
internal import Net

enum AnnouncementChecks {
  /// The proxy's own start-up self-test, in the namespace doctor runs in: loopback sockets of its
  /// own, and a program that looks at no other.
  static func announcing() -> Check {
    do throws(AnnouncementError) {
      _ = try Announcer(mark: UInt16(Mark.proxy))
      return announcing(nil)
    } catch {
      return announcing(error.description)
    }
  }

  static func announcing(_ failure: String?) -> Check {
    guard let failure else {
      return Check(
        name: "announcing", verdict: .found,
        seen: "a program at the cgroup's sockets wrote a TCP option into a handshake on loopback, "
          + "and read it",
        consequence: "proxies find each other in the TCP handshake, at no cost")
    }
    return Check(
      name: "announcing", verdict: .missing, seen: failure,
      consequence: "proxies find each other by their mesh ports: the first connection to an "
        + "address waits for the answer, at most 200 ms")
  }
}
