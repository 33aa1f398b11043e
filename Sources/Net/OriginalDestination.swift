internal import CLinux

extension Socket {
  /// Where a redirected connection was going before the nftables `redirect` changed it.
  ///
  /// The socket option's level follows the packet's family, which on an IPv6 socket may be IPv4
  /// (v4-mapped). A connection made straight to the listener answers with the listener's own
  /// address; without any NAT rule in the namespace the kernel answers ENOENT
  /// (net/netfilter/nf_conntrack_proto.c `getorigdst`, `ipv6_getorigdst`).
  package static func originalDestination(
    _ descriptor: Int32, family: IPAddress.Family
  ) throws(Errno) -> SocketAddress {
    unsafe try address { pointer, length in
      switch family {
      case .v4:
        unsafe getsockopt(
          descriptor, Int32(IPPROTO_IP), culvert_SO_ORIGINAL_DST, pointer, length)
      case .v6:
        unsafe getsockopt(
          descriptor, Int32(IPPROTO_IPV6), culvert_IP6T_SO_ORIGINAL_DST, pointer, length)
      }
    }
  }
}
