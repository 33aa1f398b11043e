internal import CLinux
package import Identity
package import Net
package import Policy

/// How a connection ended; the raw value is the word in logs.
package enum ConnectionEnd: String, Hashable, Sendable, CaseIterable {
  /// Both directions were closed in order.
  case closed
  /// Never relayed; `reason` says why.
  case refused
  case clientReset = "client_reset"
  case serverReset = "server_reset"
  /// A TLS peer closed its connection without close_notify.
  case truncated
  /// A TLS peer sent something RFC 8446 forbids, or an alert.
  case protocolError = "protocol_error"
  case halfCloseTimeout = "half_close_timeout"
  /// The peer's certificate would not be accepted any more; `reason` says why.
  case revoked
  /// A changed policy does not allow it any more; `reason` says why.
  case denied
  /// Ended on request because it would not be let in now; `reason` says why.
  case enforced
  /// Under `connectionLifetime: certificate`, a certificate of either end has ended.
  case lifetimeEnded = "lifetime_ended"
  /// Open at the drain deadline and closed in order.
  case drained
  /// Open when the proxy stopped.
  case stopped
}

/// One line of the connection log, written when the connection has ended.
package struct ConnectionRecord: Sendable {
  /// The ID by which logs, metrics and tools name this connection.
  package var id: UInt64
  /// Unix time of the end, in milliseconds.
  package var endedAtMilliseconds: Int64
  package var direction: Direction
  package var end: ConnectionEnd
  package var security: Security
  /// Why it was refused, relayed as it is, or failed: one word.
  package var reason: String?
  /// For people; may contain spaces.
  package var detail: String?
  package var source: SocketAddress?
  package var sourceIdentity: SPIFFEID?
  package var destination: SocketAddress?
  package var destinationIdentity: SPIFFEID?
  /// Who was at the destination the last time, if that was somebody else.
  package var previousIdentity: SPIFFEID?
  /// How the other end was found to be mesh.
  package var discovery: MeshEvidence?
  /// The rule of `authorization` that decided.
  package var rule: String?
  /// What audited rules would have done: `deny`, or `allow`, and by which rule.
  package var audit: String?
  package var serverName: String?
  package var alpn: String?
  package var cipher: String?
  /// How the peer proved its identity.
  package var handshake: HandshakeKind?
  /// What protected the records sent to the TLS peer, and those received from it.
  package var sendEngine: RecordEngine?
  package var receiveEngine: RecordEngine?
  /// Why an engine was not the one it could have been: one word.
  package var engineReason: String?
  /// Application bytes that went back to the source.
  package var bytesSent: UInt64
  /// Application bytes that came from the source.
  package var bytesReceived: UInt64
  package var durationMicroseconds: UInt64

  package init(
    id: UInt64, endedAtMilliseconds: Int64, direction: Direction, end: ConnectionEnd,
    security: Security, bytesSent: UInt64 = 0, bytesReceived: UInt64 = 0,
    durationMicroseconds: UInt64 = 0
  ) {
    self.id = id
    self.endedAtMilliseconds = endedAtMilliseconds
    self.direction = direction
    self.end = end
    self.security = security
    self.bytesSent = bytesSent
    self.bytesReceived = bytesReceived
    self.durationMicroseconds = durationMicroseconds
  }
}

extension ConnectionRecord {
  /// `TIME connection id=… direction=… end=… security=… …`; fields without a value are left out.
  package var text: String {
    var line = "\(Timestamp.text(unixMilliseconds: endedAtMilliseconds)) connection"
    func field(_ name: String, _ value: String?) {
      guard let value else { return }
      line += " \(name)=\(Self.quoted(value))"
    }
    field("id", Self.text(id: id))
    field("direction", direction.rawValue)
    field("end", end.rawValue)
    field("security", security.rawValue)
    field("reason", reason)
    field("src.addr", source?.description)
    field("src.identity", sourceIdentity?.description)
    field("dst.addr", destination?.description)
    field("dst.identity", destinationIdentity?.description)
    field("dst.identity.before", previousIdentity?.description)
    field("discovery", discovery?.rawValue)
    field("rule", rule)
    field("audit", audit)
    field("sni", serverName)
    field("alpn", alpn)
    field("cipher", cipher)
    field("handshake", handshake?.rawValue)
    field("engine.send", sendEngine?.rawValue)
    field("engine.recv", receiveEngine?.rawValue)
    field("engine.reason", engineReason)
    field("bytes_sent", String(bytesSent))
    field("bytes_recv", String(bytesReceived))
    field("duration", Self.milliseconds(durationMicroseconds))
    field("detail", detail)
    return line
  }

  /// Sixteen hexadecimal digits.
  package static func text(id: UInt64) -> String {
    let digits = String(id, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }

  private static func milliseconds(_ microseconds: UInt64) -> String {
    let thousandths = String(microseconds % 1000)
    return "\(microseconds / 1000)." + String(repeating: "0", count: 3 - thousandths.count)
      + thousandths + "ms"
  }

  /// A value with anything but plain visible ASCII is quoted and escaped, so that no peer can
  /// forge a field or a line.
  private static func quoted(_ value: String) -> String {
    let isPlain = value.utf8.allSatisfy {
      (0x21...0x7e).contains($0) && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\")
        && $0 != UInt8(ascii: "=")
    }
    if isPlain, !value.isEmpty { return value }
    var text = "\""
    for byte in value.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): text += "\\" + String(UnicodeScalar(byte))
      case 0x20...0x7e: text += String(UnicodeScalar(byte))
      default:
        let digits = String(byte, radix: 16)
        text += "\\x" + (digits.utf8.count == 1 ? "0" : "") + digits
      }
    }
    return text + "\""
  }
}
