import Identity
import Net
import Policy
import Telemetry
import Testing

@Suite struct ConnectionRecordTests {
  private func record() -> ConnectionRecord {
    ConnectionRecord(
      id: 0x1f, endedAtMilliseconds: 1_769_860_800_250, direction: .inbound, end: .closed,
      security: .mutualTLS, bytesSent: 10, bytesReceived: 20, durationMicroseconds: 12_034)
  }

  @Test func aLineHasTheFieldsInOrder() throws {
    var record = record()
    record.source = SocketAddress(try #require(IPAddress("10.90.0.1")), port: 41234)
    record.sourceIdentity = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web")
    record.destination = SocketAddress(try #require(IPAddress("fd90::2")), port: 3306)
    record.alpn = "culvert/1"
    #expect(
      record.text
        == "2026-01-31T12:00:00.250Z connection id=000000000000001f direction=inbound end=closed "
        + "security=mutual_tls src.addr=10.90.0.1:41234 "
        + "src.identity=spiffe://demo.mesh/ns/shop/sa/web dst.addr=[fd90::2]:3306 alpn=culvert/1 "
        + "bytes_sent=10 bytes_recv=20 duration=12.034ms")
  }

  @Test(arguments: ["a b", "x\nid=1", "a=b", "q\"uote", "back\\slash", "é", ""])
  func aPeersTextCannotForgeAFieldOrALine(value: String) {
    var record = record()
    record.serverName = value
    let line = record.text
    #expect(!line.contains("\n"))
    #expect(line.utf8.allSatisfy { (0x20...0x7e).contains($0) })
    let field = line.components(of: " sni=\"")
    #expect(field == 2, "\(line)")
  }
}

extension String {
  fileprivate func components(of separator: String) -> Int {
    var count = 1
    var rest = self[...]
    while let range = rest.firstRange(of: separator) {
      count += 1
      rest = rest[range.upperBound...]
    }
    return count
  }
}

@Suite struct RecordQueueTests {
  @Test func whatDoesNotFitIsDroppedAndCounted() throws {
    let queue = try RecordQueue()
    let record = ConnectionRecord(
      id: 1, endedAtMilliseconds: 0, direction: .mesh, end: .closed, security: .none)
    for _ in 0..<RecordQueue.capacity + 5 { queue.append(record) }
    let first = queue.take()
    #expect(first.records.count == RecordQueue.capacity)
    #expect(first.dropped == 5)
    queue.append(record)
    let second = queue.take()
    #expect(second.records.count == 1)
    #expect(second.dropped == 0)
  }
}

@Suite struct WorkerCountersTests {
  @Test func gaugesGoBackToWhereTheyWere() {
    let counters = WorkerCounters(refusalWords: ["self_call"])
    counters.accepted()
    counters.accepted()
    #expect(counters.undecided == 2)
    counters.decided(.inbound, .relayed(.serverFirst), undecidedMicroseconds: 3000)
    #expect(counters.undecided == 1)
    #expect(counters.open(.plaintext) == 1)
    counters.ended(.plaintext)
    counters.ended(nil)
    #expect(counters.undecided == 0)
    #expect(counters.open(.plaintext) == 0)
    #expect(counters.total(.plaintext) == 1)
    #expect(counters.total(.inbound, .relayed(.serverFirst)) == 1)
    #expect(counters.total(.outbound, .relayed(.serverFirst)) == 0)
    let times = counters.undecidedTimes(.inbound)
    #expect(times.sum == 0.003)
    #expect(zip(times.bounds, times.counts).first { $0.1 > 0 }?.0 == 0.005)
    #expect(counters.acceptedTotal == 2)
  }

  @Test func anUnknownWordIsCountedAsOther() {
    let counters = WorkerCounters(refusalWords: ["self_call"])
    counters.refused("self_call")
    counters.refused("made_up")
    counters.refused("made_up_too")
    #expect(counters.refusals == ["self_call": 1, "other": 2])
  }
}
