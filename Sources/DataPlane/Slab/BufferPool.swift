internal import CLinux

/// Equal buffers, reserved from the kernel in segments when first needed, reused last in first
/// out, never moved.
///
/// What a burst has touched goes back to the kernel when more than `hotBytes` lie free, so that a
/// proxy that is idle again is small again.
@safe struct BufferPool: ~Copyable {
  /// Buffers a segment holds.
  static let segmentBuffers = 16
  /// Free buffers that keep their memory, and are taken first: this many bytes of them.
  static let hotBytes = 4 << 20

  let bufferBytes: Int
  /// Bytes before each buffer that belong to it, too.
  let headroomBytes: Int
  let limit: Int
  private var segments: [UnsafeMutableRawPointer] = unsafe []
  private var hot: [UInt16] = []
  /// Free buffers without memory of their own.
  private var cold: [UInt16] = []
  /// The kernel had no memory for a segment when last asked.
  private var hasFailedToGrow = false

  private let hotBuffers: Int

  init(bufferBytes: Int, headroomBytes: Int = 0, limit: Int) {
    precondition((bufferBytes + headroomBytes) % 4096 == 0 && limit <= Int(UInt16.max))
    self.bufferBytes = bufferBytes
    self.headroomBytes = headroomBytes
    self.limit = limit
    hotBuffers = max(Self.hotBytes / (bufferBytes + headroomBytes), 1)
    hot.reserveCapacity(hotBuffers)
    cold.reserveCapacity(limit)
  }

  deinit {
    for index in unsafe segments.indices {
      unsafe munmap(segments[index], stride * Self.segmentBuffers)
    }
  }

  private var stride: Int { headroomBytes + bufferBytes }

  /// Whether `acquire` would give a buffer, as far as is known.
  var hasFree: Bool {
    if !hot.isEmpty || !cold.isEmpty { return true }
    return unsafe !hasFailedToGrow && segments.count * Self.segmentBuffers < limit
  }

  /// A buffer's identifier, or nil at the limit.
  mutating func acquire() -> Int32? {
    if let buffer = hot.popLast() { return Int32(buffer) }
    if cold.isEmpty, !grow() { return nil }
    return cold.popLast().map(Int32.init)
  }

  mutating func release(_ identifier: Int32) {
    if hot.count < hotBuffers {
      hot.append(UInt16(identifier))
    } else {
      unsafe madvise(memory(identifier) - headroomBytes, stride, MADV_DONTNEED)
      cold.append(UInt16(identifier))
    }
  }

  func memory(_ identifier: Int32) -> UnsafeMutableRawPointer {
    let (segment, index) = Int(identifier).quotientAndRemainder(dividingBy: Self.segmentBuffers)
    return unsafe segments[segment] + index * stride + headroomBytes
  }

  private mutating func grow() -> Bool {
    let start = unsafe segments.count * Self.segmentBuffers
    guard start < limit else { return false }
    let memory = unsafe mmap(
      nil, stride * Self.segmentBuffers, PROT_READ | PROT_WRITE,
      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    hasFailedToGrow = Int(bitPattern: memory) == -1
    guard let memory = unsafe memory, !hasFailedToGrow else { return false }
    unsafe segments.append(memory)
    for identifier in (start..<min(start + Self.segmentBuffers, limit)).reversed() {
      cold.append(UInt16(identifier))
    }
    return true
  }
}
