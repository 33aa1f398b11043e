/// The packet mark (SO_MARK, `meta mark`) by which the rules know the proxy's own sockets.
///
/// Rules compare the low 16 bits only and nothing ever changes those, so a socket that is
/// re-marked in the upper bits stays exempt (a socket that lost its exemption would be redirected
/// into its own proxy).
package enum Mark {
  /// What the low 16 bits hold on every socket of the proxy, unless `--mark` chose another value.
  package static let proxy: UInt32 = 0xc17
  /// The bits the rules compare.
  package static let mask: UInt32 = 0xffff
  /// Bit 16: "announce mesh in this SYN".
  package static let announce: UInt32 = 1 << 16
  /// Bit 17: "the other end announced".
  package static let announced: UInt32 = 1 << 17
}
