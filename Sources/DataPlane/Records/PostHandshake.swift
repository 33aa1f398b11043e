package import TLS

/// Why records cannot go on: an alert to send, or one that came.
package struct RecordFault: Equatable {
  package let alert: Alert
  package let isReceived: Bool
  package let detail: StaticString

  init(_ alert: Alert, _ detail: StaticString) {
    self.alert = alert
    isReceived = false
    self.detail = detail
  }

  init(received alert: Alert) {
    self.alert = alert
    isReceived = true
    detail = ""
  }

  package static func == (left: RecordFault, right: RecordFault) -> Bool {
    left.alert == right.alert && left.isReceived == right.isReceived
  }
}

/// The handshake messages that may still come after the handshake (RFC 8446 §4.6), whole or in
/// parts. Tickets are passed over; whoever wants one looks at the records.
struct PostHandshake {
  enum Step: Equatable {
    /// Nothing but NewSessionTicket, or part of a message.
    case tickets
    case keyUpdate(isRequested: Bool)
    case fault(RecordFault)
  }

  /// The largest ticket there can be (RFC 8446 §4.6.1): two 4-byte numbers, nonce, ticket and
  /// extensions with their lengths.
  static let maximumTicketBytes = 4 + 4 + 1 + 255 + 2 + 65_535 + 2 + 65_535

  private static let headerBytes = 4

  private enum MessageType {
    static let newSessionTicket: UInt8 = 4
    static let keyUpdate: UInt8 = 24
  }

  private var header = InlineArray<4, UInt8>(repeating: 0)
  private var headerCount = 0
  private var bodyRemaining = 0

  /// A message has begun and not ended: no record of another type may come between (§5.1).
  var isInMessage: Bool { headerCount > 0 }

  /// - Parameters:
  ///   - bytes: one record's content, not empty.
  ///   - isClient: servers send tickets, clients do not.
  mutating func take(_ bytes: UnsafeRawBufferPointer, isClient: Bool) -> Step {
    var index = 0
    while index < bytes.count {
      if headerCount < Self.headerBytes {
        header[headerCount] = unsafe bytes[index]
        headerCount += 1
        index += 1
        guard headerCount == Self.headerBytes else { continue }
        bodyRemaining = Int(header[1]) << 16 | Int(header[2]) << 8 | Int(header[3])
        if let fault = headerFault(isClient: isClient) { return .fault(fault) }
      } else if header[0] == MessageType.keyUpdate {
        return unsafe keyUpdate(bytes[index], isLast: index + 1 == bytes.count)
      } else {
        let count = min(bodyRemaining, bytes.count - index)
        bodyRemaining -= count
        index += count
        if bodyRemaining == 0 { headerCount = 0 }
      }
    }
    return .tickets
  }

  private func headerFault(isClient: Bool) -> RecordFault? {
    switch header[0] {
    case MessageType.keyUpdate:
      bodyRemaining == 1 ? nil : RecordFault(.decodeError, "a KeyUpdate of the wrong length")
    case MessageType.newSessionTicket where isClient:
      (1...Self.maximumTicketBytes).contains(bodyRemaining)
        ? nil : RecordFault(.decodeError, "a NewSessionTicket of an impossible length")
    default:
      RecordFault(.unexpectedMessage, "a handshake message that may not come now")
    }
  }

  private mutating func keyUpdate(_ request: UInt8, isLast: Bool) -> Step {
    headerCount = 0
    // The next record has other keys, so nothing may follow in this one (§5.1).
    guard isLast else {
      return .fault(RecordFault(.unexpectedMessage, "bytes behind a KeyUpdate"))
    }
    switch request {
    case 0: return .keyUpdate(isRequested: false)
    case 1: return .keyUpdate(isRequested: true)
    default: return .fault(RecordFault(.illegalParameter, "a KeyUpdate with an unknown request"))
    }
  }
}
