internal import COpenSSL
internal import Policy
package import TLS

/// What one record came to.
package enum Opened: Equatable {
  /// Application data: this many bytes right behind the record's header.
  case data(Int)
  /// No data, and nothing for anyone else to do.
  case nothing
  /// Session tickets, or part of a message that is not whole; nobody has looked into them.
  case tickets
  /// The keys for what comes next are other ones.
  case keyUpdate
  /// The peer will send nothing more; our own direction stays open.
  case closeNotify
  case failed(RecordFault)
}

/// What the record layer itself has to say: an alert or a KeyUpdate.
struct ControlRecord {
  let type: ContentType
  let count: Int
  let bytes: InlineArray<5, UInt8>
}

/// The TLS 1.3 record layer of one connection after its handshake (RFC 8446 §5), both directions.
///
/// Trivial memory in a `RecordLayerPool`, used by one worker only. Nothing here allocates.
@safe package struct RecordLayer {
  package static let headerBytes = CipherContexts.headerBytes
  /// Header, content type and tag around the content of each record.
  package static let overheadBytes = CipherContexts.headerBytes + 1 + CipherContexts.tagBytes
  /// RFC 8446 §5.1.
  package static let maximumContentBytes = 16 * 1024
  /// RFC 8446 §5.2: ciphertext may be longer than content by this much.
  package static let maximumExpansionBytes = 256
  /// Records without data that may follow each other.
  package static let maximumIdleRecords = TLSSession.maximumIdleRecords
  /// RFC 8446 §5.5 allows 2^24.5 records under one AES-GCM key.
  package static let recordsPerKeyMaximum = 1 << 24
  /// Fewer, and one `seal` could need more than the one KeyUpdate that `sealedBytes` counts with.
  package static let recordsPerKeyMinimum = 64
  /// What one `seal` takes: no more records than a new key is good for before its KeyUpdate.
  package static let maximumSealBytes = (recordsPerKeyMinimum - 1) * maximumContentBytes
  /// One KeyUpdate and one alert, the most that ever waits.
  static let controlBytes = overheadBytes + 5 + overheadBytes + 2

  let suite: CipherSuite
  private let isClient: Bool
  private let recordsPerKey: UInt64
  var send = RecordKey()
  var receive = RecordKey()
  /// Which engine protects what is sent, and what is received. The kernel counts its records
  /// itself; the sequence number of a key it holds is no longer exact here.
  var sendEngine = RecordEngine.user
  var receiveEngine = RecordEngine.user
  private var messages = PostHandshake()
  private var idleRecords = 0
  /// KeyUpdate is to be sent before the next data.
  private var owesKeyUpdate = false
  private var owedAlert: Alert?
  /// An alert was sent or is owed, or a fatal one has come: nothing may follow it.
  private(set) var hasEndedSending = false
  private var hasEndedReceiving = false

  /// - Parameter recordsPerKey: own records after which the key is updated, if the suite needs it;
  ///   `recordsPerKeyMinimum`…`recordsPerKeyMaximum`.
  package init(_ suite: CipherSuite, isClient: Bool, recordsPerKey: Int = recordsPerKeyMaximum) {
    precondition(
      (Self.recordsPerKeyMinimum...Self.recordsPerKeyMaximum).contains(recordsPerKey))
    self.suite = suite
    self.isClient = isClient
    self.recordsPerKey = UInt64(recordsPerKey)
  }

  /// Sets the traffic secrets; to be called once, where the layer stays for its life.
  ///
  /// - Parameter recordsSent: records that somebody else has sent with these keys.
  /// - Returns: false if OpenSSL cannot derive keys, for want of memory.
  package mutating func install(
    send secret: UnsafeRawBufferPointer, receive peerSecret: UnsafeRawBufferPointer,
    recordsSent: Int = 0, with ciphers: inout CipherContexts
  ) -> Bool {
    precondition(secret.count == suite.hashBytes && peerSecret.count == suite.hashBytes)
    unsafe withUnsafeMutableBytes(of: &send.secret) { unsafe $0.copyMemory(from: secret) }
    unsafe withUnsafeMutableBytes(of: &receive.secret) { unsafe $0.copyMemory(from: peerSecret) }
    guard ciphers.install(&send, suite), ciphers.install(&receive, suite) else { return false }
    send.sequence = UInt64(recordsSent)
    return true
  }

  // MARK: Receiving

  /// Opens one record in place.
  ///
  /// - Parameter record: exactly one record, header included. What is behind its tag is not
  ///   touched.
  package mutating func open(
    _ record: UnsafeMutableRawBufferPointer, with ciphers: inout CipherContexts
  ) -> Opened {
    let step = unsafe decrypt(record, with: &ciphers)
    if case .failed(let fault) = step, !fault.isReceived { owe(fault.alert) }
    return step
  }

  /// Notes a fault that was found elsewhere: its alert is owed.
  mutating func fail(_ fault: RecordFault) -> RecordFault {
    owe(fault.alert)
    return fault
  }

  private mutating func decrypt(
    _ record: UnsafeMutableRawBufferPointer, with ciphers: inout CipherContexts
  ) -> Opened {
    guard !hasEndedReceiving else { return .nothing }
    let header = CipherContexts.headerBytes
    guard record.count >= header, unsafe record[0] == ContentType.applicationData.rawValue else {
      return .failed(RecordFault(.unexpectedMessage, "a record that is not encrypted"))
    }
    let expansion = 1 + CipherContexts.tagBytes
    guard record.count <= header + Self.maximumContentBytes + Self.maximumExpansionBytes else {
      return .failed(RecordFault(.recordOverflow, "a record longer than RFC 8446 §5.2 allows"))
    }
    guard record.count >= header + expansion,
      unsafe ciphers.open(suite, &receive, record)
    else { return .failed(RecordFault(.badRecordMAC, "a record that does not authenticate")) }
    var end = record.count - CipherContexts.tagBytes
    guard end - header <= Self.maximumContentBytes + 1 else {
      return .failed(RecordFault(.recordOverflow, "content longer than RFC 8446 §5.4 allows"))
    }
    while end > header, unsafe record[end - 1] == 0 { end -= 1 }
    guard end > header else {
      return .failed(RecordFault(.unexpectedMessage, "a record of nothing but padding"))
    }
    let type = unsafe record[end - 1]
    let content = unsafe UnsafeRawBufferPointer(rebasing: record[header..<end - 1])
    return unsafe take(content, type: type, with: &ciphers)
  }

  /// Takes the content of a record that the kernel has opened, or this layer.
  mutating func take(
    _ content: UnsafeRawBufferPointer, type: UInt8, with ciphers: inout CipherContexts
  ) -> Opened {
    let step = unsafe look(content, type: type, with: &ciphers)
    switch step {
    case .data(let count) where count > 0: idleRecords = 0
    case .closeNotify: break
    case .failed(let fault):
      if !fault.isReceived { owe(fault.alert) }
    default:
      idleRecords += 1
      guard idleRecords <= Self.maximumIdleRecords else {
        return .failed(fail(RecordFault(.unexpectedMessage, "too many records without data")))
      }
    }
    return step
  }

  private mutating func look(
    _ content: UnsafeRawBufferPointer, type: UInt8, with ciphers: inout CipherContexts
  ) -> Opened {
    guard let type = ContentType(rawValue: type) else {
      return .failed(RecordFault(.unexpectedMessage, "a record of an unknown type"))
    }
    if messages.isInMessage, type != .handshake {
      return .failed(RecordFault(.unexpectedMessage, "a record between parts of a message"))
    }
    switch type {
    case .applicationData:
      return .data(content.count)
    case .alert:
      return unsafe alert(content)
    case .handshake:
      guard content.count > 0 else {
        return .failed(RecordFault(.unexpectedMessage, "an empty handshake record"))
      }
      switch unsafe messages.take(content, isClient: isClient) {
      case .tickets: return .tickets
      case .fault(let fault): return .failed(fault)
      case .keyUpdate(let isRequested):
        // However often it is asked for before we send: one answer (RFC 8446 §4.6.3).
        if isRequested { owesKeyUpdate = true }
        guard ciphers.update(&receive, suite) else {
          return .failed(RecordFault(.internalError, "keys could not be derived"))
        }
        return .keyUpdate
      }
    }
  }

  private mutating func alert(_ content: UnsafeRawBufferPointer) -> Opened {
    guard content.count == 2 else {
      return .failed(RecordFault(.decodeError, "an alert of the wrong length"))
    }
    // The level is ignored (RFC 8446 §6).
    let alert = unsafe Alert(rawValue: content[1])
    switch alert {
    case .closeNotify:
      hasEndedReceiving = true
      return .closeNotify
    case .userCanceled:
      return .nothing
    default:
      // Nothing more may be sent, not even what was owed (RFC 8446 §6.2).
      owedAlert = nil
      hasEndedSending = true
      return .failed(RecordFault(received: alert))
    }
  }

  // MARK: Sending

  /// Room that `seal` may need for a plaintext of this length.
  package static func sealedBytes(plaintext count: Int) -> Int {
    let records = (count + maximumContentBytes - 1) / maximumContentBytes
    return count + records * overheadBytes + controlBytes
  }

  /// Appends the plaintext as records of application data, behind what the layer owes.
  ///
  /// - Parameters:
  ///   - plaintext: at most `maximumSealBytes`.
  ///   - window: with room for `sealedBytes(plaintext:)`.
  /// - Returns: false if nothing may be sent any more, or OpenSSL cannot.
  package mutating func seal(
    _ plaintext: UnsafeRawBufferPointer, to window: inout OutputWindow,
    with ciphers: inout CipherContexts
  ) -> Bool {
    precondition(plaintext.count <= Self.maximumSealBytes, "more than a key may protect")
    precondition(
      window.available >= Self.sealedBytes(plaintext: plaintext.count), "too small a window")
    guard !hasEndedSending else { return false }
    var rest = unsafe plaintext
    while rest.count > 0 {
      if keyIsWornOut { owesKeyUpdate = true }
      guard sealControl(to: &window, with: &ciphers) else { return false }
      let count = min(rest.count, Self.maximumContentBytes)
      let content = unsafe UnsafeRawBufferPointer(rebasing: rest[..<count])
      guard unsafe sealRecord(.applicationData, content, to: &window, with: &ciphers) else {
        return endSending()
      }
      unsafe rest = unsafe UnsafeRawBufferPointer(rebasing: rest[count...])
    }
    return true
  }

  private var keyIsWornOut: Bool { suite.keyWearsOut && send.sequence >= recordsPerKey - 1 }

  /// Counts what the kernel has sealed, of which only the bytes are known: never too few records,
  /// so that the key is updated in time. The kernel has its own sequence number.
  mutating func countKernelRecords(bytes: Int) {
    send.sequence += UInt64(bytes / Self.maximumContentBytes) + 1
    if keyIsWornOut { owesKeyUpdate = true }
  }

  private mutating func sealRecord(
    _ type: ContentType, _ content: UnsafeRawBufferPointer, to window: inout OutputWindow,
    with ciphers: inout CipherContexts
  ) -> Bool {
    precondition(!suite.keyWearsOut || send.sequence < Self.recordsPerKeyMaximum, "a worn-out key")
    guard
      unsafe ciphers.seal(
        suite, &send, type: type, content, to: window.base + window.count)
    else { return false }
    window.advance(by: content.count + Self.overheadBytes)
    return true
  }

  /// OpenSSL has failed, for want of memory: no record may follow under keys that are in doubt.
  private mutating func endSending() -> Bool {
    owedAlert = nil
    hasEndedSending = true
    return false
  }

  // MARK: What the layer itself has to say

  /// Whether `takeControl` has something.
  var hasControl: Bool { owedAlert != nil || owesKeyUpdate && !hasEndedSending }

  /// We will send nothing more. Does nothing the second time.
  mutating func oweCloseNotify() { owe(.closeNotify) }

  mutating func owe(_ alert: Alert) {
    guard !hasEndedSending else { return }
    owedAlert = alert
    hasEndedSending = true
  }

  /// The next of what must be sent before any data. After a KeyUpdate has been protected, the
  /// sending key is to be updated.
  mutating func takeControl() -> ControlRecord? {
    if owesKeyUpdate, !hasEndedSending {
      owesKeyUpdate = false
      // KeyUpdate, one byte: update_not_requested.
      return ControlRecord(type: .handshake, count: 5, bytes: [24, 0, 0, 1, 0])
    }
    guard let alert = owedAlert else { return nil }
    owedAlert = nil
    // Warning for the orderly end, fatal for all else; receivers ignore it (RFC 8446 §6).
    let level: UInt8 = alert == .closeNotify ? 1 : 2
    return ControlRecord(type: .alert, count: 2, bytes: [level, alert.rawValue, 0, 0, 0])
  }

  /// Appends what the layer owes.
  ///
  /// - Parameter window: with room for `controlBytes`.
  mutating func sealControl(
    to window: inout OutputWindow, with ciphers: inout CipherContexts
  ) -> Bool {
    while let control = takeControl() {
      var bytes = control.bytes
      let isSealed = unsafe withUnsafeBytes(of: &bytes) { bytes in
        let content = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<control.count])
        return unsafe sealRecord(control.type, content, to: &window, with: &ciphers)
      }
      guard isSealed else { return endSending() }
      if control.type == .handshake, !ciphers.update(&send, suite) { return endSending() }
    }
    return true
  }
}
