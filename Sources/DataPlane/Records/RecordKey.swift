internal import COpenSSL
package import TLS

/// What protects one direction of a connection: raw keys only, no cipher context.
///
/// Trivial memory inside a `RecordLayer`, which is cleansed as a whole.
@safe struct RecordKey {
  /// client_ or server_application_traffic_secret_N (RFC 8446 §7.1).
  var secret = InlineArray<48, UInt8>(repeating: 0)
  var key = InlineArray<32, UInt8>(repeating: 0)
  var iv = InlineArray<12, UInt8>(repeating: 0)
  /// Records protected by this key so far; the number of the next one.
  var sequence: UInt64 = 0
  /// Names these key bytes among all that a worker's cipher contexts were ever given; 0 is none.
  var identifier: UInt64 = 0

  /// The per-record nonce (RFC 8446 §5.3): the IV with the sequence number, big-endian, XORed into
  /// its last eight bytes.
  var nonce: InlineArray<12, UInt8> {
    var nonce = iv
    for index in 0..<8 {
      nonce[4 + index] ^= UInt8(truncatingIfNeeded: sequence >> UInt64(56 - 8 * index))
    }
    return nonce
  }
}

/// The part of the key schedule that follows the handshake (RFC 8446 §7.2, §7.3), by OpenSSL's
/// TLS13-KDF. One for a worker's life; not thread-safe.
@safe package struct KeySchedule: ~Copyable {
  private let context: OpaquePointer

  package init() throws(TLSSetupError) {
    let kdf = unsafe EVP_KDF_fetch(nil, OSSL_KDF_NAME_TLS1_3_KDF, nil)
    defer { unsafe EVP_KDF_free(kdf) }
    guard let kdf = unsafe kdf, let context = unsafe EVP_KDF_CTX_new(kdf) else {
      throw TLSSetupError("OpenSSL has no \(OSSL_KDF_NAME_TLS1_3_KDF)")
    }
    unsafe self.context = unsafe context
  }

  deinit { unsafe EVP_KDF_CTX_free(context) }

  /// Key and IV of a direction from its secret; its sequence starts at 0.
  ///
  /// - Returns: false if OpenSSL cannot, for want of memory.
  func deriveKeys(_ direction: inout RecordKey, _ suite: CipherSuite) -> Bool {
    var key = InlineArray<32, UInt8>(repeating: 0)
    var iv = InlineArray<12, UInt8>(repeating: 0)
    defer { unsafe OPENSSL_cleanse(&key, 32) }
    guard unsafe expand(&direction.secret, "key", suite, &key, suite.keyBytes),
      unsafe expand(&direction.secret, "iv", suite, &iv, 12)
    else { return false }
    direction.key = key
    direction.iv = iv
    // Only with the new key: an old one must never see a sequence number again.
    direction.sequence = 0
    return true
  }

  /// application_traffic_secret_N+1 and its keys.
  func updateKeys(_ direction: inout RecordKey, _ suite: CipherSuite) -> Bool {
    var next = InlineArray<48, UInt8>(repeating: 0)
    defer { unsafe OPENSSL_cleanse(&next, 48) }
    guard unsafe expand(&direction.secret, "traffic upd", suite, &next, suite.hashBytes) else {
      return false
    }
    direction.secret = next
    return deriveKeys(&direction, suite)
  }

  @unsafe private func expand(
    _ secret: UnsafeRawPointer, _ label: StaticString, _ suite: CipherSuite,
    _ output: UnsafeMutableRawPointer, _ count: Int
  ) -> Bool {
    unsafe culvert_HKDF_expand_label(
      context, suite == .aes256GCM ? "SHA384" : "SHA256", secret, suite.hashBytes,
      label.utf8Start, label.utf8CodeUnitCount, output, count) == 1
  }
}
