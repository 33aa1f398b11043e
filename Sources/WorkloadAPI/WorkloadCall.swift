internal import CLinux
internal import Net

/// The method that is called.
package enum WorkloadStream: String, Sendable {
  case x509SVID = "FetchX509SVID"
  case x509Bundles = "FetchX509Bundles"

  package var path: String { "/SpiffeWorkloadAPI/\(rawValue)" }
}

/// One call to the Workload API on one connection, without its socket.
package struct WorkloadCall: ~Copyable {
  package enum Outcome: Sendable {
    case svids(X509SVIDResponse)
    case bundles(X509BundlesResponse)
    case discarded(reason: String)
    /// Nothing follows.
    case ended(End)
  }

  package struct End: Sendable {
    package let reason: WorkloadFailure.Reason
    package let detail: String
    /// The agent wants fewer pings (gRPC, keepalive: `too_many_pings`).
    package var wantsFewerPings = false
  }

  /// Messages of one call that may be discarded before the call is given up: they are logged.
  package static let discardedMaximum = 16

  let connection = GRPCConnection(.client, messageMaximumBytes: WorkloadLimits.messageMaximumBytes)
  private let stream: WorkloadStream
  private let identifier: Int32?
  private var httpStatus = "none"
  private var discarded = 0
  private var hasEnded = false

  package init(_ stream: WorkloadStream) {
    self.stream = stream
    // Every request carries the header that a request forged through another program would lack
    // (Workload Endpoint §3). The message is empty.
    identifier = connection.call(
      [
        (":method", "POST"), (":scheme", "http"), (":path", stream.path),
        (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc"),
        ("user-agent", "culvert"), (GRPCHeaders.Name.workload.rawValue, "true"),
      ], MessageReader.framed(0) { _ in })
  }

  /// Takes bytes as the agent sent them, for a caller without a socket.
  package mutating func receive(_ bytes: UnsafeRawBufferPointer) -> [Outcome] {
    let isSound = unsafe connection.receive(bytes)
    return takeOutcomes(isSound ? .open : .broken)
  }

  /// What is to be sent to the agent, for a caller without a socket.
  package func takeOutput() -> [UInt8] { connection.takeOutput() }

  /// What has happened since the last time; `state` tells how the connection stands after that.
  mutating func takeOutcomes(_ state: GRPCConnection.SocketState) -> [Outcome] {
    var outcomes: [Outcome] = []
    for event in connection.takeEvents() where !hasEnded { take(event, &outcomes) }
    guard !hasEnded else { return outcomes }
    switch state {
    case .open: break
    case .broken:
      let complaint = connection.complaint ?? "the connection broke an HTTP/2 rule"
      end(.protocolError, complaint, &outcomes)
    case .ended(nil): end(.streamEnded, "the agent closed the connection", &outcomes)
    case .ended(let error?): end(.streamEnded, "the connection was lost: \(error)", &outcomes)
    }
    return outcomes
  }

  private mutating func take(_ event: GRPCConnection.Event, _ outcomes: inout [Outcome]) {
    switch event {
    case .headers(identifier, let headers):
      httpStatus = headers[.status] ?? "none"
      if httpStatus == "200", !headers.isGRPC {
        end(.protocolError, "an answer that is not application/grpc", &outcomes)
      }
    case .message(identifier, let message): take(message, &outcomes)
    case .ended(identifier, let headers, let insideMessage):
      takeEnd(headers, insideMessage: insideMessage, &outcomes)
    case .faulty(identifier, .compressed):
      end(.protocolError, "a compressed message, though nothing was agreed on", &outcomes)
    case .faulty(identifier, .tooLarge(let bytes)):
      let maximum = WorkloadLimits.messageMaximumBytes
      end(.messageTooLarge, "\(bytes) bytes, at most \(maximum) are taken", &outcomes)
    case .reset(identifier, let errorCode):
      end(GRPCStatus(resetWith: errorCode), &outcomes)
    case .closed(identifier):
      end(.protocolError, connection.complaint ?? "an answer that breaks HTTP rules", &outcomes)
    case .goAway(let errorCode, let debugData): takeGoAway(errorCode, debugData, &outcomes)
    case .headers, .message, .ended, .faulty, .reset, .closed, .pong: break
    }
  }

  private mutating func take(_ message: SecretBytes, _ outcomes: inout [Outcome]) {
    do throws(Discarded) {
      outcomes.append(
        try unsafe message.withBytes { bytes throws(Discarded) in
          switch stream {
          case .x509SVID: .svids(try unsafe X509SVIDResponse(decoding: bytes))
          case .x509Bundles: .bundles(try unsafe X509BundlesResponse(decoding: bytes))
          }
        })
    } catch {
      discarded += 1
      outcomes.append(.discarded(reason: error.reason))
      if discarded >= Self.discardedMaximum {
        end(.protocolError, "\(discarded) messages that cannot be used", &outcomes)
      }
    }
  }

  /// Without trailers there is no status but HTTP's own.
  private mutating func takeEnd(
    _ headers: GRPCHeaders?, insideMessage: Bool, _ outcomes: inout [Outcome]
  ) {
    let headers = headers ?? GRPCHeaders()
    if let status = headers[.status] { httpStatus = status }
    let status = GRPCStatus(headers, httpStatus: httpStatus)
    if status.code == .ok, insideMessage {
      end(.protocolError, "the stream ended inside a message", &outcomes)
    } else {
      end(status, &outcomes)
    }
  }

  /// The agent wants this connection to end. Its stream is full state, so nothing is lost by asking
  /// again on a new one.
  private mutating func takeGoAway(
    _ errorCode: UInt32, _ debugData: String, _ outcomes: inout [Outcome]
  ) {
    let detail = debugData.isEmpty ? "GOAWAY" : "GOAWAY: \(debugData)"
    switch errorCode {
    case 0: end(.streamEnded, detail, &outcomes)
    case 0xb where debugData == "too_many_pings":  // ENHANCE_YOUR_CALM
      hasEnded = true
      outcomes.append(
        .ended(End(reason: .streamEnded, detail: detail, wantsFewerPings: true)))
    case 0xb: end(.unavailable, detail, &outcomes)
    default: end(.protocolError, "\(detail), HTTP/2 error \(errorCode)", &outcomes)
    }
  }

  private mutating func end(_ status: GRPCStatus, _ outcomes: inout [Outcome]) {
    let reason = WorkloadFailure.Reason(status.code)
    end(reason, reason == .otherStatus ? status.description : status.message, &outcomes)
  }

  private mutating func end(
    _ reason: WorkloadFailure.Reason, _ detail: String, _ outcomes: inout [Outcome]
  ) {
    guard !hasEnded else { return }
    hasEnded = true
    outcomes.append(.ended(End(reason: reason, detail: detail)))
  }
}
