import COpenSSL
import TLS

@testable import DataPlane

/// A worker's contexts, to be shared by several ends.
final class Contexts {
  var ciphers: CipherContexts

  init() { ciphers = try! CipherContexts() }
}

/// One end of a connection after its handshake: a record layer, and crafted records of any kind
/// under its keys. Also compiled into the fuzz targets.
final class RecordEnd {
  let contexts: Contexts
  let suite: CipherSuite
  var layer: RecordLayer
  /// Application data opened so far.
  var received: [UInt8] = []

  init(
    _ suite: CipherSuite, isClient: Bool, send: [UInt8], receive: [UInt8],
    contexts: Contexts = Contexts(), recordsPerKey: Int = RecordLayer.recordsPerKeyMaximum,
    recordsSent: Int = 0
  ) {
    self.suite = suite
    self.contexts = contexts
    layer = RecordLayer(suite, isClient: isClient, recordsPerKey: recordsPerKey)
    let isInstalled = unsafe send.withUnsafeBytes { send in
      unsafe receive.withUnsafeBytes { receive in
        unsafe layer.install(
          send: send, receive: receive, recordsSent: recordsSent, with: &contexts.ciphers)
      }
    }
    precondition(isInstalled)
  }

  /// Opens a record, and keeps its data. Nothing behind it may change.
  func open(_ record: [UInt8]) -> Opened {
    let canary: [UInt8] = [0xca, 0x7a, 0x51, 0x0e]
    var memory = record + canary
    let opened = unsafe memory.withUnsafeMutableBytes { memory in
      let place = unsafe UnsafeMutableRawBufferPointer(rebasing: memory[..<record.count])
      return unsafe layer.open(place, with: &contexts.ciphers)
    }
    precondition(Array(memory[record.count...]) == canary, "written behind the record")
    if case .data(let count) = opened {
      received += memory[RecordLayer.headerBytes..<RecordLayer.headerBytes + count]
    }
    return opened
  }

  /// What `seal` writes; nil if it refuses, and then it must have written nothing.
  func seal(_ bytes: [UInt8]) -> [UInt8]? {
    var isSealed = false
    let records = write(RecordLayer.sealedBytes(plaintext: bytes.count)) { window in
      isSealed = unsafe bytes.withUnsafeBytes {
        unsafe layer.seal($0, to: &window, with: &contexts.ciphers)
      }
    }
    precondition(isSealed || records.isEmpty, "refused, and yet written")
    return isSealed ? records : nil
  }

  /// What the layer itself has to say.
  func control() -> [UInt8] {
    write(RecordLayer.controlBytes) { window in
      let isSealed = layer.sealControl(to: &window, with: &contexts.ciphers)
      precondition(isSealed)
    }
  }

  func closeNotify() -> [UInt8] {
    layer.oweCloseNotify()
    return control()
  }

  private func write(_ room: Int, _ body: (inout OutputWindow) -> Void) -> [UInt8] {
    let canary: [UInt8] = [0xca, 0x7a, 0x51, 0x0e]
    var memory = [UInt8](repeating: 0, count: room) + canary
    let count = unsafe memory.withUnsafeMutableBytes { memory in
      var window = unsafe OutputWindow(base: memory.baseAddress!, capacity: room)
      body(&window)
      return window.count
    }
    precondition(Array(memory[room...]) == canary, "written behind the window")
    return Array(memory[..<count])
  }

  // MARK: Crafting

  /// A record of that type at this end's next sequence number, whatever the layer would think of
  /// it.
  func craft(_ type: UInt8, _ content: [UInt8], padding: Int = 0) -> [UInt8] {
    craft(inner: content + [type] + [UInt8](repeating: 0, count: padding))
  }

  /// Protects any inner plaintext, with calls of its own.
  func craft(inner: [UInt8]) -> [UInt8] {
    let length = inner.count + 16
    let header: [UInt8] = [23, 3, 3, UInt8(length >> 8), UInt8(length & 255)]
    let key = (0..<suite.keyBytes).map { layer.send.key[$0] }
    let nonce = (0..<12).map { layer.send.nonce[$0] }
    layer.send.sequence += 1
    let cipher =
      switch suite {
      case .aes128GCM: unsafe EVP_aes_128_gcm()
      case .aes256GCM: unsafe EVP_aes_256_gcm()
      case .chacha20Poly1305: unsafe EVP_chacha20_poly1305()
      }
    let context = unsafe EVP_CIPHER_CTX_new()
    defer { unsafe EVP_CIPHER_CTX_free(context) }
    var body = [UInt8](repeating: 0, count: length)
    var written: Int32 = 0
    let isSealed = unsafe body.withUnsafeMutableBufferPointer { body in
      let start = body.baseAddress!
      return unsafe EVP_EncryptInit_ex2(context, cipher, key, nonce, nil) == 1
        && EVP_EncryptUpdate(context, nil, &written, header, 5) == 1
        && (inner.isEmpty
          || EVP_EncryptUpdate(context, start, &written, inner, Int32(inner.count)) == 1)
        && EVP_EncryptFinal_ex(context, start + inner.count, &written) == 1
        && culvert_AEAD_get_tag(context, start + inner.count, 16) == 1
    }
    precondition(isSealed)
    return header + body
  }

  /// A KeyUpdate, after which this end sends with its next key.
  func keyUpdate(requested: Bool = false) -> [UInt8] {
    let record = craft(22, [24, 0, 0, 1, requested ? 1 : 0])
    updateSendingKey()
    return record
  }

  func updateSendingKey() {
    let isUpdated = contexts.ciphers.update(&layer.send, suite)
    precondition(isUpdated)
  }
}

/// Two ends of one connection.
struct RecordPair {
  let client: RecordEnd
  let server: RecordEnd

  /// - Parameter seed: of the secrets.
  init(
    _ suite: CipherSuite = .aes128GCM, seed: UInt8 = 1, contexts: Contexts = Contexts(),
    recordsPerKey: Int = RecordLayer.recordsPerKeyMaximum,
    recordsSent: Int = 0
  ) {
    let up = (0..<suite.hashBytes).map { UInt8(truncatingIfNeeded: $0) ^ seed }
    let down = up.map { $0 &+ 101 }
    client = RecordEnd(
      suite, isClient: true, send: up, receive: down, contexts: contexts,
      recordsPerKey: recordsPerKey)
    server = RecordEnd(
      suite, isClient: false, send: down, receive: up, contexts: contexts,
      recordsPerKey: recordsPerKey)
  }

  /// A client with its peer, and a server with its peer, of two connections.
  static func bothWays(
    _ suite: CipherSuite = .aes128GCM, contexts: Contexts
  ) -> [(end: RecordEnd, peer: RecordEnd)] {
    let first = RecordPair(suite, contexts: contexts)
    let second = RecordPair(suite, contexts: contexts)
    return [(first.client, first.server), (second.server, second.client)]
  }
}

/// The records one after another.
func records(in bytes: [UInt8]) -> [[UInt8]] {
  var records: [[UInt8]] = []
  var start = 0
  while start < bytes.count {
    let end = start + 5 + Int(bytes[start + 3]) << 8 + Int(bytes[start + 4])
    records.append(Array(bytes[start..<end]))
    start = end
  }
  return records
}

/// SplitMix64: the same numbers in every run.
struct Seeded: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

/// A ticket with nothing wrong in its frame.
func ticket(bytes: Int = 40) -> [UInt8] {
  [4, UInt8(bytes >> 16), UInt8(bytes >> 8 & 255), UInt8(bytes & 255)]
    + [UInt8](repeating: 7, count: bytes)
}
