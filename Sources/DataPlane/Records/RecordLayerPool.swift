internal import CLinux
internal import COpenSSL

/// Where a worker's record layers live: apart from all else, left out of core dumps, cleansed when
/// given back, never moved.
@safe struct RecordLayerPool: ~Copyable {
  /// Bytes of one segment: a whole number of pages.
  static let segmentBytes = 64 * 1024
  static let segmentLayers = segmentBytes / MemoryLayout<RecordLayer>.stride

  private var segments: [UnsafeMutableRawPointer] = unsafe []
  private var free: [UnsafeMutablePointer<RecordLayer>] = unsafe []

  deinit {
    for index in unsafe segments.indices { unsafe munmap(segments[index], Self.segmentBytes) }
  }

  /// - Returns: nil if the kernel has no memory.
  mutating func take(_ layer: RecordLayer) -> UnsafeMutablePointer<RecordLayer>? {
    if unsafe free.isEmpty, !grow() { return nil }
    let place = unsafe free.removeLast()
    unsafe place.initialize(to: layer)
    return unsafe place
  }

  mutating func give(_ place: UnsafeMutablePointer<RecordLayer>) {
    unsafe OPENSSL_cleanse(place, MemoryLayout<RecordLayer>.stride)
    unsafe free.append(place)
  }

  private mutating func grow() -> Bool {
    let memory = unsafe mmap(
      nil, Self.segmentBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard let memory = unsafe memory, Int(bitPattern: memory) != -1 else { return false }
    unsafe madvise(memory, Self.segmentBytes, MADV_DONTDUMP)
    unsafe segments.append(memory)
    for index in (0..<Self.segmentLayers).reversed() {
      unsafe free.append(
        (memory + index * MemoryLayout<RecordLayer>.stride)
          .assumingMemoryBound(to: RecordLayer.self))
    }
    return true
  }
}
