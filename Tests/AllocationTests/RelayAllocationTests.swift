import Testing

@testable import DataPlane
@testable import RelaySupport
@testable import TLS

/// Once a connection is warm, relaying allocates nothing: the worker's thread is counted while
/// chunks pass one by one.
@Suite(.enabled(if: AllocationCount.isPossible, "needs an allocator without a sanitizer"))
struct RelayAllocationTests {
  static let ioUring: Comment = "needs io_uring of Linux 6.1"
  static var hasIOUring: Bool { Uring.probe() == nil }
  /// nil is plaintext.
  static let suites: [CipherSuite?] = [nil] + CipherSuite.allCases
  static let chunks = [1, 1024, 65_536]

  @Test(.enabled(if: hasIOUring, ioUring), arguments: suites, chunks)
  func ioUringRelaysWithoutAllocating(suite: CipherSuite?, bytes: Int) throws {
    try relaysWithoutAllocating(.ioUring, suite, bytes)
  }

  @Test(arguments: suites, chunks)
  func epollRelaysWithoutAllocating(suite: CipherSuite?, bytes: Int) throws {
    try relaysWithoutAllocating(.epoll, suite, bytes)
  }

  @Test(.enabled(if: hasIOUring, ioUring), arguments: suites)
  func ioUringSharesItsContextsWithoutAllocating(suite: CipherSuite?) throws {
    try sharesWithoutAllocating(.ioUring, suite)
  }

  @Test(arguments: suites)
  func epollSharesItsContextsWithoutAllocating(suite: CipherSuite?) throws {
    try sharesWithoutAllocating(.epoll, suite)
  }

  @Test(.enabled(if: hasIOUring, ioUring), arguments: suites)
  func ioUringRelaysBulkWithoutAllocating(suite: CipherSuite?) throws {
    try relaysWithoutAllocating(.ioUring, suite, 1 << 20, times: 4)
  }

  @Test(arguments: suites)
  func epollRelaysBulkWithoutAllocating(suite: CipherSuite?) throws {
    try relaysWithoutAllocating(.epoll, suite, 1 << 20, times: 4)
  }

  /// The twin: a cold worker makes its cipher contexts with the first chunk, and is caught at it.
  @Test(arguments: [BackendKind.epoll])
  func aColdWorkerIsSeenAllocating(backend: BackendKind) throws {
    let count = AllocationCount()
    try RelayWorker.run(backend, RelayPlan(suite: .aes128GCM), around: count.follow) {
      count.start()
      try Self.pass([UInt8](repeating: 7, count: 100), $0[0], times: 1)
    }
    #expect(count.stop() > 0)
  }

  // MARK: -

  private func relaysWithoutAllocating(
    _ backend: BackendKind, _ suite: CipherSuite?, _ bytes: Int, times: Int = 16
  ) throws {
    let chunk = (0..<bytes).map { UInt8(truncatingIfNeeded: $0) }
    try expectNone(backend, RelayPlan(suite: suite)) { connections in
      try Self.pass(chunk, connections[0], times: times)
    }
  }

  /// Eight connections take turns, so that every burst re-keys the worker's contexts.
  private func sharesWithoutAllocating(_ backend: BackendKind, _ suite: CipherSuite?) throws {
    let chunk = (0..<20_000).map { UInt8(truncatingIfNeeded: $0) }
    try expectNone(backend, RelayPlan(suite: suite, connections: 8)) { connections in
      for _ in 0..<8 {
        for connection in connections { try Self.pass(chunk, connection, times: 1) }
      }
    }
  }

  /// Runs the body once to warm up, once to count.
  private func expectNone(
    _ backend: BackendKind, _ plan: RelayPlan, _ body: ([RelayedConnection]) throws -> Void
  ) throws {
    let count = AllocationCount()
    var allocations = 0
    try RelayWorker.run(backend, plan, around: count.follow) { connections in
      try Self.warm(connections)
      try body(connections)
      count.start()
      try body(connections)
      allocations = count.stop()
    }
    #expect(allocations == 0)
    if allocations > 0 { count.printPlaces() }
  }

  /// Every connection has a record in parts at once, and all are busy both ways at once.
  private static func warm(_ connections: [RelayedConnection]) throws {
    let chunk = [UInt8](repeating: 1, count: 65_536)
    let wires = connections.map { $0.peer?.data(chunk) ?? chunk }
    for (connection, wire) in zip(connections, wires) {
      try connection.tls.sendAlone(Array(wire[..<10]))
    }
    for (connection, wire) in zip(connections, wires) {
      try connection.tls.send(Array(wire[10...]), draining: connection.plain)
      try connection.plain.send(chunk, draining: connection.tls)
    }
    for connection in connections { try receiveBoth(chunk.count, connection) }
  }

  /// The chunk goes to the other end, and then back, one at a time.
  private static func pass(
    _ chunk: [UInt8], _ connection: RelayedConnection, times: Int
  ) throws {
    for _ in 0..<times {
      let wire = connection.peer?.data(chunk) ?? chunk
      try connection.tls.send(wire, draining: connection.plain)
      try connection.plain.receive(bytes: chunk.count)
      let passed = connection.plain.take()
      #expect(passed == chunk)
      try connection.plain.send(chunk, draining: connection.tls)
      try receive(sealed: chunk.count, connection)
      #expect(connection.takeFromTLS() == chunk)
    }
  }

  private static func receiveBoth(_ count: Int, _ connection: RelayedConnection) throws {
    try connection.plain.receive(bytes: count)
    _ = connection.plain.take()
    try receive(sealed: count, connection)
    _ = connection.takeFromTLS()
  }

  private static func receive(sealed count: Int, _ connection: RelayedConnection) throws {
    try connection.receiveFromTLS("\(count) bytes of plaintext") { $0.count >= count }
  }
}
