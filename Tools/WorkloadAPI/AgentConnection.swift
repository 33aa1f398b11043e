import CLinux
import Identity
import Net
import TLS
import WorkloadAPI

/// One client: its connection, who it is, and what it has asked for.
final class AgentConnection {
  /// Bytes a request may have; the requests of the X.509-SVID profile are empty.
  static let requestMaximumBytes = 1024
  /// From connecting to the first call.
  static let firstCallTimeoutMilliseconds: Int64 = 10_000
  /// Without any call, after the first.
  static let idleTimeoutMilliseconds: Int64 = 300_000
  /// Without taking anything of what is to be sent.
  static let stallTimeoutMilliseconds: Int64 = 60_000

  private struct Call {
    let stream: WorkloadStream
    /// What was sent last.
    var sent: Offer?
    var hasRequest = false
  }

  let descriptor: Int32
  let caller: Caller
  private(set) var isOver = false
  private let connection = GRPCConnection(.server, messageMaximumBytes: requestMaximumBytes)
  private var calls: [Int32: Call] = [:]
  private var hadCall = false
  private var idleSince: Int64
  private var stalledSince: Int64

  /// Takes the descriptor over.
  init(_ descriptor: Int32, _ caller: Caller, now: Int64) {
    self.descriptor = descriptor
    self.caller = caller
    idleSince = now
    stalledSince = now
  }

  deinit { _ = close(descriptor) }

  var events: Int16 { Int16(POLLIN) | (connection.hasOutput ? Int16(POLLOUT) : 0) }

  /// Takes what the client has sent.
  func receive(_ issuer: inout Issuer) {
    if connection.receive(from: descriptor).state != .open { isOver = true }
    for event in connection.takeEvents() { take(event, &issuer) }
  }

  /// Sends what the client takes, and notes how long it has taken nothing.
  func send(now: Int64) {
    if connection.send(to: descriptor) != .open { isOver = true }
    if !calls.isEmpty { idleSince = now }
    if !connection.hasUnsentBytes || connection.takeHasSent() { stalledSince = now }
    let idleTimeout =
      hadCall ? Self.idleTimeoutMilliseconds : Self.firstCallTimeoutMilliseconds
    if calls.isEmpty, now - idleSince >= idleTimeout { isOver = true }
    if now - stalledSince >= Self.stallTimeoutMilliseconds {
      Log.write("\(caller): takes nothing, closed")
      isOver = true
    }
  }

  private func take(_ event: GRPCConnection.Event, _ issuer: inout Issuer) {
    switch event {
    case .headers(let stream, let headers): open(stream, headers)
    case .message(let stream, _):
      guard calls[stream]?.hasRequest == false else { return }
      calls[stream]?.hasRequest = true
      serve(stream, &issuer, isFirst: true)
    case .ended(let stream, _, _):
      guard calls[stream]?.hasRequest == false else { return }
      refuse(stream, GRPCStatus(.internal, "no request message"))
    case .faulty(let stream, .compressed):
      refuse(stream, GRPCStatus(.unimplemented, "compression is not supported"))
    case .faulty(let stream, .tooLarge):
      refuse(stream, GRPCStatus(.resourceExhausted, "the request is too large"))
    case .reset(let stream, _), .closed(let stream): calls[stream] = nil
    case .goAway, .pong: break
    }
  }

  /// Workload Endpoint §3 and 6: the metadata first.
  private func open(_ stream: Int32, _ headers: GRPCHeaders) {
    hadCall = true
    guard headers[.workload] == "true" else {
      return refuse(stream, GRPCStatus(.invalidArgument, "workload.spiffe.io: true is missing"))
    }
    let method = [WorkloadStream.x509SVID, .x509Bundles].first { $0.path == headers[.path] }
    guard headers[.method] == "POST", let method else {
      return refuse(stream, GRPCStatus(.unimplemented, "only X.509-SVIDs and X.509 bundles"))
    }
    calls[stream] = Call(stream: method)
  }

  private func refuse(_ stream: Int32, _ status: GRPCStatus) {
    let method = calls.removeValue(forKey: stream)?.stream.rawValue ?? "call"
    Log.write("\(method) \(caller): \(status)")
    connection.finish(stream, status)
  }

  // MARK: Serving

  /// Sends every call what has changed for it.
  func push(_ issuer: inout Issuer) {
    for (stream, call) in calls where call.hasRequest {
      serve(stream, &issuer, isFirst: false)
    }
  }

  private func serve(_ stream: Int32, _ issuer: inout Issuer, isFirst: Bool) {
    guard let call = calls[stream] else { return }
    let offer: Offer?
    do throws(IdentityError) {
      offer = try issuer.offer(to: caller, now: Clock.seconds())
    } catch {
      Log.write("\(error)")
      return refuse(stream, GRPCStatus(.unavailable, "no identity can be issued now"))
    }
    guard let offer else {
      return refuse(stream, GRPCStatus(.permissionDenied, "no identity issued"))
    }
    guard offer != call.sent else { return }
    let ids = offer.ids.map(\.description).joined(separator: " ")
    let what = isFirst ? "" : " pushed"
    Log.write("\(call.stream.rawValue) \(caller):\(what) \(ids)")
    connection.respond(stream)
    connection.send(stream, issuer.message(call.stream, offer))
    calls[stream]?.sent = offer
  }
}
