import Net
import Testing

@Suite struct IPAddressTests {
  /// RFC 5952 §4 and §5: the one way to write an address.
  static let canonical = [
    ("::", "::"), ("::1", "::1"), ("1::", "1::"), ("0:0:0:0:0:0:0:1", "::1"),
    ("2001:0db8::0001", "2001:db8::1"),
    ("2001:db8:0:0:0:0:2:1", "2001:db8::2:1"),
    // A single zero group is not shortened.
    ("2001:db8::1:1:1:1:1", "2001:db8:0:1:1:1:1:1"),
    // The longest run is, and the first of two equally long ones.
    ("2001:0:0:1:0:0:0:1", "2001:0:0:1::1"),
    ("2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
    ("1:0:0:2:3:4:0:0", "1::2:3:4:0:0"),
    ("2001:DB8::ABCD", "2001:db8::abcd"),
    ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
    ("1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"),
    ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
    ("0.0.0.0", "0.0.0.0"), ("255.255.255.255", "255.255.255.255"), ("10.90.0.1", "10.90.0.1"),
  ]

  @Test(arguments: canonical)
  func everyFormReadsAndIsWrittenOneWay(text: String, canonical: String) throws {
    let address = try #require(IPAddress(text))
    #expect(address.description == canonical)
    #expect(IPAddress(canonical) == address)
  }

  @Test(arguments: [
    "", " ", "1", "1.2.3", "1.2.3.4.5", "1.2.3.256", "01.2.3.4", "1.2.3.4 ", "1.2.3.-4", "+1.2.3.4",
    "1..2.3", "0x1.2.3.4", "1.2.3.4/8", ":", ":::", "1::2::3", "::1::", "1:2:3:4:5:6:7",
    "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7:8::", "::12345", "::g", "::+1", "::-1", "::-0", "::+0",
    ":1::2", "1:",
    "::1%lo",
    "[::1]", "1.2.3.4::", "::1.2.3.4:5", "::1.2.3", "::1.2.3.4.5", "1:2:3:4:5:6:7:1.2.3.4", "::1\0",
    "٣.1.1.1", "::١",
  ])
  func nothingElseIsAnAddress(text: String) { #expect(IPAddress(text) == nil) }

  @Test func aV4MappedAddressIsTheIPv4Address() throws {
    let mapped = try #require(IPAddress("::ffff:10.0.0.1"))
    #expect(mapped == IPAddress("10.0.0.1"))
    #expect(mapped.family == .v4)
    #expect(IPAddress("::ffff:a00:1") == mapped)
    #expect(mapped.description == "10.0.0.1")
    #expect(mapped.bytes == [10, 0, 0, 1])
    // The deprecated v4-compatible form is not.
    #expect(IPAddress("::10.0.0.1")?.family == .v6)
  }

  @Test func loopbackUnspecifiedAndLinkLocalAreKnown() {
    #expect(IPAddress("127.255.0.1")?.isLoopback == true)
    #expect(IPAddress("128.0.0.1")?.isLoopback == false)
    #expect(IPAddress("::1")?.isLoopback == true)
    #expect(IPAddress("::ffff:127.0.0.1")?.isLoopback == true)
    #expect(IPAddress("::2")?.isLoopback == false)
    #expect(IPAddress.anyV4.isUnspecified && IPAddress.anyV6.isUnspecified)
    #expect(IPAddress.loopbackV6.isUnspecified == false)
    #expect(IPAddress("fe80::1")?.isLinkLocalV6 == true)
    #expect(IPAddress("febf:ffff::1")?.isLinkLocalV6 == true)
    #expect(IPAddress("fec0::1")?.isLinkLocalV6 == false)
  }

  @Test func bytesAreInNetworkOrder() {
    #expect(IPAddress("1.2.3.4")?.bytes == [1, 2, 3, 4])
    #expect(IPAddress("102::f")?.bytes == [1, 2] + [UInt8](repeating: 0, count: 13) + [15])
  }
}

@Suite struct CIDRTests {
  @Test(arguments: [
    ("10.90.0.0/24", "10.90.0.0/24"), ("0.0.0.0/0", "0.0.0.0/0"), ("::/0", "::/0"),
    ("10.0.0.1", "10.0.0.1/32"), ("fd00::1", "fd00::1/128"), ("fd00::/8", "fd00::/8"),
    ("::ffff:10.0.0.1", "10.0.0.1/32"),
  ])
  func rangesAreReadAndWritten(text: String, canonical: String) {
    #expect(CIDR(text)?.description == canonical)
  }

  @Test(arguments: [
    "", "/", "10.0.0.0/", "10.0.0.0/33", "fd00::/129", "10.0.0.1/24", "fd00::1/64", "10.0.0.0/-1",
    "10.0.0.0/+8", "10.0.0.0/8/8", "10.0.0.0/ 8", "/8", "10.0.0.0/1000", "::ffff:10.0.0.0/104",
  ])
  func nothingElseIsARange(text: String) { #expect(CIDR(text) == nil) }

  @Test(arguments: [
    ("10.90.0.0/24", "10.90.0.255", true), ("10.90.0.0/24", "10.90.1.0", false),
    ("0.0.0.0/0", "203.0.113.9", true), ("0.0.0.0/0", "::1", false), ("::/0", "10.0.0.1", false),
    ("::/0", "fd00::1", true), ("10.0.0.0/8", "::ffff:10.1.2.3", true),
    ("fd00::/8", "fdff::", true),
    ("fd00::/8", "fe00::", false), ("10.0.0.1", "10.0.0.1", true), ("10.0.0.1", "10.0.0.2", false),
    ("128.0.0.0/1", "127.255.255.255", false), ("128.0.0.0/1", "128.0.0.0", true),
  ])
  func aRangeHoldsItsAddressesOnly(range: String, address: String, holds: Bool) throws {
    let range = try #require(CIDR(range))
    let address = try #require(IPAddress(address))
    #expect(range.contains(address) == holds)
  }
}
