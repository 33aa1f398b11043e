import Testing

@testable import DataPlane

@Suite struct BufferPoolTests {
  @Test func everyBufferIsGivenOnceUpToTheLimit() {
    var pool = BufferPool(bufferBytes: 4096, limit: 40)
    var taken: Set<Int32> = []
    while let buffer = pool.acquire() { #expect(taken.insert(buffer).inserted) }
    #expect(taken.count == 40)
    let isExhausted = !pool.hasFree
    #expect(isExhausted)
    for buffer in taken { pool.release(buffer) }
    let hasFree = pool.hasFree
    #expect(hasFree)
  }

  @Test func buffersDoNotOverlap() {
    var pool = BufferPool(bufferBytes: 4096, limit: 33)
    var buffers: [Int32] = []
    while let buffer = pool.acquire() {
      unsafe pool.memory(buffer).initializeMemory(
        as: UInt8.self, repeating: UInt8(buffer), count: 4096)
      buffers.append(buffer)
    }
    for buffer in buffers {
      let bytes = unsafe UnsafeRawBufferPointer(start: pool.memory(buffer), count: 4096)
      let isIntact = unsafe bytes.allSatisfy { $0 == UInt8(buffer) }
      #expect(isIntact)
    }
  }

  @Test func theLastReleasedIsTheNextGiven() {
    var pool = BufferPool(bufferBytes: 4096, limit: 16)
    _ = pool.acquire()
    let hot = pool.acquire()
    if let hot { pool.release(hot) }
    let next = pool.acquire()
    #expect(next == hot)
  }
}

@Suite struct DeadlineHeapTests {
  @Test func deadlinesExpireInOrderAndOnlyOnce() {
    var heap = DeadlineHeap()
    for slot in (0..<200).shuffled() { heap.set(UInt32(slot), UInt64(slot) * 10) }
    #expect(heap.first == 0)
    var expired: [UInt32] = []
    while let slot = heap.popExpired(now: 995) { expired.append(slot) }
    #expect(expired == (0..<100).map(UInt32.init))
    #expect(heap.first == 1000)
  }

  /// Against a dictionary that is searched in full.
  @Test func anySequenceOfChangesAgreesWithAPlainTable() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<200 {
      var heap = DeadlineHeap()
      var table: [UInt32: UInt64] = [:]
      for _ in 0..<100 {
        let slot = UInt32.random(in: 0..<20, using: &generator)
        if Bool.random(using: &generator) {
          let deadline = UInt64.random(in: 1...1000, using: &generator)
          heap.set(slot, deadline)
          table[slot] = deadline
        } else {
          heap.clear(slot)
          table[slot] = nil
        }
        #expect(heap.first == table.values.min())
      }
      while let slot = heap.popExpired(now: 1000) {
        #expect(table[slot] == table.values.min())
        table[slot] = nil
      }
      #expect(table.isEmpty)
    }
  }
}

@Suite struct SlabTests {
  @Test func aTokenOfAnEarlierTenantFindsNothing() throws {
    var slab = Slab(limit: 128)
    let first = slab.take()
    let handle = try #require(first)
    handle.it.state = .relaying
    let token = handle.token(.receiveClient)
    let found = slab.find(token)?.slot
    #expect(found == handle.slot)
    slab.vacate(handle)
    let isGone = slab.find(token) == nil
    #expect(isGone)
    let second = slab.take()
    let next = try #require(second)
    next.it.state = .relaying
    #expect(next.slot == handle.slot)
    let isStillGone = slab.find(token) == nil
    #expect(isStillGone)
  }

  @Test func slotsEndAtTheLimit() {
    var slab = Slab(limit: Slab.chunkSlots)
    for _ in 0..<Slab.chunkSlots {
      let handle = slab.take()
      #expect(handle != nil)
      handle?.it.state = .sniffing
    }
    let isFull = slab.take() == nil
    #expect(isFull)
  }

  @Test func tokensKeepTheirParts() {
    let token = Token(.pollServer, slot: .max, generation: 0xab_cdef)
    #expect(token.operation == .pollServer)
    #expect(token.slot == .max)
    #expect(token.generation == 0xab_cdef)
  }
}
