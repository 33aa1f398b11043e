internal import CLinux

/// Bytes that are cleansed (explicit_bzero(3)) when the last reference goes: a private key, or a
/// message that holds one.
package final class SecretBytes: Sendable {
  private let buffer: CleansedBuffer

  /// Takes over the buffer's memory.
  init(_ buffer: consuming CleansedBuffer) { self.buffer = buffer }

  /// Copies bytes whose owner cleanses them too.
  package convenience init(copying bytes: UnsafeRawBufferPointer) {
    var buffer = CleansedBuffer(capacity: bytes.count)
    unsafe buffer.append(bytes)
    self.init(buffer)
  }

  package var count: Int { buffer.count }

  /// The bytes are there for as long as `body` runs.
  package func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try unsafe buffer.withBytes(body)
  }
}

/// Memory of a fixed size that fills up, and is cleansed where it is left.
@safe struct CleansedBuffer: ~Copyable, @unchecked Sendable {
  /// `capacity` bytes, of which the first `count` are in use; owned by this value.
  private let base: UnsafeMutableRawPointer
  let capacity: Int
  private(set) var count = 0

  init(capacity: Int) {
    self.capacity = capacity
    unsafe base = .allocate(byteCount: max(capacity, 1), alignment: 1)
  }

  deinit {
    unsafe explicit_bzero(base, capacity)
    unsafe base.deallocate()
  }

  var room: Int { capacity - count }

  borrowing func withBytes<Result, Failure: Error>(
    _ body: (UnsafeRawBufferPointer) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // The memory lives as long as this value, which is borrowed.
    try unsafe body(UnsafeRawBufferPointer(start: base, count: count))
  }

  /// The bytes must fit.
  mutating func append(_ bytes: UnsafeRawBufferPointer) {
    precondition(bytes.count <= room, "more bytes than the buffer was made for")
    guard let start = bytes.baseAddress else { return }
    unsafe (base + count).copyMemory(from: start, byteCount: bytes.count)
    count += bytes.count
  }

  mutating func append(_ bytes: [UInt8]) {
    unsafe bytes.withUnsafeBytes { unsafe append($0) }
  }

  /// Lets `body` write into the room that is left; it returns how many bytes, or a negative number.
  mutating func fill(_ body: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
    let written = unsafe body(UnsafeMutableRawBufferPointer(start: base + count, count: room))
    precondition(written <= room, "wrote beyond the room")
    count += max(written, 0)
    return written
  }

  /// Takes the first bytes away, cleansing what they leave behind.
  mutating func removeFirst(_ taken: Int) {
    precondition((0...count).contains(taken), "more than there is")
    let left = count - taken
    unsafe memmove(base, base + taken, left)
    unsafe explicit_bzero(base + left, taken)
    count = left
  }
}
