internal import CLinux
internal import Net

enum NetworkChecks {
  static func loopback(rulesAreInstalled: Bool) -> Check {
    loopback(failure: failure(.v4), rulesAreInstalled: rulesAreInstalled)
  }

  /// - Parameter failure: why a connection over 127.0.0.1 failed.
  static func loopback(failure: Errno?, rulesAreInstalled: Bool) -> Check {
    guard let failure else {
      return Check(
        name: "loopback", verdict: .found, seen: "a connection over 127.0.0.1 was made",
        consequence: "redirected connections reach the proxy")
    }
    let seen = "a connection over 127.0.0.1 failed: \(failure)"
    guard rulesAreInstalled else {
      return Check(
        name: "loopback", verdict: .limited, seen: seen,
        consequence: "if lo is down culvert-init install raises it; otherwise let loopback through")
    }
    return Check(
      name: "loopback", verdict: .missing, seen: seen,
      consequence: "no redirected connection reaches the proxy; run: ip link set lo up",
      isEssential: true)
  }

  static func ipv6() -> Check { ipv6(failure: failure(.v6)) }

  /// - Parameter failure: why a connection over ::1 failed.
  static func ipv6(failure: Errno?) -> Check {
    guard let failure else {
      return Check(
        name: "IPv6", verdict: .found, seen: "a connection over ::1 was made",
        consequence: "both families are intercepted")
    }
    let cause =
      failure == Errno(EAFNOSUPPORT)
      ? "the kernel has no IPv6"
      : "IPv6 is off here (net.ipv6.conf.*.disable_ipv6), or lo is down"
    return Check(
      name: "IPv6", verdict: .limited, seen: "a connection over ::1 failed: \(failure)",
      consequence: "\(cause); the proxy listens on IPv4 only")
  }

  private static func failure(_ family: IPAddress.Family) -> Errno? {
    do throws(Errno) {
      _ = try LoopbackPair(family)
      return nil
    } catch {
      return error
    }
  }
}
