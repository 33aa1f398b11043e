import COpenSSL
import TLS
import Testing

@testable import DataPlane

/// Keys: never a nonce twice, shared contexts, and nothing left of them afterwards.
@Suite struct RecordKeyTests {
  private func bytes<let count: Int>(_ array: InlineArray<count, UInt8>) -> [UInt8] {
    (0..<count).map { array[$0] }
  }

  /// Opens records one by one and notes under which key and nonce each authenticated.
  private func note(
    _ sealed: [UInt8], at end: RecordEnd, in seen: inout Set<[UInt8]>
  ) -> Int {
    var count = 0
    for record in records(in: sealed) {
      let used = bytes(end.layer.receive.key) + bytes(end.layer.receive.nonce)
      if case .failed(let fault) = end.open(record) {
        Issue.record("\(fault.detail)")
        return count
      }
      #expect(seen.insert(used).inserted, "a nonce used twice")
      count += 1
    }
    return count
  }

  @Test(arguments: CipherSuite.allCases)
  func `no key and nonce protect two records, over many KeyUpdates of both ends`(
    suite: CipherSuite
  ) throws {
    let pair = RecordPair(suite, recordsPerKey: RecordLayer.recordsPerKeyMinimum)
    var random = Seeded(state: UInt64(suite.rawValue))
    var seen: Set<[UInt8]> = []
    var count = 0
    let large = [UInt8](repeating: 1, count: 40_000)
    for _ in 0..<2500 {
      let (end, peer) =
        Bool.random(using: &random) ? (pair.client, pair.server) : (pair.server, pair.client)
      let sealed =
        switch Int.random(in: 0..<20, using: &random) {
        case 0: end.keyUpdate(requested: true) + (try #require(end.seal([1])))
        case 1: end.keyUpdate() + (try #require(end.seal([1])))
        case 2: end.control()
        case 3: try #require(end.seal(large))
        default: try #require(end.seal([1, 2, 3]))
        }
      count += note(sealed, at: peer, in: &seen)
    }
    count += note(pair.client.closeNotify(), at: pair.server, in: &seen)
    count += note(pair.server.closeNotify(), at: pair.client, in: &seen)
    #expect(seen.count == count)
    #expect(count > 2500)
    // Many keys, or the above would be no more than counting.
    #expect(Set(seen.map { Array($0[..<32]) }).count > 50)
  }

  /// The twin: what `note` looks for is found when it is there.
  @Test func `a number used twice is noticed`() throws {
    let pair = RecordPair()
    var seen: Set<[UInt8]> = []
    #expect(note(try #require(pair.client.seal([1])), at: pair.server, in: &seen) == 1)
    pair.client.layer.send.sequence = 0
    pair.server.layer.receive.sequence = 0
    let used = bytes(pair.server.layer.receive.key) + bytes(pair.server.layer.receive.nonce)
    #expect(seen.contains(used))
    #expect(pair.server.open(try #require(pair.client.seal([1]))) == .data(1))
  }

  // MARK: Shared contexts

  @Test
  func `layers that share contexts write the same bytes as layers with contexts of their own`()
    throws
  {
    let contexts = Contexts()
    var sharing: [RecordPair] = []
    var alone: [RecordPair] = []
    for index in 0..<12 {
      let suite = CipherSuite.allCases[index % 3]
      let seed = UInt8(index / 3)
      sharing.append(RecordPair(suite, seed: seed, contexts: contexts, recordsPerKey: 64))
      alone.append(RecordPair(suite, seed: seed, recordsPerKey: 64))
    }
    var random = Seeded(state: 11)
    for _ in 0..<3000 {
      let index = Int.random(in: 0..<sharing.count, using: &random)
      let isUp = Bool.random(using: &random)
      let content = [UInt8](
        repeating: UInt8(index), count: Int.random(in: 1...200, using: &random))
      let kind = Int.random(in: 0..<10, using: &random)
      var written: [[UInt8]] = []
      for pair in [sharing[index], alone[index]] {
        let (end, peer) = isUp ? (pair.client, pair.server) : (pair.server, pair.client)
        let updates = kind == 0 ? end.keyUpdate(requested: true) : []
        let sealed = updates + (try #require(end.seal(content)))
        for record in records(in: sealed) {
          if case .failed(let fault) = peer.open(record) { Issue.record("\(fault.detail)") }
        }
        written.append(sealed)
      }
      try #require(written[0] == written[1])
    }
    for (one, other) in zip(sharing, alone) {
      #expect(one.server.received == other.server.received)
      #expect(one.client.received == other.client.received)
      #expect(!one.server.received.isEmpty && !one.client.received.isEmpty)
    }
  }

  @Test func `no two keys that contexts were given have the same name`() {
    let contexts = Contexts()
    var names: Set<UInt64> = [0]
    for index in 0..<20 {
      let pair = RecordPair(seed: UInt8(index), contexts: contexts)
      for end in [pair.client, pair.server] {
        _ = end.keyUpdate()
        #expect(names.insert(end.layer.send.identifier).inserted)
        #expect(names.insert(end.layer.receive.identifier).inserted)
      }
    }
  }

  // MARK: Forgetting

  /// What a context makes of a block under whatever key it holds; nil if it holds none.
  private func protect(_ context: OpaquePointer?) -> [UInt8]? {
    let nonce = [UInt8](repeating: 9, count: 12)
    let text = [UInt8](repeating: 0, count: 16)
    var output = [UInt8](repeating: 0, count: 16)
    var written: Int32 = 0
    guard unsafe EVP_CipherInit_ex(context, nil, nil, nil, nonce, -1) == 1,
      unsafe EVP_CipherUpdate(context, &output, &written, text, 16) == 1
    else { return nil }
    return output
  }

  private func index(_ suite: CipherSuite) -> Int {
    CipherSuite.allCases.firstIndex(of: suite)!
  }

  @Test(arguments: CipherSuite.allCases)
  func `a context does not protect with a key that was forgotten`(suite: CipherSuite) throws {
    // Contexts of their own: the peer's must not be in the way.
    let (end, peer) = (RecordPair(suite).client, RecordPair(suite).server)
    _ = try #require(end.seal([1]))
    _ = end.open(try #require(peer.seal([1])))
    func blocks() -> [[UInt8]?] {
      let ciphers = end.contexts
      return unsafe [
        protect(ciphers.ciphers.sealing[index(suite)].pointer),
        protect(ciphers.ciphers.opening[index(suite)].pointer),
      ]
    }
    // The zero key, by a context of its own.
    let zero = Contexts()
    var key = RecordKey()
    key.identifier = 1
    var record = [UInt8](repeating: 0, count: 100)
    unsafe record.withUnsafeMutableBytes { record in
      let content = unsafe UnsafeRawBufferPointer(start: record.baseAddress, count: 1)
      let isSealed = unsafe zero.ciphers.seal(
        suite, &key, type: .alert, content, to: record.baseAddress! + 50)
      #expect(isSealed)
    }
    let cleared = unsafe protect(zero.ciphers.sealing[index(suite)].pointer)
    #expect(cleared != nil)

    let held = blocks()
    #expect(held[0] != nil && held[0] != held[1], "two directions, two keys")
    #expect(held[0] != cleared)
    #expect(blocks() == held, "the scan sees the key as long as it is there")
    end.contexts.ciphers.forget(key: end.layer.send.identifier)
    #expect(blocks() == [cleared, held[1]])
    end.contexts.ciphers.forget(key: end.layer.receive.identifier)
    #expect(blocks() == [cleared, cleared])
    // And a forgotten name does not pass for a key that is held.
    _ = end.open(try #require(peer.seal([1])))
    #expect(blocks()[1] == held[1])
  }

  @Test(arguments: CipherSuite.allCases)
  func `a KeyUpdate leaves nothing of the old key in a context`(suite: CipherSuite) throws {
    let pair = RecordPair(suite)
    _ = try #require(pair.client.seal([1]))
    let context = unsafe pair.client.contexts.ciphers.sealing[index(suite)].pointer
    let held = unsafe protect(context)
    pair.client.updateSendingKey()
    let after = unsafe protect(context)
    #expect(held != nil && after != nil && after != held)
  }

  @Test func `forgetting one connection's key leaves another one's in place`() throws {
    let contexts = Contexts()
    let one = RecordPair(seed: 1, contexts: contexts)
    let two = RecordPair(seed: 2, contexts: contexts)
    _ = try #require(one.client.seal([1]))
    _ = try #require(two.client.seal([1]))
    let held = unsafe protect(contexts.ciphers.sealing[0].pointer)
    contexts.ciphers.forget(key: one.client.layer.send.identifier)
    unsafe #expect(protect(contexts.ciphers.sealing[0].pointer) == held)
    contexts.ciphers.forget(key: RecordKey().identifier)
    unsafe #expect(protect(contexts.ciphers.sealing[0].pointer) == held)
  }

  // MARK: Memory

  @Test(arguments: CipherSuite.allCases)
  func `what a pool takes back is zero`(suite: CipherSuite) throws {
    var pool = RecordLayerPool()
    let taken = unsafe pool.take(RecordLayer(suite, isClient: true))
    let place = try unsafe #require(taken)
    let contexts = Contexts()
    let secret = [UInt8](repeating: 0x5a, count: suite.hashBytes)
    let isInstalled = unsafe secret.withUnsafeBytes { secret in
      unsafe place.pointee.install(send: secret, receive: secret, with: &contexts.ciphers)
    }
    #expect(isInstalled)
    let memory = unsafe UnsafeRawBufferPointer(
      start: place, count: MemoryLayout<RecordLayer>.stride)
    let key = unsafe Array(bytes(place.pointee.send.key)[..<suite.keyBytes])
    func holds(_ wanted: [UInt8]) -> Bool {
      let all = unsafe Array(memory)
      return (0...all.count - wanted.count).contains { start in
        all[start..<start + wanted.count].elementsEqual(wanted)
      }
    }
    #expect(holds(secret))
    #expect(holds(key))
    unsafe pool.give(place)
    #expect(!holds(secret))
    #expect(!holds(key))
    let isZero = unsafe memory.allSatisfy { $0 == 0 }
    #expect(isZero)
  }

  @Test func `a pool gives each place once, and the last one returned first`() throws {
    var pool = RecordLayerPool()
    var places: Set<UnsafeMutablePointer<RecordLayer>> = unsafe []
    for _ in 0..<RecordLayerPool.segmentLayers * 2 + 1 {
      let taken = unsafe pool.take(RecordLayer(.aes128GCM, isClient: false))
      let place = try unsafe #require(taken)
      let isNew = unsafe places.insert(place).inserted
      #expect(isNew)
    }
    let returned = try unsafe #require(places.first)
    unsafe pool.give(returned)
    let again = unsafe pool.take(RecordLayer(.aes128GCM, isClient: false))
    let isSame = unsafe again == returned
    #expect(isSame)
  }
}
