import CLinux
import Net
import TestSupport
import Testing

/// An end of a TCP connection made by hand over IPv4, whose header options are chosen freely.
final class RawEnd: Sendable {
  struct Segment {
    let header: TCPHeader
    let payload: [UInt8]
  }

  private let descriptor: Descriptor
  private let local: IPAddress
  private let remote: IPAddress
  private let port: UInt16

  /// The kernel, which knows nothing of the port, must not answer from it by itself.
  init(in namespace: Namespace, _ local: String, port: UInt16, to remote: String) throws {
    try namespace.check(
      ["nft", "-f", "-"],
      input: """
        table ip raw_\(port) {
          chain output {
            type filter hook output priority 0;
            tcp sport \(port) tcp flags & rst == rst drop
          }
        }
        """)
    self.local = try #require(IPAddress(local))
    self.remote = try #require(IPAddress(remote))
    self.port = port
    let (localAddress, remoteAddress) = (self.local, self.remote)
    let number = try namespace.enter {
      let number = try Errno.check {
        socket(AF_INET, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), Int32(IPPROTO_TCP))
      }
      var time = timeval(tv_sec: Int(patience), tv_usec: 0)
      try Errno.check {
        unsafe setsockopt(
          number, SOL_SOCKET, SO_RCVTIMEO, &time, socklen_t(MemoryLayout<timeval>.size))
      }
      try Socket.bind(number, to: SocketAddress(localAddress, port: 0))
      try Socket.connect(number, to: SocketAddress(remoteAddress, port: 0))
      return number
    }
    descriptor = Descriptor(owning: number)
  }

  static let syn: UInt8 = 0x02
  static let ack: UInt8 = 0x10

  /// - Parameter options: padded here to whole words.
  func send(
    _ flags: UInt8, to remotePort: UInt16, sequence: UInt32, acknowledging: UInt32 = 0,
    options: [UInt8] = [], payload: String = ""
  ) throws {
    let options = options + [UInt8](repeating: 1, count: (4 - options.count % 4) % 4)
    var bytes = Self.big(port) + Self.big(remotePort) + Self.big(sequence)
    bytes += Self.big(acknowledging)
    bytes += [UInt8((20 + options.count) / 4) << 4, flags] + Self.big(UInt16(64_000))
    bytes += [0, 0, 0, 0] + options + Array(payload.utf8)
    let pseudoHeader = local.bytes + remote.bytes + [0, 6] + Self.big(UInt16(bytes.count))
    bytes.replaceSubrange(16..<18, with: Self.big(Self.checksum(pseudoHeader + bytes)))
    let (number, segment) = (descriptor.number, bytes)
    try Errno.check { unsafe CLinux.send(number, segment, segment.count, 0) }
  }

  /// The next segment to this end that `matches`.
  func receive(where matches: (Segment) -> Bool) throws -> Segment {
    while true {
      var packet = [UInt8](repeating: 0, count: 2048)
      let number = descriptor.number
      let count = try Errno.check { unsafe recv(number, &packet, packet.count, 0) }
      let start = Int(packet[0] & 0xf) * 4
      let end = start + Int(packet[start + 12] >> 4) * 4
      guard let header = TCPHeader(packet[start..<end]), header.destinationPort == port
      else { continue }
      let segment = Segment(header: header, payload: Array(packet[end..<count]))
      if matches(segment) { return segment }
    }
  }

  private static func big<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
    (0..<Number.bitWidth / 8).reversed().map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
  }

  /// RFC 1071.
  private static func checksum(_ bytes: [UInt8]) -> UInt16 {
    let padded = bytes.count % 2 == 0 ? bytes : bytes + [0]
    var sum = stride(from: 0, to: padded.count, by: 2).reduce(UInt32(0)) {
      $0 + UInt32(padded[$1]) << 8 + UInt32(padded[$1 + 1])
    }
    while sum > 0xffff { sum = (sum & 0xffff) + sum >> 16 }
    return ~UInt16(sum)
  }
}
