/// A ClientHello written by hand (RFC 8446 §4.1.2): as long as a test wants it, cut as it wants it.
struct ClientHello: Sendable {
  var serverName: String?
  var alpn: [String] = []
  /// Bytes of the padding extension (RFC 7685).
  var padding = 0

  /// The handshake message, without record headers.
  var message: [UInt8] {
    var extensions = Self.extension(43, [2, 3, 4])
    if let serverName {
      let name = [0] + Self.vector16(Array(serverName.utf8))
      extensions += Self.extension(0, Self.vector16(name))
    }
    if !alpn.isEmpty {
      let names = alpn.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
      extensions += Self.extension(16, Self.vector16(names))
    }
    // One extension holds at most 65,535 bytes, and so does the list; what is beyond that is
    // announced in the lengths of the message alone.
    if padding > 0 {
      extensions += Self.extension(21, [UInt8](repeating: 0, count: padding))
    }
    let body: [UInt8] =
      [3, 3] + [UInt8](repeating: 7, count: 32) + [0] + Self.vector16([0x13, 0x01]) + [1, 0]
      + Self.vector16(extensions)
    return Self.handshake(body)
  }

  var records: [UInt8] { Self.records(of: message) }

  /// A handshake message of type client_hello.
  static func handshake(_ body: [UInt8]) -> [UInt8] {
    [1, UInt8(body.count >> 16), UInt8(body.count >> 8 & 0xff), UInt8(body.count & 0xff)] + body
  }

  /// Cuts a message into records of at most `size` bytes.
  static func records(of message: [UInt8], size: Int = 16_384) -> [UInt8] {
    stride(from: 0, to: message.count, by: size).flatMap { start in
      let part = message[start..<min(start + size, message.count)]
      return [0x16, 3, 1] + vector16(Array(part))
    }
  }

  private static func vector16(_ bytes: [UInt8]) -> [UInt8] {
    [UInt8(truncatingIfNeeded: bytes.count >> 8), UInt8(truncatingIfNeeded: bytes.count)] + bytes
  }

  private static func `extension`(_ type: UInt16, _ content: [UInt8]) -> [UInt8] {
    [UInt8(type >> 8), UInt8(type & 0xff)] + vector16(content)
  }
}
