import TLS
import Testing

@testable import DataPlane

/// One end handed over to the record layer, the other still OpenSSL's.
@Suite struct RecordStreamTests {
  let identity: TestIdentity
  /// Data to cut from.
  let pool: [UInt8]

  init() throws {
    identity = try TestIdentity()
    var random = Seeded(state: 5)
    pool = unsafe (0..<32 * 1024).map { _ in random.next() }.withUnsafeBytes { unsafe Array($0) }
  }

  private func connect(
    _ suite: CipherSuite, culvertIsClient: Bool, tickets: Int = 0, early: [UInt8] = [],
    recordsPerKey: Int = RecordLayer.recordsPerKeyMaximum
  ) throws -> MixedConnection {
    try MixedConnection(
      identity.material, suite, culvertIsClient: culvertIsClient, tickets: tickets, early: early,
      recordsPerKey: recordsPerKey)
  }

  /// A piece of the pool: often small, sometimes several records.
  private func piece(_ random: inout Seeded) -> [UInt8] {
    let largest = [3, 100, 2000, 20_000, 70_000].randomElement(using: &random)!
    let count = Int.random(in: 1...largest, using: &random)
    let start = Int.random(in: 0..<pool.count - count, using: &random)
    return Array(pool[start..<start + count])
  }

  @Test(arguments: CipherSuite.allCases, [true, false])
  func `either end opens what the other one seals, whatever the sizes, padding and KeyUpdates`(
    suite: CipherSuite, culvertIsClient: Bool
  ) throws {
    let connection = try connect(
      suite, culvertIsClient: culvertIsClient, tickets: 2,
      recordsPerKey: RecordLayer.recordsPerKeyMinimum)
    let (openssl, culvert) = (connection.openssl, connection.culvert)
    var random = Seeded(state: UInt64(suite.rawValue) + (culvertIsClient ? 1 : 0))
    var (up, down): ([UInt8], [UInt8]) = ([], [])
    let firstKey = culvert.layer.send.identifier
    for _ in 0..<300 {
      switch Int.random(in: 0..<12, using: &random) {
      case 0..<5:
        let bytes = piece(&random)
        connection.toOpenSSL += try #require(culvert.seal(bytes))
        up += bytes
      case 5..<9:
        let bytes = piece(&random)
        connection.toCulvert += try #require(openssl.seal(bytes))
        down += bytes
      case 9:
        #expect(openssl.updateKey(requested: .random(using: &random)))
        connection.toCulvert += try #require(openssl.seal([7]))
        down += [7]
      case 10:
        #expect(openssl.pad(to: [1, 16, 1000, 16_384].randomElement(using: &random)!))
      default: connection.deliver()
      }
      try #require(openssl.state == .established, "\(openssl.detail)")
    }
    connection.deliver()
    #expect(openssl.received == up)
    #expect(culvert.received == down)
    let updates = connection.opened.count { $0 == .keyUpdate }
    #expect(updates > 10)
    // More than a key's worth of records, so our own updates came on top of the answers.
    #expect(culvert.layer.send.identifier > firstKey)
    #expect(connection.opened.count { $0 == .tickets } == (culvertIsClient ? 2 : 0))
  }

  @Test(arguments: CipherSuite.allCases, [true, false])
  func `our own key is updated after its last record, unless it does not wear out`(
    suite: CipherSuite, culvertIsClient: Bool
  ) throws {
    let limit = RecordLayer.recordsPerKeyMinimum
    let connection = try connect(suite, culvertIsClient: culvertIsClient, recordsPerKey: limit)
    let culvert = connection.culvert
    let total = 10 * limit
    var (updates, largest) = (0, UInt64(0))
    for index in 0..<total {
      let identifier = culvert.layer.send.identifier
      connection.toOpenSSL += try #require(culvert.seal([UInt8(truncatingIfNeeded: index)]))
      if culvert.layer.send.identifier != identifier { updates += 1 }
      largest = max(largest, culvert.layer.send.sequence)
    }
    connection.deliver()
    #expect(connection.openssl.received == (0..<total).map { UInt8(truncatingIfNeeded: $0) })
    // The KeyUpdate is itself the last record of its key.
    #expect(updates == (suite.keyWearsOut ? (total - 1) / (limit - 1) : 0))
    #expect(largest == (suite.keyWearsOut ? UInt64(limit - 1) : UInt64(total)))
  }

