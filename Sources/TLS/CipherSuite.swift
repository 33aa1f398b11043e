/// The TLS 1.3 cipher suites we negotiate, by their code points (RFC 8446 §B.4).
package enum CipherSuite: UInt16, Sendable, CaseIterable {
  case aes128GCM = 0x1301
  case aes256GCM = 0x1302
  case chacha20Poly1305 = 0x1303

  package var name: String {
    switch self {
    case .aes128GCM: "TLS_AES_128_GCM_SHA256"
    case .aes256GCM: "TLS_AES_256_GCM_SHA384"
    case .chacha20Poly1305: "TLS_CHACHA20_POLY1305_SHA256"
    }
  }

  /// Length of the AEAD's key, in bytes.
  package var keyBytes: Int { self == .aes128GCM ? 16 : 32 }

  /// Length of the hash, and so of every secret of the key schedule, in bytes.
  package var hashBytes: Int { self == .aes256GCM ? 48 : 32 }

  /// Whether a key must be replaced before it has protected 2^24 records (RFC 8446 §5.5).
  package var keyWearsOut: Bool { self != .chacha20Poly1305 }
}
