/// Memory that belongs to the caller, to which a session appends the records to be sent.
///
/// The caller keeps the memory valid during the call it passes the window to, not longer.
@safe package struct OutputWindow {
  package let base: UnsafeMutableRawPointer
  /// Bytes at `base`.
  package let capacity: Int
  /// Bytes at `base` that are filled; 0…capacity.
  package internal(set) var count: Int

  /// - Parameter count: bytes already there, after which the session writes.
  @unsafe package init(base: UnsafeMutableRawPointer, capacity: Int, count: Int = 0) {
    precondition(count >= 0 && count <= capacity, "a window filled beyond its end")
    unsafe self.base = unsafe base
    self.capacity = capacity
    self.count = count
  }

  package var available: Int { capacity - count }

  /// Notes bytes that were written at `base + count`.
  package mutating func advance(by bytes: Int) {
    precondition(bytes >= 0 && bytes <= available, "more bytes than the window takes")
    count += bytes
  }

  package mutating func append(_ byte: UInt8) {
    precondition(available > 0, "more bytes than the window takes")
    unsafe base.storeBytes(of: byte, toByteOffset: count, as: UInt8.self)
    count += 1
  }

  mutating func append(_ bytes: UnsafeRawPointer, _ length: Int) {
    precondition(length <= available, "more bytes than the window takes")
    unsafe (base + count).copyMemory(from: bytes, byteCount: length)
    count += length
  }
}
