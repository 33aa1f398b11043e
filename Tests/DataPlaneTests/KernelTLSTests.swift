import Policy
import TLS
import Telemetry
import Testing

@testable import DataPlane
@testable import RelaySupport

/// In the kernel lab every kernel has it.
let kernelHasTLS = KernelSelfTest.isAvailable

@Suite(.enabled(if: kernelHasTLS, "needs TLS sockets (CONFIG_TLS)"))
struct `KernelTLS self-test` {
  @Test func `passes for every suite in both directions`() {
    let verdict = KernelSelfTest.run()
    #expect(verdict.send == Set(CipherSuite.allCases), "\(verdict.sendReason ?? "")")
    #expect(verdict.receive == Set(CipherSuite.allCases), "\(verdict.receiveReason ?? "")")
  }
}

/// One worker whose connections go to the kernel, against the user engine.
@Suite(.serialized, .enabled(if: kernelHasTLS, "needs TLS sockets (CONFIG_TLS)"))
struct `KernelTLS relay` {
  struct Case: Sendable, CustomTestStringConvertible {
    let backend: BackendKind
    let suite: CipherSuite

    var testDescription: String { "\(backend.rawValue), \(suite.name)" }

    static let all = [BackendKind.ioUring, .epoll].flatMap { backend in
      CipherSuite.allCases.map { Case(backend: backend, suite: $0) }
    }
  }

  private static let verdict = KernelSelfTest.run()
  /// Also on kernels that could not follow a key update: here the test knows that none comes.
  private static var wholly: KernelVerdict {
    var verdict = verdict
    verdict.canRekey = true
    return verdict
  }
  private static let question: [UInt8] = Array("question".utf8)
  private static let answer: [UInt8] = Array("the answer".utf8)

