/// Builds ClientHellos, sound ones and ones with a single fault.
struct HelloBuilder {
  var legacyVersion: UInt16 = 0x0303
  var sessionID = [UInt8](repeating: 7, count: 32)
  var cipherSuites: [UInt8] = [0x13, 0x01]
  var compressionMethods: [UInt8] = [0]
  var extensions: [(type: UInt16, content: [UInt8])] = [
    (43, [2, 3, 4]), (0, serverName("db.example")), (16, alpn(["culvert/1"])),
  ]
  /// Between the extensions and the message's end.
  var trailing: [UInt8] = []

  static func vector8(_ content: [UInt8]) -> [UInt8] { [UInt8(content.count)] + content }

  static func vector16(_ content: [UInt8]) -> [UInt8] {
    [UInt8(content.count >> 8), UInt8(content.count & 255)] + content
  }

  static func serverName(_ names: String...) -> [UInt8] {
    vector16(names.flatMap { [0] + vector16(Array($0.utf8)) })
  }

  static func alpn(_ names: [String]) -> [UInt8] {
    vector16(names.flatMap { vector8(Array($0.utf8)) })
  }

  /// The handshake message, header included.
  var message: [UInt8] {
    var body = [UInt8(legacyVersion >> 8), UInt8(legacyVersion & 255)]
    body += [UInt8](repeating: 0x5a, count: 32)
    body += Self.vector8(sessionID) + Self.vector16(cipherSuites)
    body += Self.vector8(compressionMethods)
    body += Self.vector16(
      extensions.flatMap {
        [UInt8($0.type >> 8), UInt8($0.type & 255)] + Self.vector16($0.content)
      })
    return Self.message(body: body + trailing)
  }

  static func message(body: [UInt8]) -> [UInt8] {
    [1] + [16, 8, 0].map { UInt8(truncatingIfNeeded: body.count >> $0) } + body
  }

  /// Cuts a message into TLS records of at most `fragmentBytes`.
  static func records(_ message: [UInt8], fragmentBytes: Int = 1 << 14) -> [UInt8] {
    stride(from: 0, to: message.count, by: fragmentBytes).flatMap { start -> [UInt8] in
      [22, 3, 1] + vector16(Array(message[start..<min(start + fragmentBytes, message.count)]))
    }
  }

  var bytes: [UInt8] { Self.records(message) }
}
