import Identity
import Net
import Testing

@testable import DataPlane
@testable import TLS

/// What an idle connection costs inside the process, measured on a worker's own parts without
/// sockets.
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
      details.peer = try SPIFFEID("spiffe://cluster.local/ns/\(index)/sa/recommendations")
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
