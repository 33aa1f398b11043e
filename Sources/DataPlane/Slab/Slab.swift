/// Connection slots: reserved in chunks when first needed, never moved, reused last in first out.
@safe struct Slab: ~Copyable {
  /// Slots a chunk holds.
  static let chunkSlots = 128

  let limit: Int
  private var chunks: [UnsafeMutablePointer<Connection>] = unsafe []
  private var free: [UInt32] = []

  init(limit: Int) { self.limit = limit }

  deinit {
    for index in unsafe chunks.indices {
      unsafe chunks[index].deinitialize(count: Self.chunkSlots)
      unsafe chunks[index].deallocate()
    }
  }

  /// Slots that exist, in use or not.
  var capacity: Int { unsafe chunks.count * Self.chunkSlots }

  /// A vacant slot, or nil at the limit.
  mutating func take() -> Handle? {
    if free.isEmpty {
      let start = capacity
      guard start < limit else { return nil }
      let chunk = UnsafeMutablePointer<Connection>.allocate(capacity: Self.chunkSlots)
      unsafe chunk.initialize(repeating: Connection(), count: Self.chunkSlots)
      unsafe chunks.append(chunk)
      free.append(contentsOf: (start..<start + Self.chunkSlots).reversed().map(UInt32.init))
    }
    return handle(free.removeLast())
  }

  /// Makes the slot vacant; its next tenant has another generation.
  mutating func vacate(_ handle: Handle) {
    let generation = handle.it.generation
    handle.it = Connection()
    handle.it.generation = (generation + 1) & 0xff_ffff
    free.append(handle.slot)
  }

  func handle(_ slot: UInt32) -> Handle {
    let (chunk, index) = Int(slot).quotientAndRemainder(dividingBy: Self.chunkSlots)
    return unsafe Handle(slot: slot, pointer: chunks[chunk] + index)
  }

  /// The slot a completion means, or nil if its tenant has left.
  func find(_ token: Token) -> Handle? {
    guard Int(token.slot) < capacity else { return nil }
    let handle = handle(token.slot)
    guard handle.it.generation == token.generation, handle.it.state != .vacant else { return nil }
    return handle
  }
}
