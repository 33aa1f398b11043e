/// The name of a SPIFFE trust domain, for example `demo.mesh` (SPIFFE-ID §2.1).
///
/// Lower-case letters, digits, `.`, `-` and `_`, 1…255 bytes. A name that looks like an IP address
/// or a DNS name gets no special handling.
package struct TrustDomain: Hashable, Sendable, Comparable, CustomStringConvertible {
  package static let maximumBytes = 255

  package let name: String

  package init(_ name: String) throws(SPIFFEIDError) {
    guard !name.isEmpty else { throw .emptyTrustDomain }
    guard name.utf8.count <= Self.maximumBytes else { throw .trustDomainTooLong }
    guard name.utf8.allSatisfy(Self.isAllowed) else { throw .invalidTrustDomain }
    self.name = name
  }

  package var description: String { name }

  package static func < (left: TrustDomain, right: TrustDomain) -> Bool { left.name < right.name }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
      UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
