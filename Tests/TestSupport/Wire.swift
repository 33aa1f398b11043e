/// Protobuf's wire format, written by hand.
package enum Wire {
  package static func field(_ number: Int, _ bytes: some Collection<UInt8>) -> [UInt8] {
    varint(number << 3 | 2) + varint(bytes.count) + bytes
  }

  package static func field(_ number: Int, _ text: String) -> [UInt8] {
    field(number, Array(text.utf8))
  }

  package static func varint(_ value: Int) -> [UInt8] {
    var rest = value
    var bytes: [UInt8] = []
    repeat {
      bytes.append(UInt8(rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
      rest >>= 7
    } while rest > 0
    return bytes
  }

  /// An X509SVID; nil leaves a field out.
  package static func svid(
    id: String? = "spiffe://demo.mesh/ns/shop/sa/web", certificates: [UInt8]? = [1, 2],
    key: [UInt8]? = [3, 4, 5], bundle: [UInt8]? = [6], hint: String? = nil
  ) -> [UInt8] {
    var bytes: [UInt8] = []
    if let id { bytes += field(1, id) }
    if let certificates { bytes += field(2, certificates) }
    if let key { bytes += field(3, key) }
    if let bundle { bytes += field(4, bundle) }
    if let hint { bytes += field(5, hint) }
    return bytes
  }

  /// An X509SVIDResponse.
  package static func svids(
    _ svids: [[UInt8]], crls: [[UInt8]] = [], federated: [(String, [UInt8])] = []
  ) -> [UInt8] {
    svids.flatMap { field(1, $0) } + crls.flatMap { field(2, $0) }
      + federated.flatMap { field(3, entry($0)) }
  }

  /// An X509BundlesResponse.
  package static func bundles(_ bundles: [(String, [UInt8])], crls: [[UInt8]] = []) -> [UInt8] {
    crls.flatMap { field(1, $0) } + bundles.flatMap { field(2, entry($0)) }
  }

  package static func entry(_ entry: (String, [UInt8])) -> [UInt8] {
    field(1, entry.0) + field(2, entry.1)
  }
}
