internal import COpenSSL

/// The bytes going into and out of one session.
///
/// Lives inside `SessionState`, at a fixed address: the BIO's callbacks reach it through a pointer.
@safe struct RecordBuffers {
  /// What a session may hold back while it has no window, or too small a one. Holds the largest
  /// server flight: `IdentityMaterial.maximumChainBytes` and the handshake messages around it.
  static let maximumOverflowBytes = 32 * 1024

  /// The rest of the record being fed; borrowed from the caller for the length of one call.
  var input: UnsafeRawPointer?
  var inputRemaining = 0

  /// Where output goes during one call.
  var window: OutputWindow?

  /// Output that found no room. Allocated when first needed, freed when drained.
  private var overflow: UnsafeMutableRawPointer?
  private(set) var overflowCount = 0

  /// Output was lost: nothing of this session may be sent any more.
  private(set) var failed = false

  /// Records written in the call that is under way.
  var recordsWritten = 0
  /// Bytes of the record being written that are still to come: OpenSSL writes in pieces of its own.
  private var recordRemaining = 0
  private var header = InlineArray<5, UInt8>(repeating: 0)
  private var headerCount = 0

  mutating func read(into destination: UnsafeMutableRawPointer, _ length: Int) -> Int {
    guard let source = unsafe input, inputRemaining > 0 else { return 0 }
    let count = min(length, inputRemaining)
    unsafe destination.copyMemory(from: source, byteCount: count)
    unsafe input = unsafe source + count
    inputRemaining -= count
    return count
  }

  /// Takes all of the bytes, or none and marks the session failed.
  mutating func write(_ bytes: UnsafeRawPointer, _ length: Int) -> Bool {
    unsafe countRecords(UnsafeRawBufferPointer(start: bytes, count: length))
    // Behind older output that still waits, nothing may overtake.
    if overflowCount == 0, let available = window?.available, available >= length {
      unsafe window?.append(bytes, length)
      return true
    }
    guard overflowCount + length <= Self.maximumOverflowBytes else {
      failed = true
      return false
    }
    let store = unsafe overflow ?? .allocate(byteCount: Self.maximumOverflowBytes, alignment: 1)
    unsafe overflow = unsafe store
    unsafe (store + overflowCount).copyMemory(from: bytes, byteCount: length)
    overflowCount += length
    return true
  }

  private mutating func countRecords(_ bytes: UnsafeRawBufferPointer) {
    var index = 0
    while index < bytes.count {
      if recordRemaining > 0 {
        let count = min(recordRemaining, bytes.count - index)
        recordRemaining -= count
        index += count
        continue
      }
      header[headerCount] = unsafe bytes[index]
      headerCount += 1
      index += 1
      guard headerCount == header.count else { continue }
      headerCount = 0
      recordsWritten += 1
      recordRemaining = Int(header[3]) << 8 | Int(header[4])
    }
  }

  /// Moves what waited into the window, as much as it takes.
  mutating func drain() {
    guard overflowCount > 0, let store = unsafe overflow else { return }
    let count = min(overflowCount, window?.available ?? 0)
    unsafe window?.append(store, count)
    overflowCount -= count
    if overflowCount == 0 {
      discardOverflow()
    } else if count > 0 {
      unsafe store.copyMemory(from: store + count, byteCount: overflowCount)
    }
  }

  mutating func discardOverflow() {
    unsafe overflow?.deallocate()
    unsafe overflow = nil
    overflowCount = 0
  }
}

/// An OpenSSL BIO over a session's `RecordBuffers`: no copy of a record is ever kept, and OpenSSL
/// sees exactly the bytes of the record being fed.
enum RecordBIO {
  /// One method table for the process; immutable once made.
  nonisolated(unsafe) private static let method: OpaquePointer? = unsafe makeMethod()

  /// A BIO whose callbacks use `buffers`, which must outlive it.
  static func make(_ buffers: UnsafeMutablePointer<RecordBuffers>) -> OpaquePointer? {
    guard let method = unsafe method, let bio = unsafe BIO_new(method) else { return nil }
    unsafe BIO_set_data(bio, buffers)
    unsafe BIO_set_init(bio, 1)
    return unsafe bio
  }

  private static let retryFlags =
    BIO_FLAGS_READ | BIO_FLAGS_WRITE | BIO_FLAGS_IO_SPECIAL | BIO_FLAGS_SHOULD_RETRY

  private static func makeMethod() -> OpaquePointer? {
    let type = BIO_get_new_index() | BIO_TYPE_SOURCE_SINK
    guard let method = unsafe BIO_meth_new(type, "culvert records") else { return nil }
    unsafe BIO_meth_set_read(method) { bio, destination, length in
      guard let bio = unsafe bio, let destination = unsafe destination, length > 0,
        let buffers = unsafe RecordBIO.buffers(bio)
      else { return -1 }
      unsafe BIO_clear_flags(bio, RecordBIO.retryFlags)
      let count = unsafe buffers.pointee.read(into: destination, Int(length))
      if count > 0 { return Int32(count) }
      unsafe BIO_set_flags(bio, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY)
      return -1
    }
    unsafe BIO_meth_set_write(method) { bio, source, length in
      guard let bio = unsafe bio, let source = unsafe source, length >= 0,
        let buffers = unsafe RecordBIO.buffers(bio)
      else { return -1 }
      unsafe BIO_clear_flags(bio, RecordBIO.retryFlags)
      return unsafe buffers.pointee.write(source, Int(length)) ? length : -1
    }
    unsafe BIO_meth_set_ctrl(method) { _, command, _, _ in
      command == BIO_CTRL_FLUSH ? 1 : 0
    }
    return unsafe method
  }

  private static func buffers(_ bio: OpaquePointer) -> UnsafeMutablePointer<RecordBuffers>? {
    unsafe BIO_get_data(bio)?.assumingMemoryBound(to: RecordBuffers.self)
  }
}
