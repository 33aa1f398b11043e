import TLS
import Testing

@testable import DataPlane

/// The bytes that others compute from the same secrets.
@Suite struct RecordVectorTests {
  private func bytes<let count: Int>(_ array: InlineArray<count, UInt8>, _ used: Int) -> [UInt8] {
    (0..<used).map { array[$0] }
  }

  // MARK: RFC 8448 §3

  private var server: RecordEnd {
    RecordEnd(
      .aes128GCM, isClient: false, send: Trace.serverSecret, receive: Trace.clientSecret)
  }
  private var client: RecordEnd {
    RecordEnd(
      .aes128GCM, isClient: true, send: Trace.clientSecret, receive: Trace.serverSecret)
  }

  @Test func `RFC 8448: key and IV follow from the traffic secrets`() {
    for (keys, other) in [
      (client.layer.send, client.layer.receive), (server.layer.receive, server.layer.send),
    ] {
      #expect(bytes(keys.key, 16) == Trace.clientKey)
      #expect(bytes(keys.iv, 12) == Trace.clientIV)
      #expect(bytes(other.key, 16) == Trace.serverKey)
      #expect(bytes(other.iv, 12) == Trace.serverIV)
    }
  }

  @Test func `RFC 8448: a client opens the ticket, the data and the end`() {
    let client = client
    #expect(client.open(Trace.ticketRecord) == .tickets)
    #expect(client.open(Trace.serverData) == .data(50))
    #expect(client.received == RecordVector.content)
    #expect(client.open(Trace.serverAlert) == .closeNotify)
  }

  @Test func `RFC 8448: a client seals the same bytes`() {
    let client = client
    #expect(client.seal(RecordVector.content) == Trace.clientData)
    #expect(client.closeNotify() == Trace.clientAlert)
  }

  @Test func `RFC 8448: a server opens the data and the end`() {
    let server = server
    #expect(server.open(Trace.clientData) == .data(50))
    #expect(server.received == RecordVector.content)
    #expect(server.open(Trace.clientAlert) == .closeNotify)
  }

  @Test func `RFC 8448: a server seals the same bytes behind its ticket`() {
    let server = server
    // Tickets are OpenSSL's business; the record is the same.
    #expect(server.craft(22, Trace.ticket) == Trace.ticketRecord)
    #expect(server.seal(RecordVector.content) == Trace.serverData)
    #expect(server.closeNotify() == Trace.serverAlert)
  }

  @Test func `RFC 8448: without the ticket before it, the data does not open`() {
    #expect(client.open(Trace.serverData) == .failed(RecordFault(.badRecordMAC, "")))
  }

  // MARK: All suites

  private func end(_ vector: RecordVector) -> RecordEnd {
    RecordEnd(vector.suite, isClient: true, send: vector.secret, receive: vector.secret)
  }

  @Test(arguments: RecordVector.all.indices)
  func `key, IV and those of the next generation are another implementation's`(index: Int) {
    let vector = RecordVector.all[index]
    let end = end(vector)
    #expect(bytes(end.layer.send.key, vector.suite.keyBytes) == vector.key)
    #expect(bytes(end.layer.send.iv, 12) == vector.iv)
    _ = end.seal([1])
    end.updateSendingKey()
    #expect(bytes(end.layer.send.secret, vector.suite.hashBytes) == vector.nextSecret)
    #expect(bytes(end.layer.send.key, vector.suite.keyBytes) == vector.nextKey)
    #expect(bytes(end.layer.send.iv, 12) == vector.nextIV)
    #expect(end.layer.send.sequence == 0)
  }

  @Test(arguments: RecordVector.all.indices)
  func `records of another implementation open, padded or not`(index: Int) {
    let vector = RecordVector.all[index]
    let end = end(vector)
    #expect(end.open(vector.first) == .data(50))
    #expect(end.open(vector.padded) == .data(50))
    end.layer.receive.sequence = 0x0102_0304_0506_0708
    #expect(end.open(vector.numbered) == .data(50))
    #expect(end.layer.receive.sequence == 0x0102_0304_0506_0709)
    _ = end.contexts.ciphers.update(&end.layer.receive, vector.suite)
    #expect(end.open(vector.next) == .data(50))
    #expect(end.received == Array(repeatElement(RecordVector.content, count: 4).joined()))
  }

  @Test(arguments: RecordVector.all.indices)
  func `the same plaintext at the same place gives the same record`(index: Int) {
    let vector = RecordVector.all[index]
    let end = end(vector)
    #expect(end.seal(RecordVector.content) == vector.first)
    #expect(end.craft(23, RecordVector.content, padding: 7) == vector.padded)
    end.updateSendingKey()
    #expect(end.seal(RecordVector.content) == vector.next)
  }

  /// RFC 8446 §5.3.
  @Test func `the nonce is the IV with the sequence number in its last eight bytes`() {
    var key = RecordKey()
    for index in 0..<12 { key.iv[index] = UInt8(0xf0 + index) }
    #expect(bytes(key.nonce, 12) == hex("f0f1f2f3 f4f5f6f7 f8f9fafb"))
    key.sequence = 1
    #expect(bytes(key.nonce, 12) == hex("f0f1f2f3 f4f5f6f7 f8f9fafa"))
    key.sequence = 0x0102_0304_0506_0708
    #expect(bytes(key.nonce, 12) == hex("f0f1f2f3 f5f7f5f3 fdfffdf3"))
    key.sequence = .max
    #expect(bytes(key.nonce, 12) == hex("f0f1f2f3 0b0a0908 07060504"))
  }
}
