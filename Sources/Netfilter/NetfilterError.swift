package import Net

/// Why culvert-init could not do what it was asked; the text is one line that says what to do.
package enum NetfilterError: Error, Hashable, Sendable, CustomStringConvertible {
  case notPrivileged
  case noNFTables(Errno)
  /// The kernel refused part of the rules; none of them is in place.
  case refused(String, Errno)
  case foreignTable
  case loopbackDown(Errno)
  case namespace(String, Errno)
  case cannotDestroyConnections
  /// The rules are in place, but connections older than them could not be closed.
  case connectionsLeft(Int)
  /// No address is routed from here and redirected.
  case cannotProbe
  case netlink(String, Errno)

  package var description: String {
    switch self {
    case .notPrivileged:
      "not privileged: run as root, or with CAP_NET_ADMIN (and CAP_SYS_ADMIN for --netns)"
    case .noNFTables(let errno):
      "no nf_tables in this kernel (\(errno)): load the module nf_tables, or use a kernel with "
        + "CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET"
    case .refused(let what, let errno):
      "the kernel refused \(what) (\(errno)); nothing was installed: it needs CONFIG_NF_TABLES_INET, "
        + "CONFIG_NFT_NAT, CONFIG_NFT_REDIR, CONFIG_NFT_CT and CONFIG_NFT_FIB_INET"
    case .foreignTable:
      "a table inet \(Table.name) that culvert-init did not make exists: rename it, or delete it "
        + "with: nft delete table inet \(Table.name)"
    case .loopbackDown(let errno):
      "lo is down and cannot be raised (\(errno)): run: ip link set lo up"
    case .namespace(let name, let errno):
      "cannot enter the network namespace \(name) (\(errno)): name one that ip netns lists, or a "
        + "path such as /proc/PID/ns/net"
    case .cannotDestroyConnections:
      "this kernel cannot close connections (CONFIG_INET_DIAG_DESTROY is off): close those older "
        + "than the rules yourself and pass --keep-connections"
    case .connectionsLeft(let count):
      "\(count) connections could not be closed: stop the programs that hold them and run this again"
    case .cannotProbe:
      "cannot probe: no destination has a route from here and is redirected for this user; use "
        + "--rules-only"
    case .netlink(let what, let errno):
      "\(what): \(errno)"
    }
  }
}
