import Policy
import Telemetry
import Testing

@testable import DataPlane
@testable import RelaySupport
@testable import TLS

/// Ends and keys of a relayed mTLS connection: close_notify and FIN stand for each other, and a
/// KeyUpdate is answered where RFC 8446 §4.6.3 wants it.
@Suite struct RelayEndTests {
  static let ioUring: Comment = "needs io_uring of Linux 6.1"
  static var hasIOUring: Bool { Uring.probe() == nil }
  static let sides = [Side.client, .server]
  private static let question: [UInt8] = Array("question".utf8)
  private static let answer: [UInt8] = Array("the answer".utf8)

  // MARK: Half-close

  @Test(.enabled(if: hasIOUring, ioUring), arguments: sides)
  func ioUringPassesCloseNotifyAsFIN(side: Side) throws { try closeNotifyFirst(.ioUring, side) }

  @Test(arguments: sides)
  func epollPassesCloseNotifyAsFIN(side: Side) throws { try closeNotifyFirst(.epoll, side) }

  private func closeNotifyFirst(_ backend: BackendKind, _ side: Side) throws {
    let plan = RelayPlan(suite: .aes128GCM, tlsSide: side)
    let records = try RelayWorker.run(backend, plan) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      try connection.tls.send(peer.data(Self.question) + peer.closeNotify())
      #expect(try connection.plain.receiveEnd() == .finished)
      #expect(connection.plain.take() == Self.question)
      // The other way is still open.
      try connection.plain.send(Self.answer)
      try connection.receiveFromTLS("the answer") { $0.count >= Self.answer.count }
      #expect(peer.heard == [.data(Self.answer.count)])
      connection.plain.finish()
      try connection.receiveFromTLS("close_notify") { _ in peer.heard.count > 1 }
      #expect(peer.heard.last == .closeNotify)
      #expect(try connection.tls.receiveEnd() == .finished)
      #expect(connection.takeFromTLS() == Self.answer)
    }
    #expect(records.map(\.end) == [.closed])
  }

  @Test(.enabled(if: hasIOUring, ioUring), arguments: sides)
  func ioUringPassesFINAsCloseNotify(side: Side) throws { try finFirst(.ioUring, side) }

  @Test(arguments: sides)
  func epollPassesFINAsCloseNotify(side: Side) throws { try finFirst(.epoll, side) }

  private func finFirst(_ backend: BackendKind, _ side: Side) throws {
    let plan = RelayPlan(suite: .chacha20Poly1305, tlsSide: side)
    let records = try RelayWorker.run(backend, plan) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      try connection.plain.send(Self.answer)
      connection.plain.finish()
      try connection.receiveFromTLS("close_notify") { _ in peer.heard.count > 1 }
      #expect(peer.heard == [.data(Self.answer.count), .closeNotify])
      #expect(connection.takeFromTLS() == Self.answer)
      #expect(try connection.tls.receiveEnd() == .finished)
      // The other way is still open.
      try connection.tls.send(peer.data(Self.question))
      try connection.plain.receive(bytes: Self.question.count)
      try connection.tls.send(peer.closeNotify())
      #expect(try connection.plain.receiveEnd() == .finished)
      #expect(connection.plain.take() == Self.question)
    }
    #expect(records.map(\.end) == [.closed])
  }

  @Test(.enabled(if: hasIOUring, ioUring), arguments: sides)
  func ioUringPassesABareFINAsReset(side: Side) throws { try bareFIN(.ioUring, side) }

  @Test(arguments: sides)
  func epollPassesABareFINAsReset(side: Side) throws { try bareFIN(.epoll, side) }

  /// Without close_notify nobody knows whether the stream is whole (RFC 8446 §6.1).
  private func bareFIN(_ backend: BackendKind, _ side: Side) throws {
    let plan = RelayPlan(suite: .aes256GCM, tlsSide: side)
    let records = try RelayWorker.run(backend, plan) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      try connection.tls.send(peer.data(Self.question))
      try connection.plain.receive(bytes: Self.question.count)
      connection.tls.finish()
      #expect(try connection.plain.receiveEnd() == .reset)
      #expect(connection.plain.take() == Self.question)
    }
    #expect(records.map(\.end) == [.truncated])
  }

  // MARK: On the way to the kernel

  @Test(.enabled(if: hasIOUring, ioUring), arguments: sides)
  func ioUringHearsAPeerThatDoesNotRead(side: Side) throws { try deafPeer(.ioUring, side) }

  @Test(arguments: sides)
  func epollHearsAPeerThatDoesNotRead(side: Side) throws { try deafPeer(.epoll, side) }

  /// The connection is about to go to the kernel and cannot, because what was sent is not taken;
  /// the peer waits to be heard before it reads on. Without kTLS it then stays where it is.
  private func deafPeer(_ backend: BackendKind, _ side: Side) throws {
    var plan = RelayPlan(suite: .aes128GCM, tlsSide: side)
    plan.kernel.send = Set(CipherSuite.allCases)
    plan.kernel.receive = Set(CipherSuite.allCases)
    plan.kernel.canRekey = true
    plan.kernelTLSAfterBytes = 100_000
    try RelayWorker.run(backend, plan) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      try connection.plain.sendUntilBlocked([UInt8](repeating: 1, count: 100_000))
      try connection.tls.send(peer.data(Self.question))
      try connection.plain.receive(bytes: Self.question.count)
      #expect(connection.plain.take() == Self.question)
      // It reads at last: everything moves again, both ways.
      try connection.receiveFromTLS("what was sent") { $0.count >= 1_000_000 }
      try connection.tls.send(peer.data(Self.question))
      try connection.plain.receive(bytes: Self.question.count)
    }
  }

  // MARK: Keys

  @Test(.enabled(if: hasIOUring, ioUring), arguments: CipherSuite.allCases)
  func ioUringAnswersAKeyUpdateBeforeItsNextData(suite: CipherSuite) throws {
    try keyUpdate(.ioUring, suite)
  }

  @Test(arguments: CipherSuite.allCases)
  func epollAnswersAKeyUpdateBeforeItsNextData(suite: CipherSuite) throws {
    try keyUpdate(.epoll, suite)
  }

  private func keyUpdate(_ backend: BackendKind, _ suite: CipherSuite) throws {
    try RelayWorker.run(backend, RelayPlan(suite: suite)) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      // One that asks for nothing gets nothing.
      try connection.tls.send(peer.keyUpdate(isRequested: false) + peer.data(Self.question))
      try connection.plain.receive(bytes: Self.question.count)
      try exchange(connection, peer)
      #expect(peer.heard == [.data(Self.answer.count)])
      // Two requests before we send anything: one answer, and the new keys hold.
      try connection.tls.send(
        peer.keyUpdate(isRequested: true) + peer.keyUpdate(isRequested: true)
          + peer.data(Self.question))
      try connection.plain.receive(bytes: 2 * Self.question.count)
      try exchange(connection, peer)
      #expect(peer.heard == [.data(Self.answer.count), .keyUpdate, .data(Self.answer.count)])
      try connection.tls.send(peer.data(Self.question))
      try connection.plain.receive(bytes: 3 * Self.question.count)
      #expect(connection.plain.take() == Self.question + Self.question + Self.question)
    }
  }

  private func exchange(_ connection: RelayedConnection, _ peer: RelayPeer) throws {
    try connection.plain.send(Self.answer)
    try connection.receiveFromTLS("the answer") { $0.count >= Self.answer.count }
    #expect(connection.takeFromTLS() == Self.answer)
  }

  @Test(.enabled(if: hasIOUring, ioUring), arguments: CipherSuite.allCases)
  func ioUringReplacesItsWornOutKey(suite: CipherSuite) throws { try wornOutKey(.ioUring, suite) }

  @Test(arguments: CipherSuite.allCases)
  func epollReplacesItsWornOutKey(suite: CipherSuite) throws { try wornOutKey(.epoll, suite) }

  /// With 64 records to a key, the KeyUpdate the last of them, 500 chunks of one record each take
  /// seven updates. ChaCha20-Poly1305 has no such limit (RFC 8446 §5.5).
  private func wornOutKey(_ backend: BackendKind, _ suite: CipherSuite) throws {
    try RelayWorker.run(backend, RelayPlan(suite: suite, recordsPerKey: 64)) { connections in
      let connection = connections[0]
      let peer = try #require(connection.peer)
      for _ in 0..<500 { try exchange(connection, peer) }
      let updates = peer.heard.count { $0 == .keyUpdate }
      #expect(updates == (suite.keyWearsOut ? 7 : 0))
      // Keys change within one send, too.
      let large = (0..<1_000_000).map { UInt8(truncatingIfNeeded: $0 &* 13) }
      try connection.plain.send(large, draining: connection.tls)
      try connection.receiveFromTLS("a large answer") { $0.count >= large.count }
      let isExact = connection.takeFromTLS() == large
      #expect(isExact)
      try connection.tls.send(peer.data(Self.question))
      try connection.plain.receive(bytes: Self.question.count)
      #expect(connection.plain.take() == Self.question)
    }
  }
}
