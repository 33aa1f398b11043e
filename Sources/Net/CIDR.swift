/// An address range in CIDR form, for example `10.90.0.0/24` or `fd00::/8`.
package struct CIDR: Hashable, Sendable {
  package let address: IPAddress
  /// Leading bits that count: 0…32 or 0…128.
  package let prefixLength: Int

  /// Returns nil if the length does not fit the family or the address has bits beyond the prefix.
  package init?(_ address: IPAddress, prefixLength: Int) {
    guard (0...address.family.bitCount).contains(prefixLength),
      address.bits & ~Self.mask(address.family, prefixLength) == 0
    else { return nil }
    self.address = address
    self.prefixLength = prefixLength
  }

  /// The range that holds just this address.
  package init(_ address: IPAddress) {
    self.address = address
    prefixLength = address.family.bitCount
  }

  /// Every address of a family.
  package static let allV4 = CIDR(any: .anyV4)
  package static let allV6 = CIDR(any: .anyV6)

  private init(any address: IPAddress) {
    self.address = address
    prefixLength = 0
  }

  package func contains(_ other: IPAddress) -> Bool {
    other.family == address.family
      && other.bits & Self.mask(address.family, prefixLength) == address.bits
  }

  /// A mask of `length` leading ones, as wide as an address of the family.
  package static func mask(_ family: IPAddress.Family, _ length: Int) -> UInt128 {
    let width = family.bitCount
    let all: UInt128 = family == .v4 ? 0xffff_ffff : .max
    return length == 0 ? 0 : all << UInt128(width - length) & all
  }
}

extension CIDR: CustomStringConvertible, LosslessStringConvertible {
  /// Reads `ADDRESS` or `ADDRESS/LENGTH`; bits beyond the prefix are an error, not ignored.
  package init?(_ text: String) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let address = IPAddress(String(parts[0])) else { return nil }
    guard parts.count == 2 else {
      self.init(address)
      return
    }
    guard (1...3).contains(parts[1].utf8.count),
      parts[1].utf8.allSatisfy({ (48...57).contains($0) }), let length = Int(parts[1])
    else { return nil }
    self.init(address, prefixLength: length)
  }

  package var description: String { "\(address)/\(prefixLength)" }
}
