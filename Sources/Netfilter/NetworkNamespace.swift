internal import CLinux
internal import Net

/// The network namespace this thread is in.
package enum NetworkNamespace {
  /// CLONE_NEWNET (linux/sched.h): refuse a file that is another kind of namespace.
  private static let cloneNewNetwork: Int32 = 0x4000_0000

  /// Enters a namespace by its name (`ip netns`, a file in /run/netns) or by a path.
  package static func enter(_ name: String) throws(NetfilterError) {
    let path = name.utf8.contains(UInt8(ascii: "/")) ? name : "/run/netns/\(name)"
    do throws(Errno) {
      let file = Descriptor(
        owning: try Errno.check { unsafe culvert_open(path, O_RDONLY | O_CLOEXEC, 0) })
      try Errno.check { culvert_setns(file.number, cloneNewNetwork) }
    } catch {
      if error == .notPermitted { throw .notPrivileged }
      throw .namespace(name, error)
    }
  }

  /// Raises `lo` if it is down: redirected connections reach the proxy by it.
  static func raiseLoopback() throws(NetfilterError) {
    do throws(Errno) {
      let socket = try Socket.stream(.v4)
      var request = unsafe ifreq()
      unsafe withUnsafeMutableBytes(of: &request.ifr_ifrn) { name in
        unsafe name.copyBytes(from: Array("lo".utf8))
      }
      try Errno.check { unsafe culvert_ioctl(socket.number, UInt(SIOCGIFFLAGS), &request) }
      guard unsafe request.ifr_ifru.ifru_flags & Int16(IFF_UP) == 0 else { return }
      unsafe request.ifr_ifru.ifru_flags |= Int16(IFF_UP)
      try Errno.check { unsafe culvert_ioctl(socket.number, UInt(SIOCSIFFLAGS), &request) }
    } catch {
      throw .loopbackDown(error)
    }
  }

  /// The namespace's addresses, each with the interface that has it.
  static func addresses() throws(NetfilterError) -> [IPAddress: String] {
    var first: UnsafeMutablePointer<ifaddrs>?
    do throws(Errno) {
      try Errno.check { unsafe getifaddrs(&first) }
    } catch {
      throw .netlink("cannot list addresses", error)
    }
    defer { unsafe freeifaddrs(first) }
    var result: [IPAddress: String] = [:]
    var next = unsafe first
    while let entry = unsafe next?.pointee {
      unsafe next = entry.ifa_next
      guard let address = unsafe entry.ifa_addr else { continue }
      let length =
        switch unsafe Int32(address.pointee.sa_family) {
        case AF_INET: MemoryLayout<sockaddr_in>.size
        case AF_INET6: MemoryLayout<sockaddr_in6>.size
        default: 0
        }
      guard length > 0 else { continue }
      var storage = sockaddr_storage()
      unsafe withUnsafeMutableBytes(of: &storage) {
        unsafe $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: length))
      }
      if let found = SocketAddress(storage) {
        result[found.address] = unsafe String(cString: entry.ifa_name)
      }
    }
    return result
  }
}
