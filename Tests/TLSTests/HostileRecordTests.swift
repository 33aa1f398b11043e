import Foundation
import Identity
import Testing

@testable import TLS

/// SplitMix64: the same bytes in every run.
struct Seeded: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  mutating func bytes(_ range: ClosedRange<Int>) -> [UInt8] {
    (0..<Int.random(in: range, using: &self)).map { _ in UInt8(truncatingIfNeeded: next()) }
  }
}

func record(_ type: UInt8, _ body: [UInt8]) -> [UInt8] {
  [type, 3, 3, UInt8(body.count >> 8), UInt8(body.count & 255)] + body
}

@Suite struct HostileRecordTests {
  let mesh = DemoMesh()

  private func bothEnds(_ pair: Pair) -> [End] { [pair.client, pair.server] }

  @Test(arguments: [20, 21, 22, 23, 24, 0, 255] as [UInt8])
  func `garbage after the handshake ends the session, whatever its type`(type: UInt8) throws {
    var random = Seeded(state: UInt64(type))
    for _ in 0..<12 {
      for end in try bothEnds(mesh.connected()) {
        _ = end.feed(record(type, random.bytes(0...400)))
        #expect(end.state.failure != nil)
        #expect(end.received.isEmpty)
        #expect(end.seal([1]) == nil)
      }
    }
  }

  @Test func `garbage in the handshake never establishes anything`() throws {
    var random = Seeded(state: 1)
    for round in 0..<300 {
      let pair = try Pair(client: mesh.web, server: mesh.db)
      let end = bothEnds(pair)[round % 2]
      if round % 2 == 0 { _ = end.start() }
      // A few records: OpenSSL may wait for the rest of a message that began with the first.
      for _ in 0..<4 where end.state.failure == nil {
        let types: [UInt8] = [20, 21, 22, 22, 22, 23, 24, 0, 255]
        let type = types.randomElement(using: &random)!
        _ = end.feed(record(type, random.bytes(0...400)))
      }
      #expect(!end.state.isEstablished)
      #expect(end.session.peer == nil)
    }
  }

  @Test func `a handshake of which one byte is changed is never established at both ends`() throws {
    var random = Seeded(state: 2)
    for round in 0..<200 {
      let pair = try Pair(client: mesh.web, server: mesh.db)
      let spoilt = round % 8
      var count = 0
      var changed = false
      pair.server.inbox += pair.client.start()
      var busy = true
      while busy {
        busy = false
        for (end, other) in [(pair.server, pair.client), (pair.client, pair.server)] {
          guard var next = end.popRecord() else { continue }
          busy = true
          if count == spoilt, next.count > 5 {
            let place = Int.random(in: 5..<next.count, using: &random)
            next[place] ^= UInt8.random(in: 1...255, using: &random)
            changed = true
          }
          count += 1
          other.inbox += end.feed(next)
        }
      }
      #expect(pair.bothEstablished == !changed)
    }
  }

  @Test func `a record changed in one bit is refused and its bytes are not given out`() throws {
    var random = Seeded(state: 3)
    for _ in 0..<64 {
      let pair = try mesh.connected()
      var sealed = try #require(pair.client.seal(Array("integrity".utf8)))
      let place = Int.random(in: 5..<sealed.count, using: &random)
      sealed[place] ^= 1 << Int.random(in: 0..<8, using: &random)
      pair.client.inbox += pair.server.feed(sealed)
      pair.run()
      #expect(pair.server.state.failure?.alertSent == "bad_record_mac")
      #expect(pair.client.state.failure?.alertReceived == "bad_record_mac")
      #expect(pair.server.received.isEmpty)
      #expect(pair.server.seal([1]) == nil)
    }
  }

