import Sniff
import Testing

@Suite struct MalformedHellos {
  /// One fault each; the twin without it is `HelloBuilder()`.
  static let faults: [(String, @Sendable (inout HelloBuilder) -> Void)] = [
    ("version 2", { $0.legacyVersion = 0x0203 }),
    ("session ID of 33 bytes", { $0.sessionID.append(1) }),
    ("no cipher suites", { $0.cipherSuites = [] }),
    ("half a cipher suite", { $0.cipherSuites.append(1) }),
    ("no compression methods", { $0.compressionMethods = [] }),
    ("bytes after the extensions", { $0.trailing = [0] }),
    ("two server name lists", { $0.extensions.append($0.extensions[1]) }),
    (
      "two server name lists, none with a host name",
      {
        $0.extensions[1].content = HelloBuilder.vector16([9] + HelloBuilder.vector16([1]))
        $0.extensions.append($0.extensions[1])
      }
    ),
    ("two host names", { $0.extensions[1].content = HelloBuilder.serverName("a.example", "b") }),
    ("empty server name list", { $0.extensions[1].content = [0, 0] }),
    ("empty server name extension", { $0.extensions[1].content = [] }),
    ("empty host name", { $0.extensions[1].content = HelloBuilder.serverName("") }),
    ("host name with a zero", { $0.extensions[1].content = HelloBuilder.serverName("a\0b") }),
    (
      "host name of 256 bytes",
      { $0.extensions[1].content = HelloBuilder.serverName(String(repeating: "a", count: 256)) }
    ),
    ("bytes after the server names", { $0.extensions[1].content.append(0) }),
    ("two protocol lists", { $0.extensions.append($0.extensions[2]) }),
    ("empty protocol list", { $0.extensions[2].content = [0, 0] }),
    ("empty protocol name", { $0.extensions[2].content = HelloBuilder.alpn(["h2", ""]) }),
    ("protocol name cut short", { $0.extensions[2].content = [0, 3, 5, 104, 50] }),
    ("bytes after the protocols", { $0.extensions[2].content.append(0) }),
    ("two version lists", { $0.extensions.append($0.extensions[0]) }),
    ("empty version list", { $0.extensions[0].content = [0] }),
    ("half a version", { $0.extensions[0].content = [3, 3, 4, 3] }),
    ("bytes after the versions", { $0.extensions[0].content.append(0) }),
  ]

  @Test func theTwinWithoutAFaultIsAccepted() throws {
    let hello = try #require(helloIn(HelloBuilder().bytes))
    #expect(hello.serverName == "db.example")
    #expect(hello.offersMesh)
  }

  @Test(arguments: faults.indices)
  func oneFaultIsMalformedHoweverItIsCut(index: Int) {
    let (name, inject) = Self.faults[index]
    var builder = HelloBuilder()
    inject(&builder)
    #expect(verdictOn(builder.bytes) == .malformed, "\(name)")
    let cut = HelloBuilder.records(builder.message, fragmentBytes: 7)
    #expect(verdictOn(cut) == .malformed, "\(name)")
    #expect(verdictsByteByByte(cut).final == .malformed, "\(name)")
  }

  @Test func everyWrongInnerLengthIsMalformedOrAnotherHello() {
    // A message that ends early, its own length corrected, never reads as the same hello.
    let message = HelloBuilder().message
    for count in 4..<message.count {
      let short = HelloBuilder.message(body: Array(message[4..<count]))
      let verdict = verdictOn(HelloBuilder.records(short))
      #expect(verdict == .malformed || helloIn(HelloBuilder.records(short))?.alpn == [])
    }
  }

  @Test func mutationsNeverTrapAndNeverDependOnTheCut() {
    var generator = SplitMix(state: 0x5eed)
    for _ in 0..<4000 {
      var bytes = Capture.all.randomElement(using: &generator) ?? []
      if Bool.random(using: &generator) {
        bytes = HelloBuilder.records(
          Array(bytes.dropFirst(5)), fragmentBytes: .random(in: 1...300, using: &generator))
      }
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let index = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: bytes[index] = .random(in: 0...255, using: &generator)
        case 1: bytes.remove(at: index)
        default: bytes.insert(.random(in: 0...255, using: &generator), at: index)
        }
      }
      let whole = verdictOn(bytes)
      #expect(verdictsByteByByte(bytes).final == whole, "\(bytes)")
    }
  }
}

/// A small generator with a fixed seed, so that a failure repeats.
struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ value >> 30) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ value >> 27) &* 0x94d0_49bb_1331_11eb
    return value ^ value >> 31
  }
}
