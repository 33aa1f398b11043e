internal import TLS

/// The next whole TLS record of a leg.
@unsafe enum RecordStep {
  /// Valid until the next bytes are held.
  case record(UnsafeRawBufferPointer)
  /// What is left does not make a whole record.
  case none
  /// The header announces more than RFC 8446 §5.2 allows.
  case tooLong
}

// Framing: TLS records out of a byte stream, whole ones without a copy.
extension Worker where IO: ~Copyable {
  private static var headerBytes: Int { 5 }

  /// Takes the next record: the held bytes come first and are completed from `rest`.
  mutating func nextRecord(_ handle: Handle, _ rest: inout UnsafeRawBufferPointer) -> RecordStep {
    guard handle.it.held.count > 0 else {
      guard let length = unsafe Self.recordLength(rest) else { return unsafe .none }
      guard length <= TLSSession.maximumRecordBytes else { return unsafe .tooLong }
      guard rest.count >= length else { return unsafe .none }
      let record = unsafe UnsafeRawBufferPointer(rebasing: rest[..<length])
      unsafe rest = unsafe UnsafeRawBufferPointer(rebasing: rest[length...])
      return unsafe .record(record)
    }
    guard unsafe complete(handle, to: Self.headerBytes, from: &rest),
      let length = unsafe Self.recordLength(handle.it.held.bytes)
    else { return unsafe .none }
    guard length <= TLSSession.maximumRecordBytes else { return unsafe .tooLong }
    guard unsafe complete(handle, to: length, from: &rest) else { return unsafe .none }
    let record = unsafe UnsafeRawBufferPointer(rebasing: handle.it.held.bytes[..<length])
    handle.it.held.start += length
    handle.it.held.count -= length
    return unsafe .record(record)
  }

  /// Moves bytes from `rest` to the held ones until there are `count`.
  private mutating func complete(
    _ handle: Handle, to count: Int, from rest: inout UnsafeRawBufferPointer
  ) -> Bool {
    let missing = count - handle.it.held.count
    guard missing > 0 else { return true }
    let moved = min(missing, rest.count)
    guard unsafe hold(handle, UnsafeRawBufferPointer(rebasing: rest[..<moved])) else {
      return false
    }
    unsafe rest = unsafe UnsafeRawBufferPointer(rebasing: rest[moved...])
    return moved == missing
  }

  /// Whether the held bytes begin with a whole record, or one that is too long.
  func hasHeldRecord(_ handle: Handle) -> Bool {
    guard let length = unsafe Self.recordLength(handle.it.held.bytes) else { return false }
    return handle.it.held.count >= length || length > TLSSession.maximumRecordBytes
  }

  /// Header and body of the record that begins here; nil without a whole header.
  static func recordLength(_ bytes: UnsafeRawBufferPointer) -> Int? {
    guard bytes.count >= headerBytes else { return nil }
    return unsafe headerBytes + Int(bytes[3]) << 8 + Int(bytes[4])
  }
}
