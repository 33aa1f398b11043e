internal import CLinux
internal import Control
internal import DataPlane

enum LimitChecks {
  static func all(connections: Int) -> [Check] {
    var checks = [descriptors(connections: connections)]
    if let backlog = SystemFile.integer("/proc/sys/net/core/somaxconn") {
      checks.append(listenBacklog(maximum: backlog))
    }
    if let range = SystemFile.integers("/proc/sys/net/ipv4/ip_local_port_range"), range.count == 2 {
      checks.append(localPorts(range[0], range[1], connections: connections))
    }
    // Absent until something in the namespace asks for connection tracking.
    if let maximum = SystemFile.integer("/proc/sys/net/netfilter/nf_conntrack_max") {
      checks.append(tracking(maximum: maximum, connections: connections))
    }
    return checks
  }

  /// Raises the limit as the proxy does at its start; it ends with this process.
  private static func descriptors(connections: Int) -> Check {
    var before = rlimit()
    _ = unsafe getrlimit(Int32(RLIMIT_NOFILE.rawValue), &before)
    let room = Privileges.makeRoom(forConnections: connections)
    return descriptors(
      soft: UInt64(before.rlim_cur), hard: UInt64(before.rlim_max),
      ceiling: SystemFile.integer("/proc/sys/fs/nr_open"), room: room, connections: connections)
  }

  /// - Parameters:
  ///   - soft: RLIMIT_NOFILE as found, and `hard` likewise.
  ///   - ceiling: `fs.nr_open`, above which no limit may be raised.
  ///   - room: connections that fit once it is raised as far as allowed.
  static func descriptors(
    soft: UInt64, hard: UInt64, ceiling: Int?, room: Int, connections: Int
  ) -> Check {
    let seen =
      "RLIMIT_NOFILE is \(number(soft)), hard \(number(hard)); "
      + "raised as the proxy does it has room for \(room) connections"
    guard room < connections else {
      return Check(
        name: "limits: descriptors", verdict: .found, seen: seen,
        consequence: "room for all \(connections) connections")
    }
    let needed = Privileges.descriptors(forConnections: connections)
    let first = ceiling.map { $0 < needed } ?? false ? "sysctl -w fs.nr_open=\(needed), then " : ""
    return Check(
      name: "limits: descriptors", verdict: .limited, seen: seen,
      consequence: "beyond \(room) connections new ones are reset; for \(connections): \(first)"
        + "raise the hard limit to \(needed) (LimitNOFILE=), or give the proxy CAP_SYS_RESOURCE")
  }

  static func listenBacklog(maximum: Int) -> Check {
    let wanted = DataPlane.listenBacklog
    let isEnough = maximum >= wanted
    return Check(
      name: "limits: listen backlog", verdict: isEnough ? .found : .limited,
      seen: "net.core.somaxconn is \(maximum)",
      consequence: isEnough
        ? "listeners queue \(wanted) connections each"
        : "a burst of more than \(maximum) new connections is slowed; "
          + "run: sysctl -w net.core.somaxconn=\(wanted)")
  }

  static func localPorts(_ first: Int, _ last: Int, connections: Int) -> Check {
    let count = max(0, last - first + 1)
    let isEnough = count >= connections
    return Check(
      name: "limits: local ports", verdict: isEnough ? .found : .limited,
      seen: "net.ipv4.ip_local_port_range is \(first) to \(last)",
      consequence: "at most \(count) connections at once to one destination address and port"
        + (isEnough
          ? "" : "; run: sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\""))
  }

  /// An intercepted connection is tracked twice: the application's, and the proxy's.
  static func tracking(maximum: Int, connections: Int) -> Check {
    let isEnough = maximum / 2 >= connections
    return Check(
      name: "limits: connection tracking", verdict: isEnough ? .found : .limited,
      seen: "net.netfilter.nf_conntrack_max is \(maximum)",
      consequence: isEnough
        ? "room for \(maximum / 2) intercepted connections, less what else is tracked"
        : "beyond \(maximum / 2) intercepted connections packets are dropped; in the initial "
          + "namespace run: sysctl -w net.netfilter.nf_conntrack_max=\(2 * connections)")
  }

  private static func number(_ limit: UInt64) -> String {
    limit == UInt64.max ? "unlimited" : "\(limit)"
  }
}
