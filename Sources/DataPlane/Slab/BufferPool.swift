internal import CLinux

/// Equal buffers, reserved from the kernel in segments when first needed, reused last in first
/// out, never moved.
///
/// What a burst has touched goes back to the kernel when more than `keptBuffers` lie free, so that
/// a proxy that is idle again is small again.
@safe struct BufferPool: ~Copyable {
  /// Buffers a segment holds.
  static let segmentBuffers = 16
  /// Free buffers that keep their memory.
  static let keptBuffers = 64

  let bufferBytes: Int
  let limit: Int
  private var segments: [UnsafeMutableRawPointer] = unsafe []
  private var free: [UInt16] = []

  init(bufferBytes: Int, limit: Int) {
    precondition(bufferBytes % 4096 == 0 && limit <= Int(UInt16.max))
    self.bufferBytes = bufferBytes
    self.limit = limit
    free.reserveCapacity(limit)
  }

  deinit {
    for index in unsafe segments.indices {
      unsafe munmap(segments[index], bufferBytes * Self.segmentBuffers)
    }
  }

  /// Whether `acquire` would give a buffer, as far as the limit goes.
  var hasFree: Bool { unsafe !free.isEmpty || segments.count * Self.segmentBuffers < limit }

  /// A buffer's identifier, or nil at the limit.
  mutating func acquire() -> Int32? {
    if free.isEmpty, !grow() { return nil }
    return Int32(free.removeLast())
  }

  mutating func release(_ identifier: Int32) {
    if free.count >= Self.keptBuffers {
      unsafe madvise(memory(identifier), bufferBytes, MADV_DONTNEED)
    }
    free.append(UInt16(identifier))
  }

  func memory(_ identifier: Int32) -> UnsafeMutableRawPointer {
    let (segment, index) = Int(identifier).quotientAndRemainder(dividingBy: Self.segmentBuffers)
    return unsafe segments[segment] + index * bufferBytes
  }

  private mutating func grow() -> Bool {
    let start = unsafe segments.count * Self.segmentBuffers
    guard start < limit else { return false }
    let memory = unsafe mmap(
      nil, bufferBytes * Self.segmentBuffers, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory = unsafe memory, Int(bitPattern: memory) != -1 else { return false }
    unsafe segments.append(memory)
    for identifier in (start..<min(start + Self.segmentBuffers, limit)).reversed() {
      free.append(UInt16(identifier))
    }
    return true
  }
}
