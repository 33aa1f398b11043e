/// Why a stream ended, or did not come about, and what happens next.
package struct WorkloadFailure: Hashable, Sendable, CustomStringConvertible {
  /// The word in logs, metrics and the tool.
  package enum Reason: String, CaseIterable, Sendable {
    /// Nobody answers at the endpoint.
    case cannotConnect = "cannot_connect"
    /// It does not answer within its time.
    case hung
    /// What it sent is not HTTP/2 or not gRPC, or a message is compressed.
    case protocolError = "protocol_error"
    case messageTooLarge = "message_too_large"
    /// It ended the stream without an error.
    case streamEnded = "stream_ended"
    /// It is starting, or has too much to do.
    case unavailable
    /// The workload is entitled to no identity.
    case permissionDenied = "permission_denied"
    /// It refused the request as malformed: a mistake in this program.
    case invalidArgument = "invalid_argument"
    /// It does not serve this method.
    case unimplemented
    case otherStatus = "other_status"
  }

  package let reason: Reason
  /// One line for people; may be empty.
  package let detail: String
  /// How long until the next attempt; nil if there will be none (Workload Endpoint, appendix A).
  package let retryMilliseconds: Int64?

  /// The SVIDs received before must no longer be used (Workload API §5.2.1). After any other failure
  /// they may be, until they expire.
  package var withdrawsIdentity: Bool { reason == .permissionDenied }

  package var description: String {
    let next =
      switch retryMilliseconds {
      case nil: "no further attempt"
      case 0: "next attempt at once"
      case let wait?: "next attempt in \(wait) ms"
      }
    return detail.isEmpty
      ? "\(reason.rawValue); \(next)" : "\(reason.rawValue): \(detail); \(next)"
  }
}

extension WorkloadFailure.Reason {
  init(_ code: GRPCStatus.Code) {
    self =
      switch code {
      case .ok: .streamEnded
      case .unavailable: .unavailable
      case .permissionDenied: .permissionDenied
      case .invalidArgument: .invalidArgument
      case .unimplemented: .unimplemented
      default: .otherStatus
      }
  }

  /// Asking again cannot help (Workload Endpoint, appendix A).
  var isFinal: Bool { self == .invalidArgument || self == .unimplemented }
}