  private static func bytes(_ count: Int) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 9) }
  }

  private func run(
    _ test: Case, side: Side = .client, after bytes: Int = 0,
    verdict: KernelVerdict = Self.wholly,
    recordsPerKey: Int = RecordLayer.recordsPerKeyMaximum,
    _ body: (RelayedConnection, RelayPeer) throws -> Void
  ) throws -> ConnectionRecord {
    var plan = RelayPlan(suite: test.suite, tlsSide: side, recordsPerKey: recordsPerKey)
    plan.kernel = verdict
    plan.kernelTLSAfterBytes = bytes
    let records = try RelayWorker.run(test.backend, plan) { connections in
      try body(connections[0], try #require(connections[0].peer))
    }
    return try #require(records.first)
  }

  private func exchange(_ connection: RelayedConnection, _ peer: RelayPeer) throws {
    try connection.plain.send(Self.answer)
    try connection.receiveFromTLS("the answer") { $0.count >= Self.answer.count }
    #expect(connection.takeFromTLS() == Self.answer)
    try connection.tls.send(peer.data(Self.question))
    try connection.plain.receive(bytes: connection.plain.received.count + 1)
  }

  private func expectKernel(_ record: ConnectionRecord, _ end: ConnectionEnd = .closed) {
    #expect(record.sendEngine == .kernel)
    #expect(record.receiveEngine == .kernel)
    #expect(record.end == end)
  }

  /// The switch comes in the middle of the flow; everything before and after it is there, with
  /// each end's FIN right behind its last byte.
  @Test(arguments: Case.all, [0, 300_000]) func `is exact in both directions`(
    test: Case, after: Int
  ) throws {
    let payload = Self.bytes(1_000_000)
    let record = try run(test, after: after) { connection, peer in
      try connection.tls.send(peer.data(payload) + peer.closeNotify(), draining: connection.plain)
      #expect(try connection.plain.receiveEnd() == .finished)
      let isExact = connection.plain.take() == payload
      #expect(isExact)
      try connection.plain.send(payload, draining: connection.tls)
      connection.plain.finish()
      try connection.receiveFromTLS("everything") { _ in peer.heard.last == .closeNotify }
      #expect(try connection.tls.receiveEnd() == .finished)
      let isExactBack = connection.takeFromTLS() == payload
      #expect(isExactBack)
    }
    if after == 0 { expectKernel(record) } else { #expect(record.receiveEngine == .kernel) }
  }

  /// No byte of a record that has begun may be in the proxy when the kernel takes over.
  @Test(arguments: [BackendKind.ioUring, .epoll], [3, 700])
  func `takes over at a record's end`(backend: BackendKind, cut: Int) throws {
    let record = try run(Case(backend: backend, suite: .aes128GCM), after: 5000) {
      connection, peer in
      let whole = Self.bytes(6000)
      let records = peer.data(whole) + peer.data(whole)
      // Cut in the header, or in the body: the rest comes when the worker waits for it.
      let first = 6022 + cut
      try connection.tls.sendAlone(Array(records[..<first]))
      try connection.tls.sendAlone(Array(records[first..<first + 1]))
      try connection.tls.send(Array(records[(first + 1)...]))
      try connection.plain.receive(bytes: 12_000)
      #expect(connection.plain.take() == whole + whole)
      try exchange(connection, peer)
      try connection.tls.send(peer.closeNotify())
      connection.plain.finish()
      #expect(try connection.tls.receiveEnd() == .finished)
    }
    expectKernel(record)
  }

  @Test(arguments: [BackendKind.ioUring, .epoll]) func `tells close_notify from a bare FIN`(
    backend: BackendKind
  ) throws {
    let record = try run(Case(backend: backend, suite: .chacha20Poly1305)) { connection, peer in
      try exchange(connection, peer)
      connection.tls.finish()
      #expect(try connection.plain.receiveEnd() == .reset)
    }
    expectKernel(record, .truncated)
  }

  @Test(arguments: [BackendKind.ioUring, .epoll]) func `passes over tickets and empty records`(
    backend: BackendKind
  ) throws {
    let test = Case(backend: backend, suite: .aes256GCM)
    let record = try run(test, side: .server) { connection, peer in
      let ticket: [UInt8] = [4, 0, 0, 14] + [UInt8](repeating: 7, count: 14)
      for _ in 0..<3 {
        try connection.tls.send(
          peer.record(.handshake, ticket[...]) + peer.record(.applicationData, [])
            + peer.data(Self.question))
      }
      try connection.plain.receive(bytes: 3 * Self.question.count)
      #expect(connection.plain.take() == Self.question + Self.question + Self.question)
      try connection.tls.send(peer.closeNotify())
      connection.plain.finish()
      #expect(try connection.tls.receiveEnd() == .finished)
    }
    expectKernel(record)
  }

  @Test(arguments: [BackendKind.ioUring, .epoll]) func `refuses a damaged record by its alert`(
    backend: BackendKind
  ) throws {
    let record = try run(Case(backend: backend, suite: .aes128GCM)) { connection, peer in
      var record = peer.data(Self.question)
      record[9] ^= 1
      try connection.tls.send(record)
      try connection.receiveFromTLS("the alert") { _ in !peer.heard.isEmpty }
      #expect(peer.heard == [.alert(Alert.badRecordMAC.rawValue)])
      #expect(try connection.plain.receiveEnd() == .reset)
    }
    expectKernel(record, .protocolError)
    #expect(record.reason == "alert_sent_bad_record_mac")
  }

  /// With 64 records to a key instead of 2^24.
  @Test(arguments: Case.all) func `never lets a key of ours wear out`(test: Case) throws {
    let record = try run(test, verdict: Self.verdict, recordsPerKey: 64) { connection, peer in
      for _ in 0..<200 { try exchange(connection, peer) }
      let updates = peer.heard.count { $0 == .keyUpdate }
      #expect(test.suite.keyWearsOut ? updates >= 3 : updates == 0)
      let large = Self.bytes(2_000_000)
      try connection.plain.send(large, draining: connection.tls)
      try connection.receiveFromTLS("a large answer") { $0.count >= large.count }
      let isExact = connection.takeFromTLS() == large
      #expect(isExact)
    }
    let isKernel = Self.verdict.canRekey || !test.suite.keyWearsOut
    #expect(record.sendEngine == (isKernel ? .kernel : .user))
  }

  @Test(arguments: Case.all) func `follows a peer's key update, or ends by name`(
    test: Case
  ) throws {
    let record = try run(test, verdict: Self.verdict) { connection, peer in
      try exchange(connection, peer)
      _ = connection.plain.take()
      try connection.tls.send(peer.keyUpdate(isRequested: true) + peer.data(Self.question))
      guard Self.verdict.canRekey else {
        #expect(try connection.plain.receiveEnd() == .reset)
        return
      }
      try connection.plain.receive(bytes: Self.question.count)
      #expect(connection.plain.take() == Self.question)
      try connection.receiveFromTLS("a key update") { _ in peer.heard.contains(.keyUpdate) }
      try exchange(connection, peer)
    }
    #expect(record.receiveEngine == .kernel)
    if !Self.verdict.canRekey {
      #expect(record.end == .protocolError)
      #expect(record.engineReason == "key_update_unsupported")
    }
  }
}
