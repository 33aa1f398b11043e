import COpenSSL
import Testing

@testable import TLS

/// What an outside server, or somebody between us and it, may send; TLS 1.2 above all, whose records
/// stay with OpenSSL.
@Suite struct OriginationRecordTests {
  let outside: Outside

  init() throws { outside = try Outside() }

  // MARK: Renegotiation (RFC 5246 §7.4.1.1)

  @Test func `another handshake is refused by a warning, and data goes on`() throws {
    let connection = try outside.connected(TLS1_2_VERSION)
    let request = connection.server.renegotiate()
    #expect(request.first == 22)
    let answer = connection.client.feed(request)
    #expect(answer.first == 21)
    #expect(connection.client.state.isEstablished)
    let sealed = try #require(connection.client.seal([1]))
    #expect(!sealed.isEmpty)
    // To a server that insists the refusal is the end.
    _ = connection.server.take(answer)
    #expect(connection.server.failure == "no renegotiation")
  }

  @Test func `a warning does not name a failure that comes later`() throws {
    let connection = try outside.connected(TLS1_2_VERSION)
    _ = connection.client.feed(connection.server.renegotiate())
    #expect(connection.client.session.misfed()?.word == "protocol_error")
  }

  @Test func `endless requests for another handshake end the session`() throws {
    let connection = try outside.connected(TLS1_2_VERSION)
    var count = 0
    while connection.client.state.isEstablished, count < 1000 {
      count += 1
      let request = connection.server.renegotiate()
      try #require(!request.isEmpty)
      _ = connection.client.feed(request)
    }
    #expect(count == TLSSession.maximumIdleRecords + 1)
    #expect(connection.client.state.failure?.detail == "too many records without data")
  }

  // MARK: Records that are not whole, or not the server's

  @Test(arguments: Outside.versions)
  func `part of a record is refused wherever it comes`(version: Int32) throws {
    let records = try outside.connected(version).client.recordsFed
    #expect(records >= 3)
    for index in 0..<records {
      let server = OutsideServer(outside.leaf, version: version)
      let connection = try OutsideConnection(outside.material(), server)
      let client = connection.client
      client.inbox += server.take(client.start())
      for _ in 0..<index {
        client.inbox += server.take(client.feed(try #require(client.popRecord())))
      }
      let cut = try #require(client.popRecord()).dropLast()
      _ = client.feed(Array(cut))
      #expect(client.state.failure?.detail == "not one whole record", "record \(index)")
      #expect(client.seal([1]) == nil)
    }
  }

  @Test(arguments: Outside.versions)
  func `without close_notify the stream never counts as closed`(version: Int32) throws {
    let connection = try outside.connected(version)
    connection.deliver(toClient: connection.server.send([1, 2, 3]))
    #expect(connection.client.received == [1, 2, 3])
    #expect(!connection.client.state.isClosed)
    _ = connection.client.feed(Array(connection.server.send([4, 5, 6]).dropLast()))
    #expect(connection.client.state.failure != nil)
    #expect(connection.client.received == [1, 2, 3])
  }

  @Test(arguments: Outside.versions)
  func `a record changed in one bit is refused, and its bytes are not given out`(version: Int32)
    throws
  {
    var random = Seeded(state: UInt64(version))
    for _ in 0..<32 {
      let connection = try outside.connected(version)
      var sealed = connection.server.send(Array("integrity".utf8))
      let place = Int.random(in: 5..<sealed.count, using: &random)
      sealed[place] ^= 1 << Int.random(in: 0..<8, using: &random)
      connection.deliver(toClient: sealed)
      #expect(connection.client.state.failure?.alertSent == "bad_record_mac")
      #expect(connection.client.received.isEmpty)
      #expect(connection.client.seal([1]) == nil)
    }
  }

  @Test(arguments: Outside.versions)
  func `a record given twice is refused`(version: Int32) throws {
    let connection = try outside.connected(version)
    let sealed = connection.server.send([1])
    connection.deliver(toClient: sealed)
    connection.deliver(toClient: sealed)
    #expect(connection.client.state.failure?.alertSent == "bad_record_mac")
    #expect(connection.client.received == [1])
  }

  @Test(arguments: [20, 21, 22, 23, 24, 0, 255] as [UInt8])
  func `garbage after the handshake ends the session, whatever its type`(type: UInt8) throws {
    var random = Seeded(state: UInt64(type))
    for version in Outside.versions {
      let client = try outside.connected(version).client
      _ = client.feed(record(type, random.bytes(0...400)))
      #expect(client.state.failure != nil)
      #expect(client.received.isEmpty && client.seal([1]) == nil)
    }
  }

  @Test(arguments: Outside.versions)
  func `a record longer than is allowed is refused`(version: Int32) throws {
    let client = try outside.connected(version).client
    _ = client.feed(
      record(23, [UInt8](repeating: 7, count: TLSSession.maximumRecordBytes - 5 + 1)))
    #expect(client.state.failure != nil)
  }

  @Test(arguments: Outside.versions)
  func `a handshake of which one byte is changed is never established at both ends`(
    version: Int32
  ) throws {
    var random = Seeded(state: UInt64(version))
    for round in 0..<60 {
      let server = OutsideServer(outside.leaf, version: version)
      let connection = try OutsideConnection(outside.material(), server)
      let client = connection.client
      client.inbox += server.take(client.start())
      var isChanged = false
      for index in 0... {
        guard var next = client.popRecord() else { break }
        if index == round % 6, next.count > 5, !client.state.isEstablished {
          let place = Int.random(in: 5..<next.count, using: &random)
          next[place] ^= UInt8.random(in: 1...255, using: &random)
          isChanged = true
        }
        client.inbox += server.take(client.feed(next))
      }
      #expect(connection.bothEstablished == !isChanged)
    }
  }

  @Test func `garbage in the handshake never establishes anything`() throws {
    var random = Seeded(state: 1)
    let context = try OriginationContext(outside.material())
    for _ in 0..<200 {
      let client = try End(origination: context)
      _ = client.start()
      for _ in 0..<4 where client.state.failure == nil {
        let types: [UInt8] = [20, 21, 22, 22, 22, 23, 24, 0, 255]
        let type = types.randomElement(using: &random)!
        _ = client.feed(record(type, random.bytes(0...400)))
      }
      #expect(!client.state.isEstablished)
    }
  }
}
