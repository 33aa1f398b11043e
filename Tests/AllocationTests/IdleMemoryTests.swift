import Identity
import Net
import Testing

@testable import DataPlane
@testable import RelaySupport
@testable import TLS

/// What an idle connection costs inside the process, apart from the kernel's sockets.
@Suite(.enabled(if: AllocationCount.isPossible, "needs an allocator without a sanitizer"))
struct IdleMemoryTests {
  static let connections = 10_000
  static let bytesPerConnectionMaximum = 2560

  /// Slot, record layer with both keys, deadline, and what the log will say of both ends.
  @Test(arguments: CipherSuite.allCases)
  func anIdleHandedOverConnectionIsSmall(suite: CipherSuite) throws {
    let count = AllocationCount()
    var parts = try Parts()
    var result = Result<Void, any Error>.success(())
    count.follow {
      count.start()
      result = Result { for index in 0..<Self.connections { try parts.add(suite, index) } }
      _ = count.stop()
    }
    try result.get()
    let segments =
      (Self.connections + RecordLayerPool.segmentLayers - 1) / RecordLayerPool.segmentLayers
    let bytes = (count.bytes + segments * RecordLayerPool.segmentBytes) / Self.connections
    #expect(bytes <= Self.bytesPerConnectionMaximum)
    // It measures something: each has at least its slot and its keys.
    #expect(
      bytes >= MemoryLayout<Connection>.stride + MemoryLayout<RecordLayer>.stride)
  }

  static let ioUring: Comment = "needs io_uring of Linux 6.1"
  static var hasIOUring: Bool { Uring.probe() == nil }

  @Test(.enabled(if: hasIOUring, ioUring))
  func ioUringKeepsLittleOfAnIdleConnection() throws {
    try keepsLittle(.ioUring, maximum: Self.bytesPerConnectionMaximum)
  }

  /// Its list has a place for every descriptor number, and half of those are the test's own here.
  @Test func epollKeepsLittleOfAnIdleConnection() throws {
    try keepsLittle(.epoll, maximum: 2 * Self.bytesPerConnectionMaximum)
  }

  /// With real sockets and after data in both directions: the worker's whole heap, less what it
  /// needs for one connection.
  private func keepsLittle(_ backend: BackendKind, maximum: Int) throws {
    // Four descriptors each; a soft limit of 1024 is usual.
    let connections = 200
    let one = try bytesAfterRelaying(backend, connections: 1)
    let all = try bytesAfterRelaying(backend, connections: connections)
    let bytes = (all - one) / (connections - 1) + MemoryLayout<RecordLayer>.stride
    #expect(bytes <= maximum)
    #expect(bytes >= MemoryLayout<Connection>.stride)
  }

  private func bytesAfterRelaying(_ backend: BackendKind, connections: Int) throws -> Int {
    let count = AllocationCount()
    let chunk = [UInt8](repeating: 1, count: 20_000)
    var bytes = 0
    count.start()
    let plan = RelayPlan(suite: .aes128GCM, connections: connections)
    try RelayWorker.run(backend, plan, around: count.follow) { connections in
      for connection in connections {
        let wire = try #require(connection.peer).data(chunk)
        try connection.tls.sendAlone(Array(wire[..<10_000]))
        try connection.tls.send(Array(wire[10_000...]))
        try connection.plain.receive(bytes: chunk.count)
        try connection.plain.send(chunk)
        try connection.receiveFromTLS("the echo") { $0.count >= chunk.count }
      }
      bytes = count.bytes
    }
    return bytes
  }

  /// Of a worker, what a connection takes room in.
  private struct Parts: ~Copyable {
    var slab = Slab(limit: IdleMemoryTests.connections + Slab.chunkSlots)
    var layers = RecordLayerPool()
    var deadlines = DeadlineHeap()
    var ciphers: CipherContexts

    init() throws { ciphers = try CipherContexts() }

    mutating func add(_ suite: CipherSuite, _ index: Int) throws {
      guard let handle = slab.take(),
        let layer = unsafe layers.take(RecordLayer(suite, isClient: false))
      else { throw NoRoom() }
      // As long as texts in a mesh are.
      let details = ConnectionDetails()
      details.source = SocketAddress(.loopbackV4, port: UInt16(index))
      details.destination = SocketAddress(.loopbackV4, port: 443)
      // The worst case: no two connections have the same peer. Its leaf has some 600 bytes.
      let path = VerifiedPath(
        id: try SPIFFEID("spiffe://cluster.local/ns/\(index)/sa/recommendations"),
        leafNotAfterSeconds: 0, notAfterSeconds: 0, notBeforeSeconds: 0)
      details.peer = VerifiedPeer(
        path, leaf: LeafHash([UInt64(index), 0, 0, 0]),
        chain: [UInt8](repeating: 0x30, count: 600), trustEpoch: 1)
      details.alpn = "culvert/1".lowercased()
      details.cipher = suite.name
      handle.it.details = details
      handle.it.state = .relaying
      unsafe handle.it.records = unsafe layer
      let secret = [UInt8](repeating: UInt8(truncatingIfNeeded: index), count: suite.hashBytes)
      let isKeyed = unsafe secret.withUnsafeBytes {
        unsafe layer.pointee.install(send: $0, receive: $0, with: &ciphers)
      }
      guard isKeyed else { throw NoRoom() }
      deadlines.set(handle.slot, UInt64(index + 1))
    }
  }

  private struct NoRoom: Error {}
}