  @Test func `a key wears out in the middle of one large seal`() throws {
    let limit = RecordLayer.recordsPerKeyMinimum
    let connection = try connect(.aes128GCM, culvertIsClient: true, recordsPerKey: limit)
    for _ in 0..<limit - 3 {
      connection.toOpenSSL += try #require(connection.culvert.seal([1]))
    }
    let bytes = Array(pool[..<65_536])
    let sealed = try #require(connection.culvert.seal(bytes))
    // Two with the old key, its KeyUpdate, two with the new one.
    #expect(records(in: sealed).map(\.count) == [16_406, 16_406, 27, 16_406, 16_406])
    connection.toOpenSSL += sealed
    connection.deliver()
    #expect(connection.openssl.received.dropFirst(limit - 3).elementsEqual(bytes))
  }

  // MARK: What follows the handshake at once

  @Test(arguments: CipherSuite.allCases, [true, false])
  func `data that rides with the end of the handshake is opened by the layer`(
    suite: CipherSuite, culvertIsClient: Bool
  ) throws {
    for count in [1, 5000, 20_000] {
      let connection = try connect(
        suite, culvertIsClient: culvertIsClient, early: Array(pool[..<count]))
      #expect(!connection.toCulvert.isEmpty, "it came before the layer was there")
      connection.deliver()
      #expect(connection.culvert.received == Array(pool[..<count]))
      connection.toOpenSSL += try #require(connection.culvert.seal([7]))
      connection.deliver()
      #expect(connection.openssl.received == [7])
    }
  }

  @Test(arguments: CipherSuite.allCases, [1, 2, 5])
  func `tickets come first, and data behind them`(suite: CipherSuite, tickets: Int) throws {
    let connection = try connect(
      suite, culvertIsClient: true, tickets: tickets, early: [1, 2, 3])
    connection.deliver()
    let expected = Array(repeating: Opened.tickets, count: tickets) + [.data(3)]
    #expect(connection.opened == expected)
  }

  @Test(arguments: CipherSuite.allCases)
  func `the session handed over still takes the tickets, as copies`(suite: CipherSuite) throws {
    let connection = try connect(suite, culvertIsClient: true, tickets: 2, early: [1])
    let tickets = records(in: connection.toCulvert)
    let session = connection.handedOver
    #expect(!session.isResumable)
    for record in tickets.prefix(2) { #expect(session.feed(record).isEmpty) }
    #expect(session.state == .established)
    #expect(session.isResumable)
    connection.deliver()
    #expect(connection.culvert.received == [1])
  }

  // MARK: The end

  @Test(arguments: CipherSuite.allCases, [true, false])
  func `OpenSSL's close_notify leaves our direction open`(
    suite: CipherSuite, culvertIsClient: Bool
  ) throws {
    let connection = try connect(suite, culvertIsClient: culvertIsClient)
    connection.toCulvert += try #require(connection.openssl.seal([1]))
    connection.toCulvert += connection.openssl.closeNotify()
    connection.deliver()
    #expect(connection.opened == [.data(1), .closeNotify])
    connection.toOpenSSL += try #require(connection.culvert.seal(pool))
    connection.toOpenSSL += connection.culvert.closeNotify()
    connection.deliver()
    #expect(connection.openssl.received == pool)
    #expect(connection.openssl.state == .closed)
    #expect(connection.culvert.seal([1]) == nil)
  }

  @Test(arguments: CipherSuite.allCases, [true, false])
  func `our close_notify leaves OpenSSL's direction open`(
    suite: CipherSuite, culvertIsClient: Bool
  ) throws {
    let connection = try connect(suite, culvertIsClient: culvertIsClient)
    connection.toOpenSSL += try #require(connection.culvert.seal([1]))
    connection.toOpenSSL += connection.culvert.closeNotify()
    connection.deliver()
    #expect(connection.openssl.state == .closed)
    connection.toCulvert += try #require(connection.openssl.seal(pool))
    connection.toCulvert += connection.openssl.closeNotify()
    connection.deliver()
    #expect(connection.culvert.received == pool)
    #expect(connection.opened.last == .closeNotify)
  }

  @Test(arguments: CipherSuite.allCases, [true, false])
  func `OpenSSL understands the alert that answers a spoilt record`(
    suite: CipherSuite, culvertIsClient: Bool
  ) throws {
    let connection = try connect(suite, culvertIsClient: culvertIsClient)
    var spoilt = try #require(connection.openssl.seal([1]))
    spoilt[spoilt.count - 1] ^= 1
    connection.toCulvert += spoilt
    connection.deliver()
    #expect(connection.openssl.state == .failed)
    #expect(connection.openssl.alert == "bad_record_mac")

    let other = try connect(suite, culvertIsClient: culvertIsClient)
    spoilt = try #require(other.culvert.seal([1]))
    spoilt[spoilt.count - 1] ^= 1
    other.toOpenSSL += spoilt
    other.deliver()
    let alert = RecordFault(received: .badRecordMAC)
    #expect(other.opened == [.failed(alert)])
    #expect(other.openssl.received.isEmpty)
  }
}
