import TestSupport

/// HTTP/2 as an agent sends it (RFC 9113 §4, §6), written by hand: it is for the client to find out
/// what is wrong with it.
enum Frame {
  static func frame(_ type: UInt8, _ flags: UInt8, _ stream: UInt32, _ payload: [UInt8]) -> [UInt8]
  {
    [16, 8, 0].map { UInt8(truncatingIfNeeded: payload.count >> $0) } + [type, flags]
      + number(stream) + payload
  }

  static func number(_ value: UInt32) -> [UInt8] {
    [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: value >> $0) }
  }

  static let settings = frame(4, 0, 0, [])
  static let settingsAcknowledgement = frame(4, 1, 0, [])

  /// Fields as literals without indexing and without Huffman coding (RFC 7541 §6.2.2).
  static func headers(
    _ fields: [(String, String)], end: Bool = false, stream: UInt32 = 1
  ) -> [UInt8] {
    var block: [UInt8] = []
    for field in fields { block += [0] + text(field.0) + text(field.1) }
    return frame(1, 0x4 | (end ? 0x1 : 0), stream, block)
  }

  private static func text(_ text: String) -> [UInt8] {
    let bytes = Array(text.utf8)
    guard bytes.count >= 127 else { return [UInt8(bytes.count)] + bytes }
    return [127] + Wire.varint(bytes.count - 127) + bytes
  }

  static let response = headers([(":status", "200"), ("content-type", "application/grpc")])

  static func trailers(_ status: Int, _ message: String? = nil) -> [UInt8] {
    headers(
      [("grpc-status", "\(status)")] + (message.map { [("grpc-message", $0)] } ?? []), end: true)
  }

  static func trailersOnly(_ status: Int, _ message: String? = nil) -> [UInt8] {
    headers(
      [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "\(status)")]
        + (message.map { [("grpc-message", $0)] } ?? []), end: true)
  }

  static func data(_ bytes: [UInt8], end: Bool = false, stream: UInt32 = 1) -> [UInt8] {
    let pieces = stride(from: 0, to: max(bytes.count, 1), by: 16_384).map {
      Array(bytes[$0..<min($0 + 16_384, bytes.count)])
    }
    return pieces.enumerated().flatMap { index, piece in
      frame(0, end && index == pieces.count - 1 ? 1 : 0, stream, piece)
    }
  }

  /// One gRPC message in as many DATA frames as it takes.
  static func message(_ bytes: [UInt8], flag: UInt8 = 0) -> [UInt8] {
    data([flag] + number(UInt32(bytes.count)) + bytes)
  }

  static func reset(_ code: UInt32, stream: UInt32 = 1) -> [UInt8] {
    frame(3, 0, stream, number(code))
  }

  static func goAway(_ code: UInt32, _ text: String = "", lastStream: UInt32 = 1) -> [UInt8] {
    frame(7, 0, 0, number(lastStream) + number(code) + Array(text.utf8))
  }

  static func pingAcknowledgement(_ data: [UInt8]) -> [UInt8] { frame(6, 1, 0, data) }

  /// What an agent says first, and one message.
  static func opening(_ message: [UInt8]) -> [UInt8] {
    settings + response + Frame.message(message)
  }

  /// The frames in what a client sent, behind its preface (RFC 9113 §3.4).
  static func parse(_ bytes: [UInt8]) -> [(
    type: UInt8, flags: UInt8, stream: UInt32, payload: [UInt8]
  )] {
    let preface = Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8)
    var rest = bytes.starts(with: preface) ? bytes.dropFirst(preface.count) : bytes[...]
    var frames: [(UInt8, UInt8, UInt32, [UInt8])] = []
    while rest.count >= 9 {
      let header = Array(rest.prefix(9))
      let count = header[..<3].reduce(0) { $0 << 8 | Int($1) }
      guard rest.count >= 9 + count else { break }
      let stream = header[5...].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      frames.append((header[3], header[4], stream, Array(rest.dropFirst(9).prefix(count))))
      rest = rest.dropFirst(9 + count)
    }
    return frames
  }
}
