/// An IPv4 or IPv6 address, without port or zone.
///
/// An IPv4-mapped IPv6 address (`::ffff:a.b.c.d`, RFC 4291 §2.5.5.2) is always held as the IPv4
/// address it stands for, so that a rule for one form cannot be passed by using the other.
package struct IPAddress: Hashable, Sendable {
  package enum Family: Hashable, Sendable {
    case v4, v6

    /// Bits in an address: 32 or 128.
    package var bitCount: Int { self == .v4 ? 32 : 128 }
  }

  package let family: Family
  /// The address as a number, big-endian order of its bytes; IPv4 uses the low 32 bits.
  package let bits: UInt128

  package init(v4 bits: UInt32) {
    family = .v4
    self.bits = UInt128(bits)
  }

  package init(v6 bits: UInt128) {
    let isMapped = bits >> 32 == 0xffff
    family = isMapped ? .v4 : .v6
    self.bits = isMapped ? bits & 0xffff_ffff : bits
  }

  package static let anyV4 = IPAddress(v4: 0)
  package static let anyV6 = IPAddress(v6: 0)
  package static let loopbackV4 = IPAddress(v4: 0x7f00_0001)
  package static let loopbackV6 = IPAddress(v6: 1)

  /// 127.0.0.0/8 or ::1.
  package var isLoopback: Bool {
    family == .v4 ? bits >> 24 == 127 : self == .loopbackV6
  }

  /// 0.0.0.0 or ::.
  package var isUnspecified: Bool { bits == 0 }

  /// fe80::/10 (RFC 4291 §2.5.6): meaningful only together with an interface.
  package var isLinkLocalV6: Bool { family == .v6 && bits >> 118 == 0x3fa }

  /// The bytes in network order: 4 or 16.
  package var bytes: [UInt8] {
    stride(from: family.bitCount - 8, through: 0, by: -8).map { shift in
      UInt8(truncatingIfNeeded: bits >> UInt128(shift))
    }
  }
}

extension IPAddress: CustomStringConvertible, LosslessStringConvertible {
  /// Reads dotted-decimal IPv4 or RFC 4291 IPv6 text; no zone, no brackets, no shortened IPv4.
  package init?(_ text: String) {
    if text.utf8.contains(UInt8(ascii: ":")) {
      guard let bits = Self.parseV6(Substring(text)) else { return nil }
      self.init(v6: bits)
    } else {
      guard let bits = Self.parseV4(Substring(text)) else { return nil }
      self.init(v4: bits)
    }
  }

  /// Dotted decimal, or RFC 5952 text.
  package var description: String {
    family == .v4 ? Self.format(v4: UInt32(truncatingIfNeeded: bits)) : Self.format(v6: bits)
  }

  private static func parseV4(_ text: Substring) -> UInt32? {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var bits: UInt32 = 0
    for part in parts {
      guard (1...3).contains(part.utf8.count), part.utf8.allSatisfy({ (48...57).contains($0) }),
        part.utf8.count == 1 || part.utf8.first != UInt8(ascii: "0"), let octet = UInt8(part)
      else { return nil }
      bits = bits << 8 | UInt32(octet)
    }
    return bits
  }

  private static func parseV6(_ text: Substring) -> UInt128? {
    let halves = text.split(separator: "::", maxSplits: 2, omittingEmptySubsequences: false)
    guard halves.count <= 2 else { return nil }
    guard let head = groups(halves[0], mayEndInV4: halves.count == 1) else { return nil }
    guard halves.count == 2 else { return head.count == 8 ? join(head) : nil }
    guard let tail = groups(halves[1], mayEndInV4: true) else { return nil }
    let missing = 8 - head.count - tail.count
    guard missing >= 1 else { return nil }
    return join(head + [UInt16](repeating: 0, count: missing) + tail)
  }

  private static func groups(_ text: Substring, mayEndInV4: Bool) -> [UInt16]? {
    if text.isEmpty { return [] }
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    var result: [UInt16] = []
    for (index, part) in parts.enumerated() {
      if mayEndInV4, index == parts.count - 1, part.utf8.contains(UInt8(ascii: ".")) {
        guard let bits = parseV4(part) else { return nil }
        result += [UInt16(bits >> 16), UInt16(truncatingIfNeeded: bits)]
        continue
      }
      // `UInt16` would take a sign as well.
      guard (1...4).contains(part.utf8.count), part.allSatisfy(\.isHexDigit),
        let group = UInt16(part, radix: 16)
      else { return nil }
      result.append(group)
    }
    return result.count <= 8 ? result : nil
  }

  private static func join(_ groups: [UInt16]) -> UInt128 {
    groups.reduce(0) { $0 << 16 | UInt128($1) }
  }

  private static func format(v4 bits: UInt32) -> String {
    "\(bits >> 24).\(bits >> 16 & 255).\(bits >> 8 & 255).\(bits & 255)"
  }

  /// RFC 5952: lower case, no leading zeros, the longest run of two or more zero groups as `::`.
  private static func format(v6 bits: UInt128) -> String {
    let groups = stride(from: 112, through: 0, by: -16).map {
      UInt16(truncatingIfNeeded: bits >> UInt128($0))
    }
    var best = 0..<0
    var start = 0
    while start < 8 {
      var end = start
      while end < 8, groups[end] == 0 { end += 1 }
      if end - start >= 2, end - start > best.count { best = start..<end }
      start = max(end, start + 1)
    }
    func text(_ range: Range<Int>) -> String {
      groups[range].map { String($0, radix: 16) }.joined(separator: ":")
    }
    return best.isEmpty ? text(0..<8) : text(0..<best.lowerBound) + "::" + text(best.upperBound..<8)
  }
}
