/// The TCP option by which a mesh proxy announces itself, in its SYN and in the SYN-ACK that
/// answers one: an experimental option with an identifier of its own (RFC 6994 §3).
///
///     254 | 5 | ExID, 2 bytes | version
package enum AnnouncementOption {
  /// The second of the two kinds for experiments (RFC 4727).
  package static let kind: UInt8 = 254
  /// Bytes in all, of the 40 that a TCP header has room for; a usual SYN leaves 20 of them free.
  package static let byteCount: UInt8 = 5
  /// Tells this experiment from others of the same kind.
  package static let experimentID: UInt16 = 0xc17e
  /// What we write. Every version but 0 is understood: a later one says more, not something else.
  package static let version: UInt8 = 1

  /// The option as it is on the wire.
  package static var bytes: [UInt8] { header(length: byteCount) + [version] }

  /// What bpf_load_hdr_opt() is told to look for: the length covers the identifier only.
  static var pattern: [UInt8] { header(length: 4) }

  /// The first four bytes.
  static func header(length: UInt8) -> [UInt8] {
    [kind, length, UInt8(experimentID >> 8), UInt8(experimentID & 0xff)]
  }
}
