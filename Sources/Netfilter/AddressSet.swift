package import Net

/// Addresses of one family as sorted, merged, closed ranges.
package struct AddressSet: Hashable, Sendable {
  package let family: IPAddress.Family
  /// Address numbers as in `IPAddress.bits`.
  package let ranges: [ClosedRange<UInt128>]

  /// Of the list only the ranges of `family` count.
  package init(_ family: IPAddress.Family, _ list: [CIDR]) {
    let ranges = list.filter { $0.address.family == family }.map { range in
      let hosts = ~CIDR.mask(family, range.prefixLength) & CIDR.mask(family, family.bitCount)
      return range.address.bits...(range.address.bits | hosts)
    }
    self.init(family, ranges: ranges)
  }

  init(_ family: IPAddress.Family, ranges: [ClosedRange<UInt128>]) {
    self.family = family
    var merged: [ClosedRange<UInt128>] = []
    for range in ranges.sorted(by: { $0.lowerBound < $1.lowerBound }) {
      guard let last = merged.last,
        range.lowerBound <= last.upperBound &+ 1 || last.upperBound == .max
      else {
        merged.append(range)
        continue
      }
      merged[merged.count - 1] = last.lowerBound...max(last.upperBound, range.upperBound)
    }
    self.ranges = merged
  }

  package var isEmpty: Bool { ranges.isEmpty }

  package func contains(_ address: IPAddress) -> Bool {
    address.family == family && ranges.contains { $0.contains(address.bits) }
  }

  func address(_ bits: UInt128) -> IPAddress {
    family == .v4 ? IPAddress(v4: UInt32(truncatingIfNeeded: bits)) : IPAddress(v6: bits)
  }
}
