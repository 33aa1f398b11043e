/// What a client's first bytes are.
package enum Classification: Hashable, Sendable {
  /// A whole, well-formed ClientHello; what it offers decides whose TLS it is.
  case tls(ClientHello)
  /// Bytes that cannot begin a ClientHello.
  case plaintext
  /// Nothing decided yet: more bytes may still make a ClientHello. Zero bytes are this.
  case incomplete
  /// It began as a ClientHello and is not one. Never to be taken for plaintext: close.
  case malformed
  /// The ClientHello does not fit `ClientHello.maximumBytes`. Close.
  case tooLarge
}

/// Classifies the bytes a client sent so far. Pure: the same bytes always give the same verdict,
/// and once it is not `incomplete`, later bytes do not change it.
///
/// Each call walks the record headers from the first byte; a caller that asks again after every
/// segment keeps a `ClientHelloScan` instead.
package func classify(_ bytes: RawSpan) -> Classification {
  var scan = ClientHelloScan()
  return scan.classify(bytes)
}

/// Classification that remembers which records it has walked, so that asking after each of n
/// segments costs n steps in all and not n² (a hello in 1-byte records, one byte at a time).
///
/// Reassembles a ClientHello however it is cut into TLS records (RFC 8446 §5.1). `incomplete` and
/// `plaintext` do not allocate.
package struct ClientHelloScan: Sendable {
  /// Offset of the first record that had not arrived whole.
  private var offset = 0
  /// Handshake bytes in the records before `offset`.
  private var gathered = 0
  /// The first of those, at most 4, big-endian: message type and 24-bit length.
  private var head: UInt32 = 0

  package init() {}

  /// The verdict on all bytes so far. `bytes` begins with what the call before was given, as long
  /// as that said `incomplete`.
  package mutating func classify(_ bytes: RawSpan) -> Classification {
    while true {
      // The hello is not whole, so at least one more header and byte must fit.
      guard offset + Record.headerBytes + 1 <= ClientHello.maximumBytes else { return .tooLarge }
      if let verdict = checkRecordHeader(bytes) { return verdict }
      let length = Record.length(bytes, at: offset)
      let body = offset + Record.headerBytes
      let available = min(length, bytes.byteCount - body)

      var head = head
      let headBytes = min(max(0, Handshake.headerBytes - gathered), available)
      for index in 0..<headBytes {
        let byte = bytes.byte(at: body + index)
        if gathered + index == 0, byte != Handshake.clientHello { return .plaintext }
        head = head << 8 | UInt32(byte)
      }
      if gathered + headBytes >= Handshake.headerBytes {
        let remaining = Handshake.headerBytes + Int(head & 0xff_ffff) - gathered
        // Nothing may share the hello's last record: the client has nothing more to say
        // before the server's answer (RFC 8446 §5.1), and two readings of one record are
        // how a sniffer and a server come to disagree.
        guard length <= remaining else { return .malformed }
        guard body + remaining <= ClientHello.maximumBytes else { return .tooLarge }
        if length == remaining, available == length {
          return Self.hello(bytes, messageBytes: gathered + length, recordBytes: body + length)
        }
      }
      guard available == length else { return .incomplete }
      self.head = head
      gathered += length
      offset = body + length
    }
  }

  /// The verdict that the record header at `offset` already gives, or nil if it is whole and sound.
  private func checkRecordHeader(_ bytes: RawSpan) -> Classification? {
    // Up to here nothing says TLS; after the first record everything does.
    let notTLS: Classification = offset == 0 ? .plaintext : .malformed
    let available = bytes.byteCount - offset
    if available > 0, bytes.byte(at: offset) != Record.handshake { return notTLS }
    // The minor version is to be ignored (RFC 8446 §5.1).
    if available > 1, bytes.byte(at: offset + 1) != Record.majorVersion { return notTLS }
    guard available >= Record.headerBytes else { return .incomplete }
    let isSound = (1...Record.maximumBytes).contains(Record.length(bytes, at: offset))
    return isSound ? nil : .malformed
  }

  /// Parses the hello whose last record ends at `recordBytes`.
  private static func hello(
    _ bytes: RawSpan, messageBytes: Int, recordBytes: Int
  ) -> Classification {
    if Record.headerBytes + messageBytes == recordBytes {
      let start = Record.headerBytes + Handshake.headerBytes
      return ClientHello.parse(bytes, start..<recordBytes, recordBytes: recordBytes)
    }
    var message: [UInt8] = []
    message.reserveCapacity(messageBytes)
    var offset = 0
    while offset < recordBytes {
      let body = offset + Record.headerBytes
      let end = body + Record.length(bytes, at: offset)
      for index in body..<end { message.append(bytes.byte(at: index)) }
      offset = end
    }
    // Every byte of an array of bytes is initialised.
    return unsafe ClientHello.parse(
      message.span.bytes, Handshake.headerBytes..<messageBytes, recordBytes: recordBytes)
  }
}

/// TLSPlaintext (RFC 8446 §5.1).
private enum Record {
  static let headerBytes = 5
  static let handshake: UInt8 = 22
  static let majorVersion: UInt8 = 3
  static let maximumBytes = 1 << 14

  static func length(_ bytes: RawSpan, at offset: Int) -> Int {
    Int(bytes.byte(at: offset + 3)) << 8 | Int(bytes.byte(at: offset + 4))
  }
}

/// Handshake (RFC 8446 §4).
private enum Handshake {
  static let headerBytes = 4
  static let clientHello: UInt8 = 1
}

extension RawSpan {
  /// Bounds-checked.
  func byte(at offset: Int) -> UInt8 {
    // Any byte is a valid UInt8, and unsafeLoad checks the bounds.
    unsafe unsafeLoad(fromByteOffset: offset, as: UInt8.self)
  }
}
