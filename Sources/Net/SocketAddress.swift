package import CLinux
internal import Glibc

/// Where a TCP connection starts or ends: address, port and, for link-local IPv6, the interface.
package struct SocketAddress: Hashable, Sendable, CustomStringConvertible {
  package let address: IPAddress
  package let port: UInt16
  /// Interface index of a link-local IPv6 address (`sin6_scope_id`); 0 otherwise.
  package let scopeID: UInt32

  package init(_ address: IPAddress, port: UInt16, scopeID: UInt32 = 0) {
    self.address = address
    self.port = port
    self.scopeID = scopeID
  }

  /// `10.0.0.1:80` or `[fd00::1]:80`.
  package var description: String {
    switch address.family {
    case .v4: "\(address):\(port)"
    case .v6: scopeID == 0 ? "[\(address)]:\(port)" : "[\(address)%\(scopeID)]:\(port)"
    }
  }
}

extension SocketAddress {
  /// Reads `IP:PORT`, IPv6 in brackets, port 1 to 65535; no name and no interface.
  package init?(_ text: String) {
    guard let colon = text.utf8.lastIndex(of: UInt8(ascii: ":")) else { return nil }
    let digits = text.utf8[text.utf8.index(after: colon)...]
    var host = text.utf8[..<colon]
    let isBracketed = host.first == UInt8(ascii: "[") && host.last == UInt8(ascii: "]")
    if isBracketed { host = host.dropFirst().dropLast() }
    guard host.contains(UInt8(ascii: ":")) == isBracketed,
      let address = IPAddress(String(Substring(host))),
      digits.allSatisfy({ (48...57).contains($0) }), digits.first != UInt8(ascii: "0"),
      let port = UInt16(Substring(digits))
    else { return nil }
    self.init(address, port: port)
  }

  /// Reads what the kernel wrote: AF_INET or AF_INET6, v4-mapped becoming IPv4; nil for others.
  package init?(_ storage: borrowing sockaddr_storage) {
    let copy = copy storage
    switch Int32(copy.ss_family) {
    case AF_INET:
      let inet = unsafe withUnsafeBytes(of: copy) { unsafe $0.load(as: sockaddr_in.self) }
      self.init(
        IPAddress(v4: UInt32(bigEndian: inet.sin_addr.s_addr)),
        port: UInt16(bigEndian: inet.sin_port)
      )
    case AF_INET6:
      let inet6 = unsafe withUnsafeBytes(of: copy) { unsafe $0.load(as: sockaddr_in6.self) }
      let bits = unsafe withUnsafeBytes(of: inet6.sin6_addr) {
        unsafe $0.loadUnaligned(as: UInt128.self)
      }
      let address = IPAddress(v6: UInt128(bigEndian: bits))
      self.init(
        address, port: UInt16(bigEndian: inet6.sin6_port),
        scopeID: address.isLinkLocalV6 ? inet6.sin6_scope_id : 0)
    default:
      return nil
    }
  }

  /// The kernel's form, and how many of its bytes count.
  package var storage: (sockaddr_storage, socklen_t) {
    var storage = sockaddr_storage()
    switch address.family {
    case .v4:
      var inet = sockaddr_in()
      inet.sin_family = sa_family_t(AF_INET)
      inet.sin_port = port.bigEndian
      inet.sin_addr.s_addr = UInt32(truncatingIfNeeded: address.bits).bigEndian
      unsafe withUnsafeMutableBytes(of: &storage) {
        unsafe $0.storeBytes(of: inet, as: sockaddr_in.self)
      }
      return (storage, socklen_t(MemoryLayout<sockaddr_in>.size))
    case .v6:
      var inet6 = sockaddr_in6()
      inet6.sin6_family = sa_family_t(AF_INET6)
      inet6.sin6_port = port.bigEndian
      inet6.sin6_scope_id = scopeID
      unsafe withUnsafeMutableBytes(of: &inet6.sin6_addr) {
        unsafe $0.storeBytes(of: address.bits.bigEndian, as: UInt128.self)
      }
      unsafe withUnsafeMutableBytes(of: &storage) {
        unsafe $0.storeBytes(of: inet6, as: sockaddr_in6.self)
      }
      return (storage, socklen_t(MemoryLayout<sockaddr_in6>.size))
    }
  }
}
