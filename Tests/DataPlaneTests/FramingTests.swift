import Net
import Policy
import Telemetry
import Testing

@testable import DataPlane
@testable import RelaySupport
@testable import TLS

/// Records cross TCP segments anywhere; what reaches the application is the same bytes.
@Suite struct FramingTests {
  static let ioUring: Comment = "needs io_uring of Linux 6.1"
  static var hasIOUring: Bool { Uring.probe() == nil }
  static let sides = [Side.client, .server]

  // MARK: Cut streams

  @Test(.enabled(if: hasIOUring, ioUring), arguments: CipherSuite.allCases, sides)
  func ioUringOpensRecordsCutAtEveryByte(suite: CipherSuite, side: Side) throws {
    try opensRecordsCutAtEveryByte(.ioUring, suite, side)
  }

  @Test(arguments: CipherSuite.allCases, sides)
  func epollOpensRecordsCutAtEveryByte(suite: CipherSuite, side: Side) throws {
    try opensRecordsCutAtEveryByte(.epoll, suite, side)
  }

  private func opensRecordsCutAtEveryByte(
    _ backend: BackendKind, _ suite: CipherSuite, _ side: Side
  ) throws {
    let sizes = [0, 1, 17, 0, 64]
    try RelayWorker.run(backend, RelayPlan(suite: suite, tlsSide: side)) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      let length = sizes.reduce(0) { $0 + $1 + RecordLayer.overheadBytes }
      for cut in 1..<length {
        let (plaintext, wire) = stream(peer, sizes)
        try connection.tls.sendAlone(Array(wire[..<cut]))
        try connection.tls.send(Array(wire[cut...]))
        try connection.plain.receive(bytes: plaintext.count)
        let passed = connection.plain.take()
        #expect(passed == plaintext, "cut at \(cut)")
      }
      // And every byte on its own.
      let (plaintext, wire) = stream(peer, sizes)
      for byte in wire { try connection.tls.sendAlone([byte]) }
      try connection.plain.receive(bytes: plaintext.count)
      #expect(connection.plain.take() == plaintext)
    }
  }

  @Test(.enabled(if: hasIOUring, ioUring), arguments: CipherSuite.allCases)
  func ioUringRelaysLargeStreamsCutAnywhere(suite: CipherSuite) throws {
    try relaysLargeStreamsCutAnywhere(.ioUring, suite)
  }

  @Test(arguments: CipherSuite.allCases)
  func epollRelaysLargeStreamsCutAnywhere(suite: CipherSuite) throws {
    try relaysLargeStreamsCutAnywhere(.epoll, suite)
  }

  /// Both ways at once, so that data and control share the TLS leg.
  private func relaysLargeStreamsCutAnywhere(
    _ backend: BackendKind, _ suite: CipherSuite
  ) throws {
    var random = SeededGenerator(seed: 20_260_101)
    try RelayWorker.run(backend, RelayPlan(suite: suite)) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      let choices = [0, 1, 17, 1000, 5000, 16_383, 16_384]
      let sizes = (0..<200).map { _ in choices.randomElement(using: &random)! }
      let (plaintext, wire) = stream(peer, sizes)
      let answer = (0..<1_500_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
      var sent = 0
      var answered = 0
      while sent < wire.count || answered < answer.count {
        let end = min(wire.count, sent + Int.random(in: 1...40_000, using: &random))
        try connection.tls.send(Array(wire[sent..<end]), draining: connection.plain)
        sent = end
        let last = min(answer.count, answered + Int.random(in: 1...90_000, using: &random))
        try connection.plain.send(Array(answer[answered..<last]), draining: connection.tls)
        answered = last
      }
      try connection.plain.receive(bytes: plaintext.count)
      let isExact = connection.plain.take() == plaintext
      #expect(isExact)
      try connection.receiveFromTLS("the answer") { $0.count >= answer.count }
      let isAnswerExact = connection.takeFromTLS() == answer
      #expect(isAnswerExact)
    }
  }

  /// Records of these sizes, and what they say.
  private func stream(_ peer: RelayPeer, _ sizes: [Int]) -> (plaintext: [UInt8], wire: [UInt8]) {
    var plaintext: [UInt8] = []
    var wire: [UInt8] = []
    for (index, size) in sizes.enumerated() {
      let content = (0..<size).map { UInt8(truncatingIfNeeded: $0 &+ index &* 7) }
      plaintext += content
      wire += peer.record(.applicationData, content[...])
    }
    return (plaintext, wire)
  }

  // MARK: Records that are too long

  @Test(.enabled(if: hasIOUring, ioUring))
  func ioUringRefusesARecordAnnouncedTooLong() throws { try refusesTooLong(.ioUring) }

  @Test func epollRefusesARecordAnnouncedTooLong() throws { try refusesTooLong(.epoll) }

  /// The header is enough: nobody waits for the rest (RFC 8446 §5.2).
  private func refusesTooLong(_ backend: BackendKind) throws {
    let records = try RelayWorker.run(backend, RelayPlan(suite: .aes128GCM)) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      let length = RecordLayer.maximumContentBytes + RecordLayer.maximumExpansionBytes + 1
      let before = peer.data([1, 2, 3])
      try connection.tls.send(before + [23, 3, 3, UInt8(length >> 8), UInt8(length & 255)])
      try connection.receiveFromTLS("the alert") { _ in !peer.heard.isEmpty }
      #expect(peer.heard == [.alert(Alert.recordOverflow.rawValue)])
      #expect(try connection.plain.receiveEnd() == .reset)
      connection.tls.finish()
      _ = try connection.tls.receiveEnd()
    }
    #expect(records.map(\.end) == [.protocolError])
    #expect(records.first?.reason == "alert_sent_record_overflow")
  }
}

/// SplitMix64: the same numbers in every run.
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var value = state
    value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
    value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
    return value ^ (value >> 31)
  }
}
