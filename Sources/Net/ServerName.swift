/// What a server is called by who connects to it, and what its certificate must say.
package enum ServerName: Hashable, Sendable, CustomStringConvertible {
  /// In lower case, without the final dot.
  case name(String)
  case address(IPAddress)

  /// Of a DNS name (RFC 1035 §2.3.4, as text without the final dot).
  package static let maximumBytes = 253
  static let maximumLabelBytes = 63

  /// Reads a DNS name or an address without brackets; nil if it is neither. What ends in a number is
  /// no name (RFC 1123 §2.1), and a resolver may read `127.1` or `0x7f.1` as an address.
  package init?(_ text: String) {
    if let address = IPAddress(text) {
      self = .address(address)
      return
    }
    // Of other letters some become ASCII in lower case.
    guard (1...Self.maximumBytes).contains(text.utf8.count), text.utf8.allSatisfy({ $0 < 0x80 })
    else { return nil }
    let name = text.lowercased()
    let labels = name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false)
    for label in labels {
      guard (1...Self.maximumLabelBytes).contains(label.count), label.allSatisfy(Self.isAllowed),
        label.first != UInt8(ascii: "-"), label.last != UInt8(ascii: "-")
      else { return nil }
    }
    let last = labels.last?.first ?? 0
    guard !(UInt8(ascii: "0")...UInt8(ascii: "9")).contains(last) else { return nil }
    self = .name(name)
  }

  package var description: String {
    switch self {
    case .name(let name): name
    case .address(let address): address.description
    }
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
      UInt8(ascii: "-"), UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
