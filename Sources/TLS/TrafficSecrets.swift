internal import COpenSSL

/// Both application traffic secrets of one session (RFC 8446 §7.1), from which another record
/// layer derives its keys. Trivial memory at a fixed address; cleansed by its owner.
@safe struct TrafficSecrets {
  typealias Bytes = InlineArray<48, UInt8>

  var client = Bytes(repeating: 0)
  var server = Bytes(repeating: 0)
  /// Bytes captured of each; 0 until OpenSSL has derived it.
  var clientCount = 0
  var serverCount = 0

  /// Takes what a line of the key log says (SSL_CTX_set_keylog_callback(3)): a label, the client
  /// random and the secret, in hexadecimal. Lines with other labels are none of our business.
  mutating func take(keyLogLine line: UnsafeRawBufferPointer) {
    if let secret = unsafe Self.secret(in: line, after: "CLIENT_TRAFFIC_SECRET_0 ") {
      clientCount = unsafe Self.decode(secret, into: &client)
    } else if let secret = unsafe Self.secret(in: line, after: "SERVER_TRAFFIC_SECRET_0 ") {
      serverCount = unsafe Self.decode(secret, into: &server)
    }
  }

  mutating func cleanse() {
    unsafe withUnsafeMutableBytes(of: &self) { bytes in
      unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
    }
  }

  /// The last field of a line that begins with the label.
  private static func secret(
    in line: UnsafeRawBufferPointer, after label: StaticString
  ) -> UnsafeRawBufferPointer? {
    let start = label.utf8CodeUnitCount + 2 * Int(SSL3_RANDOM_SIZE) + 1
    guard line.count > start, let text = line.baseAddress,
      unsafe memcmp(text, label.utf8Start, label.utf8CodeUnitCount) == 0
    else { return nil }
    return unsafe UnsafeRawBufferPointer(rebasing: line[start...])
  }

  /// - Returns: the bytes decoded; 0 if the text is no secret.
  private static func decode(_ text: UnsafeRawBufferPointer, into bytes: inout Bytes) -> Int {
    guard text.count % 2 == 0, text.count / 2 <= bytes.count else { return 0 }
    for index in 0..<text.count / 2 {
      guard let high = unsafe digit(text[2 * index]), let low = unsafe digit(text[2 * index + 1])
      else { return 0 }
      bytes[index] = high << 4 | low
    }
    return text.count / 2
  }

  /// The value of a hexadecimal digit.
  static func digit(_ character: UInt8) -> UInt8? {
    switch character {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): character - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): character - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): character - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}

/// Why a session's records stay with OpenSSL; the raw value is the word in logs.
package enum HandOverObstacle: String, Hashable, Sendable, CaseIterable {
  /// Agreed with an outside server: another key schedule, and other records.
  case tls12 = "tls_1_2"
  /// Not one of `CipherSuite`.
  case cipherSuite = "cipher_suite"
  /// The peer asked for smaller records (RFC 6066 §4).
  case maximumFragmentLength = "max_fragment_length"
  /// OpenSSL did not tell the traffic secrets.
  case noSecrets = "no_secrets"
}

extension TLSSession {
  /// The negotiated cipher suite, if another record layer can take it over.
  package var cipherSuite: CipherSuite? {
    guard let cipher = unsafe SSL_get_current_cipher(ssl) else { return nil }
    return unsafe CipherSuite(rawValue: SSL_CIPHER_get_protocol_id(cipher))
  }

  /// What keeps the records with OpenSSL; nil if they can be handed over.
  package var handOverObstacle: HandOverObstacle? {
    guard unsafe SSL_version(ssl) == TLS1_3_VERSION else { return .tls12 }
    guard let suite = cipherSuite else { return .cipherSuite }
    // Of a server: what it agreed to. A client of ours never asks.
    let fragment = unsafe SSL_SESSION_get_max_fragment_length(SSL_get_session(ssl))
    guard fragment == TLSEXT_max_fragment_length_DISABLED else { return .maximumFragmentLength }
    let hasBoth =
      unsafe state.pointee.secrets.clientCount == suite.hashBytes
      && state.pointee.secrets.serverCount == suite.hashBytes
    return hasBoth ? nil : .noSecrets
  }

  /// Cleanses the secrets of a session whose records stay with OpenSSL.
  package mutating func forgetSecrets() { unsafe state.pointee.secrets.cleanse() }

  /// Lends the secrets of what we send and what we receive, then cleanses them here. From now on
  /// `seal` must not be called, and `open` only for the session tickets that come first.
  ///
  /// Both directions' sequence numbers are 0, since the handshake's own records had other keys; a
  /// server's own is `ticketRecordsSent`.
  package mutating func handOver<Result>(
    _ body: (_ send: UnsafeRawBufferPointer, _ receive: UnsafeRawBufferPointer) -> Result
  ) -> Result {
    precondition(handOverObstacle == nil, "this session's records stay with OpenSSL")
    let count = cipherSuite?.hashBytes ?? 0
    let isClient = unsafe state.pointee.isClient
    defer { unsafe state.pointee.secrets.cleanse() }
    return unsafe withUnsafeBytes(of: &state.pointee.secrets.client) { client in
      unsafe withUnsafeBytes(of: &state.pointee.secrets.server) { server in
        let client = unsafe UnsafeRawBufferPointer(rebasing: client[..<count])
        let server = unsafe UnsafeRawBufferPointer(rebasing: server[..<count])
        return unsafe isClient ? body(client, server) : body(server, client)
      }
    }
  }
}
