/// Memory for held bytes in two sizes: one TLS record, or a ClientHello as large as is accepted
/// together with one more receive buffer. A few record blocks are kept for the next connection.
@safe struct BlockCache: ~Copyable {
  /// A whole record (RFC 8446 §5.2: 5 + 2^14 + 256 bytes), rounded up.
  static let recordBytes = 17 * 1024
  /// 64 KiB of a ClientHello and 64 KiB that came with its last bytes, rounded up.
  static let helloBytes = 148 * 1024
  /// Record blocks that are kept.
  static let keptBlocks = 64

  private var kept: [UnsafeMutableRawPointer] = unsafe []

  init() { unsafe kept.reserveCapacity(Self.keptBlocks) }

  deinit {
    for index in unsafe kept.indices { unsafe kept[index].deallocate() }
  }

  static func capacity(for count: Int) -> Int {
    count <= recordBytes ? recordBytes : helloBytes
  }

  mutating func take(_ capacity: Int) -> UnsafeMutableRawPointer {
    if capacity == Self.recordBytes, let block = unsafe kept.popLast() { return unsafe block }
    return .allocate(byteCount: capacity, alignment: 16)
  }

  mutating func give(_ block: UnsafeMutableRawPointer, _ capacity: Int) {
    if capacity == Self.recordBytes, unsafe kept.count < Self.keptBlocks {
      unsafe kept.append(block)
    } else {
      unsafe block.deallocate()
    }
  }
}
