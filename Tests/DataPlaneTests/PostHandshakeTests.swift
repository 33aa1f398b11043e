import TLS
import Testing

@testable import DataPlane

/// Handshake messages after the handshake, through the record layer.
@Suite struct PostHandshakeTests {
  let contexts = Contexts()

  private var pair: RecordPair { RecordPair(.chacha20Poly1305, contexts: contexts) }
  private var bothWays: [(end: RecordEnd, peer: RecordEnd)] {
    RecordPair.bothWays(.chacha20Poly1305, contexts: contexts)
  }

  private func expectRefusal(
    at end: RecordEnd, from peer: RecordEnd, _ content: [UInt8], _ alert: Alert,
    _ place: SourceLocation = #_sourceLocation
  ) {
    let opened = end.open(peer.craft(22, content))
    #expect(opened == .failed(RecordFault(alert, "")), "\(content)", sourceLocation: place)
    let answer = peer.open(end.control())
    #expect(answer == .failed(RecordFault(received: alert)), sourceLocation: place)
    #expect(end.seal([1]) == nil, sourceLocation: place)
  }

  private func expectRefusals(
    _ contents: [[UInt8]], _ alert: Alert, _ place: SourceLocation = #_sourceLocation
  ) {
    for content in contents {
      for (end, peer) in bothWays { expectRefusal(at: end, from: peer, content, alert, place) }
    }
  }

  @Test func `an empty handshake record is refused`() {
    expectRefusals([[]], .unexpectedMessage)
  }

  // MARK: KeyUpdate

