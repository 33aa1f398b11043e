/// What a TCP header says (RFC 9293 §3.1), as far as tests ask for it.
package struct TCPHeader: Sendable {
  package let sourcePort: UInt16
  package let destinationPort: UInt16
  package let sequence: UInt32
  package let isSYN: Bool
  package let isACK: Bool
  /// Each option with its kind and length; padding is left out.
  package let options: [[UInt8]]
  /// Of a recorded segment; 0 where only the header was given.
  package internal(set) var payloadByteCount = 0

  /// - Parameter bytes: the header with all its options; nil if they are no header.
  package init?(_ bytes: ArraySlice<UInt8>) {
    let bytes = Array(bytes)
    guard bytes.count >= 20 else { return nil }
    sourcePort = UInt16(bytes[0]) << 8 | UInt16(bytes[1])
    destinationPort = UInt16(bytes[2]) << 8 | UInt16(bytes[3])
    sequence = bytes[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
    isSYN = bytes[13] & 0x02 != 0
    isACK = bytes[13] & 0x10 != 0
    var options: [[UInt8]] = []
    var rest = bytes[20...]
    while let kind = rest.first, kind != 0 {
      if kind == 1 {
        rest = rest.dropFirst()
        continue
      }
      guard rest.count >= 2, let length = rest.dropFirst().first, length >= 2,
        Int(length) <= rest.count
      else { return nil }
      options.append(Array(rest.prefix(Int(length))))
      rest = rest.dropFirst(Int(length))
    }
    self.options = options
  }
}
