/// Why received bytes are no message.
package enum MessageFault: Error, Hashable, Sendable {
  /// No compression was agreed on, so no message may be compressed.
  case compressed
  case tooLarge(bytes: Int)
}

/// Puts gRPC messages together (gRPC over HTTP/2, Length-Prefixed-Message): a flag that says whether
/// the message is compressed, its length in four bytes, the message.
struct MessageReader: ~Copyable {
  static let prefixBytes = 5

  /// The largest message taken.
  private let maximumBytes: Int
  private var prefix: [UInt8] = []
  private var message: CleansedBuffer?

  init(maximumBytes: Int) { self.maximumBytes = maximumBytes }

  /// Whether a message has begun and not ended.
  var isInside: Bool { !prefix.isEmpty }

  /// Takes what was received; gives every message to `body` once it is whole. After a fault nothing
  /// more may be taken.
  mutating func take(
    _ bytes: UnsafeRawBufferPointer, _ body: (SecretBytes) -> Void
  ) throws(MessageFault) {
    var rest = unsafe bytes[...]
    while unsafe !rest.isEmpty {
      if message == nil { unsafe try readPrefix(&rest) }
      if var message = message.take() {
        let count = unsafe min(rest.count, message.room)
        unsafe message.append(UnsafeRawBufferPointer(rebasing: rest.prefix(count)))
        unsafe rest = rest.dropFirst(count)
        if message.room == 0 {
          prefix.removeAll(keepingCapacity: true)
          body(SecretBytes(message))
        } else {
          self.message = consume message
        }
      }
    }
  }

  private mutating func readPrefix(
    _ rest: inout Slice<UnsafeRawBufferPointer>
  ) throws(MessageFault) {
    let taken = unsafe rest.prefix(Self.prefixBytes - prefix.count)
    unsafe prefix += taken
    unsafe rest = rest.dropFirst(taken.count)
    guard prefix.count == Self.prefixBytes else { return }
    guard prefix[0] == 0 else { throw .compressed }
    let count = prefix[1...].reduce(0) { $0 << 8 | Int($1) }
    guard count <= maximumBytes else { throw .tooLarge(bytes: count) }
    message = CleansedBuffer(capacity: count)
  }

  /// A message as it is sent, for `count` bytes that `body` appends.
  static func framed(_ count: Int, _ body: (inout CleansedBuffer) -> Void) -> SecretBytes {
    var buffer = CleansedBuffer(capacity: prefixBytes + count)
    buffer.append([0] + (0..<4).map { UInt8(truncatingIfNeeded: count >> (24 - 8 * $0)) })
    body(&buffer)
    precondition(buffer.room == 0, "a message of another length than announced")
    return SecretBytes(buffer)
  }
}