  @Test(arguments: CipherSuite.allCases, [false, true])
  func `a KeyUpdate changes the receiving key, and is answered once if it asks for it`(
    suite: CipherSuite, isRequested: Bool
  ) throws {
    for (end, peer) in RecordPair.bothWays(suite, contexts: contexts) {
      let old = end.layer.receive.identifier
      for _ in 0..<3 { #expect(end.open(peer.keyUpdate(requested: isRequested)) == .keyUpdate) }
      #expect(end.layer.receive.identifier != old)
      #expect(end.layer.hasControl == isRequested)
      #expect(end.open(try #require(peer.seal([1]))) == .data(1))
      let answers = records(in: try #require(end.seal([2])))
      #expect(answers.count == (isRequested ? 2 : 1))
      if isRequested { #expect(peer.open(answers[0]) == .keyUpdate) }
      #expect(peer.open(try #require(answers.last)) == .data(1))
      #expect(!peer.layer.hasControl, "an answer is not to be answered")
      #expect(!end.layer.hasControl)
    }
  }

  @Test func `after a KeyUpdate the old key opens nothing`() throws {
    let pair = pair
    // What the sender does that forgets its own KeyUpdate: the next number under the same key.
    #expect(pair.server.open(pair.client.craft(22, [24, 0, 0, 1, 0])) == .keyUpdate)
    #expect(
      pair.server.open(try #require(pair.client.seal([1])))
        == .failed(RecordFault(.badRecordMAC, "")))
    // Nor do those from before.
    let other = self.pair
    let late = try #require(other.client.seal([1]))
    other.client.layer.send.sequence = 0
    #expect(other.server.open(other.client.keyUpdate()) == .keyUpdate)
    #expect(other.server.open(late) == .failed(RecordFault(.badRecordMAC, "")))
  }

  @Test func `a KeyUpdate in two records is one`() throws {
    let bytes: [UInt8] = [24, 0, 0, 1, 1]
    for cut in 1..<bytes.count {
      for (end, peer) in bothWays {
        #expect(end.open(peer.craft(22, Array(bytes[..<cut]))) == .tickets)
        #expect(!end.layer.hasControl)
        #expect(end.open(peer.craft(22, Array(bytes[cut...]), padding: cut)) == .keyUpdate)
        #expect(end.layer.hasControl)
        peer.updateSendingKey()
        #expect(end.open(try #require(peer.seal([1]))) == .data(1))
      }
    }
  }

  @Test func `bytes behind a KeyUpdate are refused`() {
    for request in [0, 1, 2] as [UInt8] {
      let update = [24, 0, 0, 1, request]
      expectRefusals([update + [0], update + update, update + ticket()], .unexpectedMessage)
    }
  }

  @Test func `a KeyUpdate of the wrong length is refused`() {
    expectRefusals(
      [[24, 0, 0, 0], [24, 0, 0, 2, 0, 0], [24, 0, 0, 2], [24, 1, 0, 1, 0], [24, 0, 1, 1, 0]],
      .decodeError)
  }

  @Test func `a KeyUpdate with an unknown request is refused`() {
    expectRefusals((2...255).map { [24, 0, 0, 1, $0] }, .illegalParameter)
  }

  @Test func `a KeyUpdate behind a ticket in one record is taken`() throws {
    let pair = pair
    let content = ticket() + [24, 0, 0, 1, 0]
    #expect(pair.client.open(pair.server.craft(22, content)) == .keyUpdate)
    pair.server.updateSendingKey()
    #expect(pair.client.open(try #require(pair.server.seal([1]))) == .data(1))
  }

  // MARK: Tickets

  @Test func `tickets are passed over, several in a record or in parts, cut anywhere`() throws {
    let bytes = ticket(bytes: 30) + ticket(bytes: 1) + ticket(bytes: 9)
    for cut in 1..<bytes.count {
      let pair = pair
      #expect(pair.client.open(pair.server.craft(22, Array(bytes[..<cut]))) == .tickets)
      #expect(pair.client.open(pair.server.craft(22, Array(bytes[cut...]))) == .tickets)
      #expect(pair.client.open(try #require(pair.server.seal([1]))) == .data(1))
    }
  }

  @Test func `the largest ticket there can be is passed over, one larger is refused`() throws {
    let pair = pair
    let bytes = ticket(bytes: PostHandshake.maximumTicketBytes)
    for start in stride(from: 0, to: bytes.count, by: RecordLayer.maximumContentBytes) {
      let end = min(start + RecordLayer.maximumContentBytes, bytes.count)
      #expect(pair.client.open(pair.server.craft(22, Array(bytes[start..<end]))) == .tickets)
    }
    #expect(pair.client.open(try #require(pair.server.seal([1]))) == .data(1))
    let header = Array(ticket(bytes: PostHandshake.maximumTicketBytes + 1)[..<4])
    for content in [header, [4, 0, 0, 0], [4, 255, 255, 255]] {
      let pair = self.pair
      expectRefusal(at: pair.client, from: pair.server, content, .decodeError)
    }
  }

  @Test func `a ticket towards a server is refused`() {
    for content in [ticket(), Array(ticket()[..<4]), [4, 0, 0, 0]] {
      let pair = pair
      expectRefusal(at: pair.server, from: pair.client, content, .unexpectedMessage)
    }
  }

  // MARK: Others

  @Test func `every other handshake message is refused`() {
    let types = (0...255).filter { $0 != 4 && $0 != 24 } as [UInt8]
    expectRefusals(types.map { [$0, 0, 0, 1, 0] }, .unexpectedMessage)
    expectRefusals(types.map { [$0, 0, 0, 0] }, .unexpectedMessage)
  }

  @Test func `a record of another type between parts of a message is refused`() {
    let parts: [[UInt8]] = [[4], [4, 0, 0, 40], Array(ticket()[..<20]), [24], [24, 0, 0, 1]]
    for part in parts {
      for (type, content) in [(23, [1]), (23, []), (21, [1, 0]), (21, [1, 90])]
        as [(UInt8, [UInt8])]
      {
        let pair = pair
        #expect(pair.client.open(pair.server.craft(22, part)) == .tickets)
        #expect(
          pair.client.open(pair.server.craft(type, content))
            == .failed(RecordFault(.unexpectedMessage, "")))
        #expect(pair.client.received.isEmpty)
      }
    }
  }
}