  @Test func `a record given twice, or after its successor, is refused`() throws {
    let twice = try mesh.connected()
    let sealed = try #require(twice.client.seal([1]))
    _ = twice.server.feed(sealed)
    #expect(twice.server.received == [1])
    _ = twice.server.feed(sealed)
    #expect(twice.server.state.failure?.alertSent == "bad_record_mac")
    #expect(twice.server.received == [1])

    let swapped = try mesh.connected()
    _ = try #require(swapped.client.seal([1]))
    _ = swapped.server.feed(try #require(swapped.client.seal([2])))
    #expect(swapped.server.state.failure?.alertSent == "bad_record_mac")
    #expect(swapped.server.received.isEmpty)
  }

  @Test func `a record longer than the protocol allows is refused`() throws {
    for count in [TLSSession.maximumRecordBytes - 5 + 1, 0xffff] {
      let body = [UInt8](repeating: 7, count: count)
      for end in try bothEnds(mesh.connected()) {
        _ = end.feed(record(23, body))
        #expect(end.state.failure?.alertSent == "record_overflow")
      }
      let pair = try Pair(client: mesh.web, server: mesh.db)
      _ = pair.server.feed(record(22, body))
      #expect(pair.server.state.failure?.alertSent == "record_overflow")
    }
  }

  @Test func `bytes that are not exactly one record are refused`() throws {
    let changes: [([UInt8]) -> [UInt8]] = [
      { Array($0.dropLast()) }, { $0 + [0] }, { $0 + $0 }, { Array($0.prefix(5)) },
      { Array($0.prefix(4)) }, { Array($0.prefix(1)) }, { _ in [] },
    ]
    for change in changes {
      let pair = try mesh.connected()
      _ = pair.server.feed(change(try #require(pair.client.seal(Array("whole".utf8)))))
      #expect(pair.server.state.failure?.detail == "not one whole record")
      #expect(pair.server.received.isEmpty)
      let early = try Pair(client: mesh.web, server: mesh.db)
      let hello = change(early.client.start())
      _ = early.server.feed(hello)
      if !hello.isEmpty {
        #expect(early.server.state.failure?.detail == "not one whole record")
      }
    }
  }

  @Test func `application data before the handshake is refused`() throws {
    for end in try bothEnds(Pair(client: mesh.web, server: mesh.db)) {
      if end.isClient { _ = end.start() }
      _ = end.feed(record(23, Array("GET / HTTP/1.1\r\n\r\n".utf8)))
      #expect(end.state.failure?.alertSent == "unexpected_message")
      #expect(end.received.isEmpty)
    }
  }

  @Test func `a session that has failed stays failed, with the same word`() throws {
    let pair = try mesh.connected()
    let good = try #require(pair.client.seal([1]))
    _ = pair.server.feed(record(23, [UInt8](repeating: 7, count: 40)))
    let word = pair.server.state.failure?.word
    #expect(word == "alert_sent_bad_record_mac")
    #expect(pair.server.feed(good).isEmpty)
    #expect(pair.server.state.failure?.word == word)
    #expect(pair.server.received.isEmpty)

    let early = try Pair(client: mesh.web, server: mesh.db)
    _ = early.server.feed(record(24, [1]))
    let first = early.server.state.failure
    #expect(first != nil)
    _ = early.server.step { session, window in
      guard
        case .failed(let again) = unsafe session.handshake(
          record: .init(start: nil, count: 0), output: &window)
      else { return #expect(Bool(false), "the handshake went on") }
      #expect(again == first)
    }
  }

  @Test func `alerts from the peer have their names`() throws {
    for (code, name) in [(40, "handshake_failure"), (48, "unknown_ca"), (200, "unknown")] {
      let pair = try Pair(client: mesh.web, server: mesh.db)
      _ = pair.client.start()
      _ = pair.client.feed(record(21, [2, UInt8(code)]))
      #expect(pair.client.state.failure?.alertReceived == name)
      #expect(pair.client.state.failure?.word == "alert_received_\(name)")
    }
  }

  @Test func `two thousand sessions leave no memory behind`() throws {
    let (web, db) = (try TLSContext(mesh.web), try TLSContext(mesh.db))
    // A pair is more than 20 KiB: a leak shows as 40 MiB. Other tests run at the same time.
    try expectNoGrowth(over: 16 * 1024 * 1024, rounds: 2000) {
      let pair = try Pair(End(web, .client), End(db, .server)).connect()
      #expect(pair.bothEstablished)
    }
  }

  @Test func `sessions given up while they hold back a flight leave no memory behind`() throws {
    let web = try TLSContext(mesh.web)
    let db = try TLSContext(mesh.longIdentity(bytes: IdentityMaterial.maximumChainBytes))
    // Each holds back some 20 KiB: 30 MiB if it were never freed.
    try expectNoGrowth(over: 16 * 1024 * 1024, rounds: 1500) {
      let pair = try Pair(End(web, .client), End(db, .server))
      pair.server.windowBytes = 0
      _ = pair.server.feed(pair.client.start())
      #expect(pair.server.hasPending)
      #expect(pair.server.state.failure == nil)
    }
  }

  private func expectNoGrowth(over limit: Int, rounds: Int, _ body: () throws -> Void) throws {
    for _ in 0..<100 { try body() }
    var growth = Int.max
    // What other tests take at the same time may hide one round; a leak shows in each.
    for _ in 0..<3 where growth >= limit {
      let before = try residentBytes()
      for _ in 0..<rounds { try body() }
      growth = try residentBytes() - before
    }
    #expect(growth < limit)
  }

  /// Memory of this process that is in use (proc(5), statm).
  private func residentBytes() throws -> Int {
    let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
    return try #require(Int(text.split(separator: " ")[1])) * 4096
  }
}
