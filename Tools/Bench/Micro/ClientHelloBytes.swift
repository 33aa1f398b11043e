/// A ClientHello as a mesh client sends it, in one record (RFC 8446 §4.1.2).
struct ClientHelloBytes {
  let bytes: [UInt8]

  /// - Parameter keyShareBytes: 32 for X25519, 1216 with a post-quantum share beside it.
  init(keyShareBytes: Int) {
    let share = Self.vector16(
      [0x00, 0x1d] + Self.vector16([UInt8](repeating: 0x55, count: keyShareBytes)))
    let name = Self.vector16([0x00] + Self.vector16(Array("db.shop.svc.cluster.local".utf8)))
    let protocols = ["culvert/1", "istio"].flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
    let extensions =
      Self.`extension`(51, share) + Self.`extension`(43, [2, 0x03, 0x04])
      + Self.`extension`(0, name) + Self.`extension`(16, Self.vector16(protocols))
    let random = [UInt8](repeating: 0x11, count: 32)
    let session = [UInt8](repeating: 0x22, count: 32)
    let body =
      [0x03, 0x03] + random + [32] + session + Self.vector16([0x13, 0x01, 0x13, 0x02, 0x13, 0x03])
      + [1, 0] + Self.vector16(extensions)
    let message = [1, 0, UInt8(body.count >> 8), UInt8(body.count & 0xff)] + body
    bytes = [22, 0x03, 0x01] + Self.vector16(message)
  }

  private static func vector16(_ bytes: [UInt8]) -> [UInt8] {
    [UInt8(bytes.count >> 8), UInt8(bytes.count & 0xff)] + bytes
  }

  private static func `extension`(_ type: UInt8, _ bytes: [UInt8]) -> [UInt8] {
    [0, type] + vector16(bytes)
  }
}
