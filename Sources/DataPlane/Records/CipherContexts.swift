internal import COpenSSL
package import TLS

/// A worker's AEAD contexts, shared by all its connections: one for each cipher suite and way,
/// made when first needed and given another key when another connection's turn comes.
///
/// Not thread-safe. Nothing here allocates once a context exists.
@safe package struct CipherContexts: ~Copyable {
  /// Of the three suites alike (RFC 8446 §5.2, RFC 5116 §5).
  static let tagBytes = 16
  static let headerBytes = 5

  @safe struct Context {
    var pointer: OpaquePointer?
    /// The `RecordKey.identifier` whose key it holds.
    var holder: UInt64 = 0
  }

  let schedule: KeySchedule
  private(set) var sealing = InlineArray<3, Context>(repeating: Context())
  private(set) var opening = InlineArray<3, Context>(repeating: Context())
  private var lastIdentifier: UInt64 = 0

  package init() throws(TLSSetupError) { schedule = try KeySchedule() }

  deinit {
    for index in sealing.indices {
      // Freeing cleanses the key schedule inside (EVP_CIPHER_CTX_free(3)).
      unsafe EVP_CIPHER_CTX_free(sealing[index].pointer)
      unsafe EVP_CIPHER_CTX_free(opening[index].pointer)
    }
  }

  // MARK: Keys

  /// Key and IV from the direction's secret.
  mutating func install(_ direction: inout RecordKey, _ suite: CipherSuite) -> Bool {
    rename(&direction)
    return schedule.deriveKeys(&direction, suite)
  }

  /// The next generation of a direction's keys.
  mutating func update(_ direction: inout RecordKey, _ suite: CipherSuite) -> Bool {
    rename(&direction)
    return schedule.updateKeys(&direction, suite)
  }

  private mutating func rename(_ direction: inout RecordKey) {
    forget(key: direction.identifier)
    lastIdentifier += 1
    direction.identifier = lastIdentifier
  }

  /// Cleanses what a context may still hold of a key that is going away.
  mutating func forget(key identifier: UInt64) {
    guard identifier != 0 else { return }
    for index in sealing.indices {
      if sealing[index].holder == identifier { Self.clear(&sealing[index]) }
      if opening[index].holder == identifier { Self.clear(&opening[index]) }
    }
  }

  /// The key schedule inside is overwritten by another: making the context anew would allocate.
  private static func clear(_ context: inout Context) {
    var zeros = InlineArray<32, UInt8>(repeating: 0)
    unsafe withUnsafeMutableBytes(of: &zeros) { zeros in
      let base = unsafe zeros.baseAddress?.assumingMemoryBound(to: UInt8.self)
      unsafe EVP_CipherInit_ex(context.pointer, nil, nil, base, base, -1)
    }
    context.holder = 0
  }

  /// The context, keyed for this direction and set to its next nonce.
  private static func prepare(
    _ context: inout Context, _ suite: CipherSuite, _ direction: inout RecordKey, seals: Bool
  ) -> OpaquePointer? {
    if unsafe context.pointer == nil {
      unsafe context.pointer = unsafe make(suite, seals: seals)
      context.holder = 0
    }
    guard let pointer = unsafe context.pointer else { return nil }
    let isKeyed = context.holder == direction.identifier
    context.holder = 0
    var nonce = direction.nonce
    let result = unsafe withUnsafeBytes(of: &direction.key) { key in
      unsafe withUnsafeBytes(of: &nonce) { nonce in
        unsafe EVP_CipherInit_ex(
          pointer, nil, nil, isKeyed ? nil : key.baseAddress?.assumingMemoryBound(to: UInt8.self),
          nonce.baseAddress?.assumingMemoryBound(to: UInt8.self), -1)
      }
    }
    guard result == 1 else { return nil }
    context.holder = direction.identifier
    return unsafe pointer
  }

  private static func make(_ suite: CipherSuite, seals: Bool) -> OpaquePointer? {
    let name =
      switch suite {
      case .aes128GCM: "AES-128-GCM"
      case .aes256GCM: "AES-256-GCM"
      case .chacha20Poly1305: "ChaCha20-Poly1305"
      }
    let cipher = unsafe EVP_CIPHER_fetch(nil, name, nil)
    defer { unsafe EVP_CIPHER_free(cipher) }
    guard unsafe cipher != nil, let context = unsafe EVP_CIPHER_CTX_new() else { return nil }
    guard unsafe EVP_CipherInit_ex(context, cipher, nil, nil, nil, seals ? 1 : 0) == 1 else {
      unsafe EVP_CIPHER_CTX_free(context)
      return nil
    }
    return unsafe context
  }

  private static func index(_ suite: CipherSuite) -> Int {
    switch suite {
    case .aes128GCM: 0
    case .aes256GCM: 1
    case .chacha20Poly1305: 2
    }
  }

  // MARK: Records

  /// Writes one record: header, `content` and its type encrypted, tag. Uses up a sequence number.
  ///
  /// - Parameter record: room for the content and `RecordLayer.overheadBytes`.
  /// - Returns: false if OpenSSL cannot, for want of memory.
  mutating func seal(
    _ suite: CipherSuite, _ direction: inout RecordKey, type: ContentType,
    _ content: UnsafeRawBufferPointer, to record: UnsafeMutableRawPointer
  ) -> Bool {
    let slot = Self.index(suite)
    guard
      let context = unsafe Self.prepare(&sealing[slot], suite, &direction, seals: true)
    else { return false }
    let length = content.count + 1 + Self.tagBytes
    let header = unsafe record.assumingMemoryBound(to: UInt8.self)
    unsafe header[0] = ContentType.applicationData.rawValue
    unsafe header[1] = 3
    unsafe header[2] = 3
    unsafe header[3] = UInt8(truncatingIfNeeded: length >> 8)
    unsafe header[4] = UInt8(truncatingIfNeeded: length)
    let body = unsafe header + Self.headerBytes
    let source = unsafe content.baseAddress?.assumingMemoryBound(to: UInt8.self)
    var type = type.rawValue
    var written: Int32 = 0
    guard
      unsafe EVP_EncryptUpdate(context, nil, &written, header, Int32(Self.headerBytes)) == 1,
      unsafe content.count == 0
        || EVP_EncryptUpdate(context, body, &written, source, Int32(content.count)) == 1,
      unsafe EVP_EncryptUpdate(context, body + content.count, &written, &type, 1) == 1,
      unsafe EVP_EncryptFinal_ex(context, body + content.count + 1, &written) == 1,
      unsafe culvert_AEAD_get_tag(context, body + content.count + 1, Int32(Self.tagBytes)) == 1
    else { return false }
    direction.sequence += 1
    return true
  }

  /// Decrypts one record in place; its inner plaintext then begins right behind the header. Uses
  /// up a sequence number.
  ///
  /// - Parameter record: header and body, at least one byte and the tag.
  /// - Returns: false if it does not authenticate; the body is then undefined.
  mutating func open(
    _ suite: CipherSuite, _ direction: inout RecordKey, _ record: UnsafeMutableRawBufferPointer
  ) -> Bool {
    let slot = Self.index(suite)
    guard let header = unsafe record.baseAddress?.assumingMemoryBound(to: UInt8.self),
      let context = unsafe Self.prepare(&opening[slot], suite, &direction, seals: false)
    else { return false }
    let body = unsafe header + Self.headerBytes
    let count = record.count - Self.headerBytes - Self.tagBytes
    var written: Int32 = 0
    guard
      unsafe EVP_DecryptUpdate(context, nil, &written, header, Int32(Self.headerBytes)) == 1,
      unsafe EVP_DecryptUpdate(context, body, &written, body, Int32(count)) == 1,
      unsafe culvert_AEAD_set_tag(context, body + count, Int32(Self.tagBytes)) == 1,
      unsafe EVP_DecryptFinal_ex(context, body + count, &written) == 1
    else {
      // OpenSSL queues no error for a tag that does not match, but may for other causes.
      ERR_clear_error()
      return false
    }
    direction.sequence += 1
    return true
  }
}

/// What a record carries (RFC 8446 §5.1).
package enum ContentType: UInt8 {
  case alert = 21
  case handshake = 22
  case applicationData = 23
}
