internal import CLinux
internal import Net

enum CapabilityChecks {
  /// Bits of capabilities(7).
  private static let networkAdministration: UInt32 = 12
  private static let systemAdministration: UInt32 = 21

  static func capabilities() -> Check {
    var effective: UInt32 = 0
    _ = unsafe culvert_capget(&effective)
    return capabilities(effective: effective, markRefusal: markRefusal())
  }

  /// - Parameters:
  ///   - effective: the first 32 capabilities in effect.
  ///   - markRefusal: why a socket could not be marked.
  static func capabilities(effective: UInt32, markRefusal: Errno?) -> Check {
    let hasSystemAdministration = effective & 1 << systemAdministration != 0
    let enters =
      hasSystemAdministration ? "CAP_SYS_ADMIN is effective" : "CAP_SYS_ADMIN is not effective"
    var check = Check(
      name: "capabilities", verdict: .missing, seen: "", consequence: "", isEssential: true)
    guard effective & 1 << networkAdministration != 0 else {
      check.seen = "CAP_NET_ADMIN is not effective, \(enters)"
      check.consequence =
        "neither culvert-init nor culvert-proxy starts; "
        + "run them as root or add the capability"
      return check
    }
    if let markRefusal {
      check.seen = "CAP_NET_ADMIN is effective, but marking a socket failed: \(markRefusal)"
      check.consequence =
        "the capability does not reach this network namespace; "
        + "run in the user namespace that owns it"
      return check
    }
    check.verdict = .found
    check.seen = "CAP_NET_ADMIN is effective, a socket was marked; \(enters)"
    check.consequence =
      hasSystemAdministration
      ? "enough for culvert-init, also with --netns, and for culvert-proxy"
      : "enough for culvert-proxy and for culvert-init without --netns"
    return check
  }

  /// Marks a socket as the proxy marks its own; nobody ever connects it.
  private static func markRefusal() -> Errno? {
    do throws(Errno) {
      let socket = try Socket.stream(.v4)
      try Socket.setMark(socket.number, Mark.proxy)
      return nil
    } catch {
      return error
    }
  }
}
