internal import CLinux
internal import CNetfilter
internal import Net

/// A TCP socket of the namespace as sock_diag(7) lists it.
struct ListedSocket: Hashable {
  let local: SocketAddress
  let remote: SocketAddress
  let isListening: Bool
  /// Its SYN is not answered yet, so it has sent nothing.
  let isConnecting: Bool
  let user: UInt32
  let mark: UInt32
  /// AF_INET or AF_INET6, and the kernel's own identification, to name the socket to it again.
  fileprivate let family: UInt8
  fileprivate let identification: [UInt8]
}

/// The TCP sockets of the namespace.
struct SocketTable: ~Copyable {
  private var netlink: Netlink

  init() throws(NetfilterError) {
    do {
      netlink = try Netlink(family: NETLINK_SOCK_DIAG)
    } catch {
      throw .netlink("cannot list connections (CONFIG_INET_DIAG)", error)
    }
  }

  /// All but those in TIME_WAIT, which have nothing left to send.
  mutating func list() throws(NetfilterError) -> [ListedSocket] {
    var sockets: [ListedSocket] = []
    for family in [AF_INET, AF_INET6] {
      do throws(Errno) {
        sockets += try netlink.ask(dump: true) { flags, sequence in
          Self.request(
            UInt16(SOCK_DIAG_BY_FAMILY), flags, sequence, family: UInt8(family), nil)
        }.compactMap(Self.socket)
      } catch {
        throw .netlink("cannot list connections (CONFIG_INET_TCP_DIAG)", error)
      }
    }
    return sockets
  }

  /// Closes a socket: its owner reads ECONNABORTED, the other end gets RST. Gone already is fine.
  mutating func destroy(_ socket: ListedSocket) throws(Errno) {
    do throws(Errno) {
      try destroy(family: socket.family, socket.identification)
    } catch {
      guard error == .noEntry else { throw error }
    }
  }

  private mutating func destroy(family: UInt8, _ identification: [UInt8]) throws(Errno) {
    _ = try netlink.ask(dump: false) { flags, sequence in
      Self.request(UInt16(SOCK_DESTROY), flags, sequence, family: family, identification)
    }
  }

  /// Whether the kernel can close sockets at all: asked about one that cannot exist.
  mutating func canDestroy() throws(NetfilterError) -> Bool {
    do throws(Errno) {
      let nothing = [UInt8](repeating: 0, count: MemoryLayout<inet_diag_sockid>.size)
      try destroy(family: UInt8(AF_INET), nothing)
    } catch {
      switch error {
      case .noEntry: return true
      case Errno(EOPNOTSUPP): return false
      case .notPermitted: throw .notPrivileged
      default: throw .netlink("cannot close connections", error)
      }
    }
    return true
  }

  /// `struct nlmsghdr`, then `struct inet_diag_req_v2`.
  private static func request(
    _ type: UInt16, _ flags: UInt16, _ sequence: UInt32, family: UInt8, _ identification: [UInt8]?
  ) -> [UInt8] {
    unsafe netlinkMessage(maximumBytes: 512) { buffer in
      guard let header = unsafe mnl_nlmsg_put_header(buffer),
        let payload = unsafe mnl_nlmsg_put_extra_header(
          header, MemoryLayout<inet_diag_req_v2>.size)
      else { preconditionFailure("libmnl writes into the buffer it was given") }
      unsafe header.pointee.nlmsg_type = type
      unsafe header.pointee.nlmsg_flags = flags
      unsafe header.pointee.nlmsg_seq = sequence
      var request = inet_diag_req_v2()
      request.sdiag_family = family
      request.sdiag_protocol = culvert_IPPROTO_TCP
      // TCPF_ALL without TIME_WAIT (6) and CLOSE (7), include/net/tcp_states.h.
      request.idiag_states = 0xfff & ~(1 << 6) & ~(1 << 7)
      if let id: inet_diag_sockid = identification?.value(at: 0) { request.id = id }
      unsafe payload.storeBytes(of: request, as: inet_diag_req_v2.self)
    }
  }

  // States, include/net/tcp_states.h.
  private static let synSent: UInt8 = 2
  private static let listen: UInt8 = 10

  private static func socket(_ message: [UInt8]) -> ListedSocket? {
    let offset = MemoryLayout<nlmsghdr>.size
    guard let entry: inet_diag_msg = message.value(at: offset),
      entry.idiag_family == UInt8(AF_INET) || entry.idiag_family == UInt8(AF_INET6)
    else { return nil }
    let idOffset = offset + (MemoryLayout<inet_diag_msg>.offset(of: \.id) ?? 0)
    let idBytes = message[idOffset..<idOffset + MemoryLayout<inet_diag_sockid>.size]
    // Two ports in network byte order, then two addresses of 16 bytes each.
    func address(_ start: Int) -> IPAddress {
      let isV4 = entry.idiag_family == UInt8(AF_INET)
      let bytes = idBytes.dropFirst(start).prefix(isV4 ? 4 : 16)
      let bits = bytes.reduce(UInt128(0)) { $0 << 8 | UInt128($1) }
      return isV4 ? IPAddress(v4: UInt32(truncatingIfNeeded: bits)) : IPAddress(v6: bits)
    }
    return ListedSocket(
      local: SocketAddress(address(4), port: UInt16(bigEndian: entry.id.idiag_sport)),
      remote: SocketAddress(address(20), port: UInt16(bigEndian: entry.id.idiag_dport)),
      isListening: entry.idiag_state == listen, isConnecting: entry.idiag_state == synSent,
      user: entry.idiag_uid,
      mark: mark(message, from: offset + MemoryLayout<inet_diag_msg>.size),
      family: entry.idiag_family, identification: Array(idBytes))
  }

  /// INET_DIAG_MARK among the attributes; 0 if the kernel does not tell.
  private static func mark(_ message: [UInt8], from start: Int) -> UInt32 {
    var offset = start
    while let length: UInt16 = message.value(at: offset),
      let type: UInt16 = message.value(at: offset + 2), length >= 4
    {
      if type == UInt16(INET_DIAG_MARK) { return message.value(at: offset + 4) ?? 0 }
      offset += (Int(length) + 3) & ~3
    }
    return 0
  }
}
