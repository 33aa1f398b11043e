/// A file of the workload's own identity, or of a trust bundle, that cannot be used.
package struct IdentityError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The path as it was given.
  package let file: String
  /// One line, without the file's name; says what to do where that is known.
  package let reason: String

  package init(file: String, reason: String) {
    self.file = file
    self.reason = reason
  }

  package var description: String { "\(file): \(reason)" }
}

/// OpenSSL could not make a context or a session: out of memory, or a library without what TLS 1.3
/// needs.
package struct TLSSetupError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The step that failed, with OpenSSL's own reason.
  package let description: String

  package init(_ description: String) { self.description = description }
}

/// Why a session ended other than by close_notify.
package struct HandshakeFailure: Error, Hashable, Sendable, CustomStringConvertible {
  /// Set when it was we who refused the peer's certificate.
  package let refusal: PeerRefusal?
  /// Names as in RFC 8446 §6.2, for example `unknown_ca`.
  package let alertReceived: String?
  package let alertSent: String?
  /// For people: OpenSSL's reason, or what exactly was wrong with the certificate.
  package let detail: String

  init(refusal: PeerRefusal?, alertReceived: String?, alertSent: String?, detail: String) {
    self.refusal = refusal
    self.alertReceived = alertReceived
    self.alertSent = alertSent
    self.detail = detail
  }

  /// A failure found by the caller, who does the framing.
  package init(detail: String) {
    self.init(refusal: nil, alertReceived: nil, alertSent: nil, detail: detail)
  }

  /// A failure found by another record layer.
  package init(alertSent alert: Alert, detail: String) {
    self.init(refusal: nil, alertReceived: nil, alertSent: alert.name, detail: detail)
  }

  package init(alertReceived alert: Alert) {
    self.init(refusal: nil, alertReceived: alert.name, alertSent: nil, detail: "")
  }

  /// One word for logs and metrics, from a bounded set.
  package var word: String {
    if let refusal { return refusal.rawValue }
    if let alertReceived { return "alert_received_\(alertReceived)" }
    if let alertSent { return "alert_sent_\(alertSent)" }
    return "protocol_error"
  }

  package var description: String { detail.isEmpty ? word : "\(word): \(detail)" }
}

/// What a step of the handshake came to.
package enum HandshakeStep {
  /// Send what was written; then feed the next record.
  case needsRecord
  /// Send what was written; from now on `open` and `seal`.
  case finished
  /// Send what was written (the alert), then close.
  case failed(HandshakeFailure)
}

/// What one record after the handshake came to.
package enum OpenStep {
  /// Bytes of plaintext; 0 for an empty record or a post-handshake message.
  case data(Int)
  /// The peer will send nothing more; our own direction stays open.
  case closeNotify
  /// Send what was written (the alert, if any), then close. The stream is not complete.
  case failed(HandshakeFailure)
}

/// An alert by its code (RFC 8446 §6).
package struct Alert: RawRepresentable, Hashable, Sendable {
  package let rawValue: UInt8

  package init(rawValue: UInt8) { self.rawValue = rawValue }

  package static let closeNotify = Alert(rawValue: 0)
  package static let unexpectedMessage = Alert(rawValue: 10)
  package static let badRecordMAC = Alert(rawValue: 20)
  package static let recordOverflow = Alert(rawValue: 22)
  package static let certificateRevoked = Alert(rawValue: 44)
  package static let illegalParameter = Alert(rawValue: 47)
  package static let accessDenied = Alert(rawValue: 49)
  package static let decodeError = Alert(rawValue: 50)
  package static let internalError = Alert(rawValue: 80)
  package static let userCanceled = Alert(rawValue: 90)

  /// The name in RFC 8446 §6 (RFC 5246 §7.2 for 100, RFC 7301 for 120).
  package var name: String {
    switch rawValue {
    case 0: "close_notify"
    case 10: "unexpected_message"
    case 20: "bad_record_mac"
    case 22: "record_overflow"
    case 40: "handshake_failure"
    case 42: "bad_certificate"
    case 43: "unsupported_certificate"
    case 44: "certificate_revoked"
    case 45: "certificate_expired"
    case 46: "certificate_unknown"
    case 47: "illegal_parameter"
    case 48: "unknown_ca"
    case 49: "access_denied"
    case 50: "decode_error"
    case 51: "decrypt_error"
    case 70: "protocol_version"
    case 71: "insufficient_security"
    case 80: "internal_error"
    case 86: "inappropriate_fallback"
    case 90: "user_canceled"
    case 100: "no_renegotiation"
    case 109: "missing_extension"
    case 110: "unsupported_extension"
    case 112: "unrecognized_name"
    case 113: "bad_certificate_status_response"
    case 115: "unknown_psk_identity"
    case 116: "certificate_required"
    case 120: "no_application_protocol"
    default: "unknown"
    }
  }
}
