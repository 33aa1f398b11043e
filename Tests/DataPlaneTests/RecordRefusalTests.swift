import TLS
import Testing

@testable import DataPlane

/// What must not pass: each is answered with the alert RFC 8446 names, and with nothing after it.
@Suite struct RecordRefusalTests {
  let contexts = Contexts()

  private func pair(_ suite: CipherSuite = .aes128GCM) -> RecordPair {
    RecordPair(suite, contexts: contexts)
  }

  private var bothWays: [(end: RecordEnd, peer: RecordEnd)] {
    RecordPair.bothWays(contexts: contexts)
  }

  /// The end refuses the record; its peer learns why; nothing more is ever sent.
  private func expectRefusal(
    _ record: [UInt8], _ alert: Alert, at end: RecordEnd, from peer: RecordEnd,
    _ place: SourceLocation = #_sourceLocation
  ) {
    let data = end.received
    #expect(end.open(record) == .failed(RecordFault(alert, "")), sourceLocation: place)
    #expect(end.received == data, sourceLocation: place)
    let answer = end.control()
    #expect(
      peer.open(answer) == .failed(RecordFault(received: alert)), "the peer learns it",
      sourceLocation: place)
    expectSilence(end, place)
  }

  private func expectSilence(_ end: RecordEnd, _ place: SourceLocation = #_sourceLocation) {
    #expect(!end.layer.hasControl, sourceLocation: place)
    #expect(end.control().isEmpty, sourceLocation: place)
    #expect(end.seal([1]) == nil, sourceLocation: place)
    #expect(end.closeNotify().isEmpty, sourceLocation: place)
  }

  /// The same at both ends of a fresh connection.
  private func expectRefusal(
    of alert: Alert, _ place: SourceLocation = #_sourceLocation,
    _ record: (_ peer: RecordEnd) -> [UInt8]
  ) {
    for (end, peer) in bothWays {
      expectRefusal(record(peer), alert, at: end, from: peer, place)
    }
  }

  // MARK: Protection

  @Test(arguments: CipherSuite.allCases)
  func `a record changed at any byte is refused`(suite: CipherSuite) throws {
    let count = try #require(pair(suite).client.seal(Array("integrity".utf8))).count
    for place in 0..<count {
      let pair = pair(suite)
      var record = try #require(pair.client.seal(Array("integrity".utf8)))
      record[place] ^= 1 << UInt8(place % 8)
      let alert = place == 0 ? Alert.unexpectedMessage : .badRecordMAC
      expectRefusal(record, alert, at: pair.server, from: pair.client)
    }
  }

  @Test(arguments: CipherSuite.allCases)
  func `what was refused leaves the shared contexts sound`(suite: CipherSuite) throws {
    let (spoilt, sound) = (pair(suite), RecordPair(suite, seed: 9, contexts: contexts))
    for round in 0..<4 {
      var record = try #require(spoilt.client.seal([1, 2, 3]))
      record[record.count - 1] ^= 1
      #expect(spoilt.server.open(record) == .failed(RecordFault(.badRecordMAC, "")))
      let data = [UInt8](repeating: UInt8(round), count: 100)
      #expect(sound.server.open(try #require(sound.client.seal(data))) == .data(100))
      #expect(sound.server.received.suffix(100).elementsEqual(data))
    }
  }

  @Test(arguments: CipherSuite.allCases)
  func `a record given twice is refused`(suite: CipherSuite) throws {
    let pair = pair(suite)
    let record = try #require(pair.client.seal([1]))
    #expect(pair.server.open(record) == .data(1))
    expectRefusal(record, .badRecordMAC, at: pair.server, from: pair.client)
  }

  @Test(arguments: CipherSuite.allCases)
  func `a record after its successor, or instead of one, is refused`(suite: CipherSuite) throws {
    let pair = pair(suite)
    _ = try #require(pair.client.seal([1]))
    let second = try #require(pair.client.seal([2]))
    expectRefusal(second, .badRecordMAC, at: pair.server, from: pair.client)
  }

  @Test func `a record of the other direction is refused`() throws {
    let pair = pair()
    let own = try #require(pair.server.seal([1]))
    let stranger = try #require(pair.client.seal([1]))
    #expect(own.count == stranger.count)
    #expect(pair.server.open(own) == .failed(RecordFault(.badRecordMAC, "")))
    // Which uses no number up: the right one still opens.
    #expect(pair.server.layer.receive.sequence == 0)
    #expect(pair.server.open(stranger) == .data(1))
  }

  @Test func `a record cut short anywhere is refused`() throws {
    let whole = try #require(pair().client.seal(Array("truncated".utf8)))
    for count in 0..<whole.count {
      let pair = pair()
      var record = Array(whole[..<count])
      let alert = count < RecordLayer.headerBytes ? Alert.unexpectedMessage : .badRecordMAC
      expectRefusal(record, alert, at: pair.server, from: pair.client)
      // Whether its header says so or not.
      guard count >= RecordLayer.headerBytes else { continue }
      record[4] = UInt8(count - RecordLayer.headerBytes)
      let again = self.pair()
      expectRefusal(record, .badRecordMAC, at: again.server, from: again.client)
    }
  }

  // MARK: Lengths

  @Test func `a record of the greatest length opens, one byte more does not`() {
    let content = [UInt8](repeating: 3, count: RecordLayer.maximumContentBytes)
    let pair = pair()
    #expect(pair.server.open(pair.client.craft(23, content)) == .data(content.count))
    #expect(pair.server.received == content)
    let less = Array(content.dropLast(100))
    #expect(pair.server.open(pair.client.craft(23, less, padding: 100)) == .data(less.count))

    expectRefusal(of: .recordOverflow) { $0.craft(23, content + [3]) }
    expectRefusal(of: .recordOverflow) { $0.craft(23, content, padding: 1) }
    expectRefusal(of: .recordOverflow) { $0.craft(23, [1], padding: content.count) }
    // The longest ciphertext there may be, and one byte beyond: this one need not authenticate.
    expectRefusal(of: .recordOverflow) { $0.craft(23, content, padding: 256 - 16 - 1) }
    for count in [content.count + 257, 0xffff] {
      let bytes = [UInt8(23), 3, 3, UInt8(count >> 8), UInt8(count & 255)]
      expectRefusal(of: .recordOverflow) { _ in bytes + [UInt8](repeating: 7, count: count) }
    }
  }

  @Test func `a record of nothing but padding is refused`() {
    for count in [1, 2, 100, RecordLayer.maximumContentBytes + 1] {
      expectRefusal(of: .unexpectedMessage) {
        $0.craft(inner: [UInt8](repeating: 0, count: count))
      }
    }
    // Without even that, it is too short to be a record.
    expectRefusal(of: .badRecordMAC) { $0.craft(inner: []) }
  }

  // MARK: Types

  @Test func `a record that is not encrypted is refused, whatever its type`() {
    for type in UInt8.min...UInt8.max where type != 23 {
      for body in [[1], [2, 50], [UInt8](repeating: 0, count: 40)] {
        let record = [type, 3, 3, 0, UInt8(body.count)] + body
        expectRefusal(of: .unexpectedMessage) { _ in record }
      }
    }
  }

  @Test func `an encrypted record of an unknown type is refused`() {
    for type in UInt8(1)...UInt8.max where !(21...23).contains(type) {
      expectRefusal(of: .unexpectedMessage) { $0.craft(type, [1]) }
    }
  }

  // MARK: Alerts

  @Test func `an alert of the wrong length is refused`() {
    for content in [[], [2], [1, 0, 0], [2, 50, 2, 50]] as [[UInt8]] {
      expectRefusal(of: .decodeError) { $0.craft(21, content) }
    }
  }

  @Test func `any alert but two ends the connection, and is not answered`() {
    for code in UInt8.min...UInt8.max where code != 0 && code != 90 {
      for level in [0, 1, 2, 77] as [UInt8] {
        let pair = pair()
        let alert = RecordFault(received: Alert(rawValue: code))
        #expect(pair.server.open(pair.client.craft(21, [level, code])) == .failed(alert))
        expectSilence(pair.server)
      }
    }
  }

  @Test func `after a fatal alert has come nothing is sent, not even what was owed`() {
    let alert = Opened.failed(RecordFault(received: .decodeError))
    for (end, peer) in bothWays {
      #expect(end.open(peer.keyUpdate(requested: true)) == .keyUpdate)
      #expect(end.layer.hasControl)
      #expect(end.open(peer.craft(21, [2, 50])) == alert)
      expectSilence(end)
    }
    for (end, peer) in bothWays {
      end.layer.oweCloseNotify()
      #expect(end.open(peer.craft(21, [2, 50])) == alert)
      expectSilence(end)
    }
  }

  @Test func `user_canceled alone ends nothing`() throws {
    let pair = pair()
    #expect(pair.server.open(pair.client.craft(21, [1, 90])) == .nothing)
    #expect(pair.server.open(try #require(pair.client.seal([1]))) == .data(1))
  }

  @Test func `close_notify counts whatever its level, and all after it is ignored`() throws {
    for level in [0, 1, 2, 77] as [UInt8] {
      for (end, peer) in bothWays {
        #expect(end.open(peer.craft(21, [level, 0])) == .closeNotify)
        for record in [
          peer.craft(23, [1]), peer.craft(21, [2, 50]), peer.craft(22, [24, 0, 0, 1, 1]),
          peer.craft(99, [1]), [22, 3, 3, 0, 1, 0], [], [23, 3, 3, 0, 0],
          [UInt8](repeating: 7, count: 20_000),
        ] {
          #expect(end.open(record) == .nothing)
        }
        #expect(end.received.isEmpty)
        // Our own direction is another matter.
        #expect(end.control().isEmpty)
        #expect(peer.open(try #require(end.seal([5]))) == .data(1))
        #expect(peer.open(end.closeNotify()) == .closeNotify)
        expectSilence(end)
      }
    }
  }

  @Test func `after our close_notify the peer's data still opens, and nothing is said to it`()
    throws
  {
    for (end, peer) in bothWays {
      #expect(peer.open(end.closeNotify()) == .closeNotify)
      #expect(end.open(try #require(peer.seal([5]))) == .data(1))
      #expect(end.open(peer.keyUpdate(requested: true)) == .keyUpdate)
      #expect(end.open(try #require(peer.seal([6]))) == .data(1))
      #expect(end.open(peer.craft(99, [1])) == .failed(RecordFault(.unexpectedMessage, "")))
      expectSilence(end)
    }
  }

  @Test func `an alert overtakes a KeyUpdate that is owed, under the key the peer still knows`() {
    for (end, peer) in bothWays {
      #expect(end.open(peer.keyUpdate(requested: true)) == .keyUpdate)
      expectRefusal(peer.craft(99, [1]), .unexpectedMessage, at: end, from: peer)
    }
  }

  @Test func `of two faults the first is told`() {
    let pair = pair()
    #expect(
      pair.server.open(pair.client.craft(21, [1])) == .failed(RecordFault(.decodeError, "")))
    #expect(
      pair.server.open(pair.client.craft(99, [1])) == .failed(RecordFault(.unexpectedMessage, "")))
    #expect(
      pair.client.open(pair.server.control()) == .failed(RecordFault(received: .decodeError)))
    expectSilence(pair.server)
  }

  // MARK: Records without data

  /// Each kind of record that brings no data.
  private static let idle: [(name: String, record: @Sendable (RecordEnd) -> [UInt8])] = [
    ("empty data", { $0.craft(23, []) }),
    ("padded empty data", { $0.craft(23, [], padding: 30) }),
    ("tickets", { $0.craft(22, ticket()) }),
    ("KeyUpdates", { $0.keyUpdate() }),
    ("requested KeyUpdates", { $0.keyUpdate(requested: true) }),
    ("user_canceled", { $0.craft(21, [1, 90]) }),
  ]

  @Test(arguments: idle.indices)
  func `64 records without data may follow each other, not one more`(index: Int) throws {
    let idle = Self.idle[index].record
    let pair = pair()
    // Tickets go to clients only.
    let (end, peer) = (pair.client, pair.server)
    for _ in 0..<3 {
      for _ in 0..<RecordLayer.maximumIdleRecords {
        if case .failed = end.open(idle(peer)) { Issue.record("refused too early") }
      }
      #expect(end.open(try #require(peer.seal([1]))) == .data(1))
    }
    for _ in 0..<RecordLayer.maximumIdleRecords { _ = end.open(idle(peer)) }
    // Here the alert is sealed with a key the peer knows: it has sent, not received, KeyUpdates.
    expectRefusal(idle(peer), .unexpectedMessage, at: end, from: peer)
  }

  @Test func `records without data count together, whatever their kinds`() {
    let pair = pair()
    for count in 0..<RecordLayer.maximumIdleRecords {
      let record = Self.idle[count % Self.idle.count].record(pair.server)
      if case .failed = pair.client.open(record) { Issue.record("refused too early") }
    }
    expectRefusal(
      pair.server.craft(23, []), .unexpectedMessage, at: pair.client, from: pair.server)
  }

  @Test func `close_notify may be the one record more`() {
    let pair = pair()
    for _ in 0..<RecordLayer.maximumIdleRecords { _ = pair.client.open(pair.server.craft(23, [])) }
    #expect(pair.client.open(pair.server.closeNotify()) == .closeNotify)
  }

  @Test func `a message in one-byte parts is refused when its parts are too many`() {
    let pair = pair()
    let bytes = ticket(bytes: 100)
    for byte in bytes[..<RecordLayer.maximumIdleRecords] {
      #expect(pair.client.open(pair.server.craft(22, [byte])) == .tickets)
    }
    expectRefusal(
      pair.server.craft(22, [7]), .unexpectedMessage, at: pair.client, from: pair.server)
  }
}
