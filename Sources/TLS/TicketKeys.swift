internal import COpenSSL
internal import Glibc
internal import Synchronization

/// One key of session tickets (RFC 5077 §4): its name, and what encrypts and authenticates.
@safe private struct TicketKey {
  static let nameBytes = 16

  var name = InlineArray<16, UInt8>(repeating: 0)
  var cipher = InlineArray<32, UInt8>(repeating: 0)
  var mac = InlineArray<32, UInt8>(repeating: 0)

  /// - Returns: nil if OpenSSL has no random bytes.
  static func make() -> TicketKey? {
    var key = TicketKey()
    let size = Int32(MemoryLayout<TicketKey>.size)
    let isMade = unsafe withUnsafeMutableBytes(of: &key) { bytes in
      unsafe RAND_priv_bytes(
        bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), size) == 1
    }
    return isMade ? key : nil
  }

  mutating func cleanse() {
    unsafe withUnsafeMutableBytes(of: &self) { bytes in
      unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count)
    }
  }

  func isNamed(_ other: UnsafePointer<UInt8>) -> Bool {
    for index in 0..<Self.nameBytes where unsafe name[index] != other[index] { return false }
    return true
  }
}

/// The keys of session tickets, shared by all workers: the newest makes tickets, the one before it
/// is still accepted. They live in this process only and are replaced by time.
@safe final class TicketKeys: Sendable {
  /// Seconds for which a key makes tickets, and for which a ticket is good.
  static let lifetimeSeconds: Int64 = 3600

  private struct State {
    var newest = TicketKey()
    var previous = TicketKey()
    /// CLOCK_BOOTTIME, in seconds; 0 before the first.
    var replaceAt: Int64 = 0
    var hasPrevious = false
  }

  /// AES-256-CBC, as OpenSSL's own tickets; looked up once.
  private nonisolated(unsafe) let cipher: OpaquePointer?
  /// In memory of its own, so that a key has one place, and is cleansed there.
  private nonisolated(unsafe) let state: UnsafeMutablePointer<State>
  private let lock = Mutex<Void>(())
  let lifetimeSeconds: Int64

  init(lifetimeSeconds: Int64 = lifetimeSeconds) {
    self.lifetimeSeconds = lifetimeSeconds
    unsafe cipher = EVP_CIPHER_fetch(nil, "AES-256-CBC", nil)
    // A page of its own: madvise(2) takes whole pages only.
    let page = sysconf(Int32(_SC_PAGESIZE))
    let memory = UnsafeMutableRawPointer.allocate(byteCount: page, alignment: page)
    unsafe state = unsafe memory.bindMemory(to: State.self, capacity: 1)
    unsafe state.initialize(to: State())
    unsafe madvise(memory, page, Int32(MADV_DONTDUMP))
  }

  deinit {
    unsafe state.pointee.newest.cleanse()
    unsafe state.pointee.previous.cleanse()
    unsafe state.deallocate()
    unsafe EVP_CIPHER_free(cipher)
  }

  /// OpenSSL's ticket key callback (SSL_CTX_set_tlsext_ticket_key_evp_cb(3)).
  ///
  /// - Returns: 1 to go on, 0 if the ticket's key is not known, -1 on failure.
  func prepare(
    name: UnsafeMutablePointer<UInt8>, iv: UnsafeMutablePointer<UInt8>, cipher context: OpaquePointer,
    mac: OpaquePointer, isEncrypting: Bool
  ) -> Int32 {
    lock.withLock { _ in
      guard replaceIfDue() else { return -1 }
      if isEncrypting {
        guard unsafe RAND_bytes(iv, EVP_MAX_IV_LENGTH) == 1 else { return -1 }
        for index in 0..<TicketKey.nameBytes { unsafe name[index] = state.pointee.newest.name[index] }
        return unsafe Self.use(&state.pointee.newest, cipher, context, iv, mac, encrypt: 1) ? 1 : -1
      }
      if unsafe state.pointee.newest.isNamed(name) {
        return unsafe Self.use(&state.pointee.newest, cipher, context, iv, mac, encrypt: 0) ? 1 : -1
      }
      if unsafe state.pointee.hasPrevious && state.pointee.previous.isNamed(name) {
        return unsafe Self.use(&state.pointee.previous, cipher, context, iv, mac, encrypt: 0) ? 1 : -1
      }
      return 0
    }
  }

  private static func use(
    _ key: inout TicketKey, _ cipher: OpaquePointer?, _ context: OpaquePointer,
    _ iv: UnsafePointer<UInt8>, _ mac: OpaquePointer, encrypt: Int32
  ) -> Bool {
    unsafe withUnsafeBytes(of: &key.mac) { bytes in
      unsafe culvert_ticket_mac_init(mac, bytes.baseAddress, bytes.count) == 1
    }
      && withUnsafeBytes(of: &key.cipher) { bytes in
        unsafe EVP_CipherInit_ex(
          context, cipher, nil, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), iv,
          encrypt) == 1
      }
  }

  /// Makes the first key, and the next one in its time.
  private func replaceIfDue() -> Bool {
    let now = Self.seconds()
    guard unsafe now >= state.pointee.replaceAt else { return true }
    guard makeNext() else { return false }
    // Nobody asked for tickets for a lifetime or more: the key before is older than it may be.
    if unsafe now >= state.pointee.replaceAt + lifetimeSeconds {
      unsafe state.pointee.previous.cleanse()
      unsafe state.pointee.hasPrevious = false
    }
    unsafe state.pointee.replaceAt = now + lifetimeSeconds
    return true
  }

  private func makeNext() -> Bool {
    guard let next = TicketKey.make() else { return false }
    unsafe state.pointee.previous = state.pointee.newest
    unsafe state.pointee.hasPrevious = true
    unsafe state.pointee.newest = next
    return true
  }

  /// Replaces the key before its time.
  func replace() -> Bool { lock.withLock { _ in makeNext() } }

  private static func seconds() -> Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_BOOTTIME, &time)
    return Int64(time.tv_sec)
  }
}
