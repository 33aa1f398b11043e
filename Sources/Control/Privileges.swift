internal import CLinux
package import Net

/// What the process may do, cut down to what it needs.
package enum Privileges {
  /// Bit of CAP_NET_ADMIN, which SO_MARK needs (capabilities(7)).
  private static let networkAdministration: UInt32 = 12
  private static let lastCapability: UInt32 = 40

  /// Whether the process may mark sockets.
  package static var canMark: Bool {
    var effective: UInt32 = 0
    return unsafe culvert_capget(&effective) == 0 && effective & (1 << networkAdministration) != 0
  }

  /// Keeps CAP_NET_ADMIN and gives up every other capability for good; forbids core dumps and
  /// attaching, since the memory holds keys. Threads started later inherit this.
  package static func drop() throws(Errno) {
    var core = rlimit(rlim_cur: 0, rlim_max: 0)
    try Errno.check { unsafe setrlimit(Int32(RLIMIT_CORE.rawValue), &core) }
    try Errno.check { culvert_prctl(PR_SET_DUMPABLE, 0) }
    try Errno.check { culvert_prctl(PR_SET_NO_NEW_PRIVS, 1) }
    for capability in 0...lastCapability where capability != networkAdministration {
      // EINVAL: a capability this kernel does not know. EPERM: not ours to drop, so not ours.
      _ = culvert_prctl(PR_CAPBSET_DROP, UInt(capability))
    }
    try Errno.check { culvert_capset(1 << networkAdministration) }
  }

  /// What the process holds besides connections: the control thread's files, clients and what a
  /// reload opens, and per worker a ring, an eventfd and six listeners.
  private static func descriptorReserve(workers: Int) -> Int { 64 + 8 * workers }

  /// Descriptors that so many connections need: two sockets each, and the reserve.
  package static func descriptors(
    forConnections count: Int, workers: Int = availableProcessors
  ) -> Int {
    2 * count + descriptorReserve(workers: workers)
  }

  /// Processors this process may run on (sched_getaffinity(2)).
  package static var availableProcessors: Int { max(1, Int(culvert_available_processors())) }

  /// Raises RLIMIT_NOFILE to what so many connections need, as far as that is allowed.
  ///
  /// - Returns: the connections that the limit then has room for.
  package static func makeRoom(
    forConnections count: Int, workers: Int = availableProcessors
  ) -> Int {
    let reserve = descriptorReserve(workers: workers)
    let needed = rlim_t(descriptors(forConnections: count, workers: workers))
    var limit = rlimit()
    guard unsafe getrlimit(Int32(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return count }
    if limit.rlim_cur < needed {
      var wanted = rlimit(rlim_cur: needed, rlim_max: max(needed, limit.rlim_max))
      if unsafe setrlimit(Int32(RLIMIT_NOFILE.rawValue), &wanted) != 0 {
        wanted = rlimit(rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max)
        _ = unsafe setrlimit(Int32(RLIMIT_NOFILE.rawValue), &wanted)
      }
      _ = unsafe getrlimit(Int32(RLIMIT_NOFILE.rawValue), &limit)
    }
    return min(count, max(1, (Int(clamping: limit.rlim_cur) - reserve) / 2))
  }
}
