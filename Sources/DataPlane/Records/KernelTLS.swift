internal import CLinux
internal import COpenSSL
internal import Net
internal import TLS

/// The kernel's record protection on one TCP socket (Documentation/networking/tls.rst).
enum KernelTLS {
  /// Which of a socket's directions.
  enum Way {
    case send, receive

    fileprivate var option: Int32 { self == .send ? TLS_TX : TLS_RX }
  }

  /// Attaches the `tls` upper-layer protocol. No receive may be waiting on the socket meanwhile
  /// (CVE-2025-38616).
  ///
  /// - Throws: `ENOENT` without CONFIG_TLS, `ENOTCONN` if the connection is not established.
  static func attach(_ descriptor: Int32) throws(Errno) {
    let name: StaticString = "tls"
    try Errno.check {
      unsafe setsockopt(
        descriptor, Int32(IPPROTO_TCP), TCP_ULP, name.utf8Start,
        socklen_t(name.utf8CodeUnitCount))
    }
  }

  /// Hands a direction over at the key's next sequence number, or gives it its next key.
  ///
  /// - Throws: `EBUSY` for a next key on a kernel before 6.14; `EINVAL` or `ENOENT` for a suite the
  ///   kernel lacks.
  static func install(
    _ way: Way, _ suite: CipherSuite, _ key: inout RecordKey, on descriptor: Int32
  ) throws(Errno) {
    var info = CryptoInfo(suite, &key)
    defer { info.cleanse() }
    try Errno.check {
      unsafe withUnsafeBytes(of: &info.bytes) { bytes in
        unsafe setsockopt(
          descriptor, culvert_SOL_TLS, way.option, bytes.baseAddress, socklen_t(info.count))
      }
    }
  }
}

/// One of the `struct tls12_crypto_info_*` (linux/tls.h): version, cipher, IV, key, salt, sequence
/// number. The names are those of TLS 1.2; the bytes are the ones TLS 1.3 needs.
private struct CryptoInfo {
  var bytes = InlineArray<64, UInt8>(repeating: 0)
  var count = 0

  init(_ suite: CipherSuite, _ key: inout RecordKey) {
    let cipher =
      switch suite {
      case .aes128GCM: TLS_CIPHER_AES_GCM_128
      case .aes256GCM: TLS_CIPHER_AES_GCM_256
      case .chacha20Poly1305: TLS_CIPHER_CHACHA20_POLY1305
      }
    append(number: 0x0304)
    append(number: UInt16(cipher))
    // GCM calls the first four bytes of the IV salt, and wants them behind the key.
    let saltBytes = suite == .chacha20Poly1305 ? 0 : 4
    for index in saltBytes..<key.iv.count { append(key.iv[index]) }
    for index in 0..<suite.keyBytes { append(key.key[index]) }
    for index in 0..<saltBytes { append(key.iv[index]) }
    for index in 0..<8 { append(UInt8(truncatingIfNeeded: key.sequence >> UInt64(56 - 8 * index))) }
  }

  mutating func cleanse() {
    unsafe withUnsafeMutableBytes(of: &bytes) { bytes in
      unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
    }
  }

  /// In the processor's byte order.
  private mutating func append(number: UInt16) {
    let inMemory = number.littleEndian == number ? number : number.byteSwapped
    append(UInt8(truncatingIfNeeded: inMemory))
    append(UInt8(truncatingIfNeeded: inMemory >> 8))
  }

  private mutating func append(_ byte: UInt8) {
    bytes[count] = byte
    count += 1
  }
}
