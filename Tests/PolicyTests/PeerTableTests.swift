import Identity
import Net
import Policy
import Testing

/// SplitMix64, so that a failure's seed repeats it.
struct Seeded: RandomNumberGenerator {
  private var state: UInt64

  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ mixed >> 30) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ mixed >> 27) &* 0x94d0_49bb_1331_11eb
    return mixed ^ mixed >> 31
  }
}

@Suite struct `The peer table` {
  /// Reads the list from end to end: of the ranges that hold the address the longest, and of equal
  /// ones the last.
  private static func reference(_ peers: [Peer], _ address: IPAddress) -> Peer.Kind? {
    var best: Peer?
    for peer in peers where peer.address.contains(address) {
      if peer.address.prefixLength >= best?.address.prefixLength ?? 0 { best = peer }
    }
    return best?.kind
  }

  private static func address(
    _ family: IPAddress.Family, _ bits: UInt128
  ) -> IPAddress {
    family == .v4 ? IPAddress(v4: UInt32(truncatingIfNeeded: bits)) : IPAddress(v6: bits)
  }

  /// Few bits vary, at the top, the middle and the end: ranges overlap and addresses hit.
  private static func bits(
    _ family: IPAddress.Family, _ random: inout Seeded
  ) -> UInt128 {
    let width = family.bitCount
    var bits: UInt128 = 0
    for position in [0, 1, width / 2, width / 2 + 1, width - 2, width - 1] {
      if Bool.random(using: &random) { bits |= 1 << UInt128(position) }
    }
    return bits
  }

  private static func peer(_ number: Int, _ random: inout Seeded) throws -> Peer {
    let family: IPAddress.Family = Bool.random(using: &random) ? .v4 : .v6
    let length = Int.random(in: 0...family.bitCount, using: &random)
    let bits = bits(family, &random) & CIDR.mask(family, length)
    let range = try #require(CIDR(address(family, bits), prefixLength: length))
    let kinds: [Peer.Kind] = [
      .notMesh, .mesh(nil), .mesh(try SPIFFEID("spiffe://demo.mesh/workload/\(number)")),
    ]
    return Peer(address: range, kind: kinds[number % kinds.count])
  }

  @Test(arguments: 0..<40 as Range<UInt64>)
  func `finds what a look at every entry finds`(seed: UInt64) throws {
    var random = Seeded(seed)
    let peers = try (0..<Int.random(in: 0...60, using: &random)).map {
      try Self.peer($0, &random)
    }
    let table = PeerTable(peers)
    #expect(table.count == Set(peers.map(\.address)).count)
    var found = 0
    for _ in 0..<500 {
      let family: IPAddress.Family = Bool.random(using: &random) ? .v4 : .v6
      let address = Self.address(family, Self.bits(family, &random))
      let kind = table.find(address)
      #expect(kind == Self.reference(peers, address), "\(address)")
      if kind != nil { found += 1 }
    }
    #expect(found > 0 || peers.count < 10, "the addresses hit nothing")
  }

  @Test func `tells the families apart`() throws {
    let all = [Peer(address: .allV4, kind: .notMesh), Peer(address: .allV6, kind: .mesh(nil))]
    let table = PeerTable(all)
    #expect(table.find(try #require(IPAddress("0.0.0.1"))) == .notMesh)
    #expect(table.find(try #require(IPAddress("::1"))) == .mesh(nil))
    #expect(PeerTable([all[0]]).find(try #require(IPAddress("::1"))) == nil)
    // An address in both notations is one.
    #expect(PeerTable([all[0]]).find(try #require(IPAddress("::ffff:10.0.0.1"))) == .notMesh)
  }

  @Test func `of two entries for a range takes the later`() throws {
    let range = try #require(CIDR("10.0.0.0/8"))
    let table = PeerTable([
      Peer(address: range, kind: .notMesh), Peer(address: range, kind: .mesh(nil)),
    ])
    #expect(table.count == 1)
    #expect(table.find(try #require(IPAddress("10.1.2.3"))) == .mesh(nil))
  }
}
