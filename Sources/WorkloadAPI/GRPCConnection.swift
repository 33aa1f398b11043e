internal import CHTTP2

/// One HTTP/2 connection (RFC 9113) that carries gRPC calls, at either end of it. Pure: bytes and
/// requests go in, events and bytes come out; the socket is somebody else's.
///
/// nghttp2 does the framing, header compression and flow control. What is received here never lies
/// in memory that is not cleansed.
@safe package final class GRPCConnection {
  package enum Role: Sendable { case client, server }

  /// What the other end did, in the order in which it did it.
  package enum Event: Sendable {
    /// A request, or a response that has not ended with its headers.
    case headers(stream: Int32, GRPCHeaders)
    case message(stream: Int32, SecretBytes)
    /// It will send nothing more on this stream; with its last headers, if there were any.
    case ended(stream: Int32, GRPCHeaders?, insideMessage: Bool)
    /// No message: what follows on this stream is ignored.
    case faulty(stream: Int32, MessageFault)
    case reset(stream: Int32, errorCode: UInt32)
    /// The stream is gone, in whatever way.
    case closed(stream: Int32)
    case goAway(errorCode: UInt32, debugData: String)
    case pong
  }

  /// Calls a client may have open at a time on one connection.
  package static let streamsMaximum: UInt32 = 16
  /// Bytes one socket read may bring.
  static let receiveBufferBytes = 64 * 1024
  /// Frames are put into the output up to here; the last one may go beyond.
  static let outputTargetBytes = 32 * 1024
  /// What comes out in one piece: a frame's header, the length of its padding, and at most the 2^14
  /// bytes that every receiver allows (RFC 9113 §4.2, 6.1).
  static let frameMaximumBytes = 9 + 1 + 16_384
  private static let outputBytes = outputTargetBytes + frameMaximumBytes

  let role: Role
  let messageMaximumBytes: Int
  /// Made in `init`, freed in `deinit`; its callbacks refer to this object, which outlives it.
  private var session: OpaquePointer?
  var streams: [Int32: GRPCStream] = [:]
  var events: [Event] = []
  /// What nghttp2 says is wrong with what the other end sent.
  var complaint: String?
  private var hasSent = false
  private var output = CleansedBuffer(capacity: outputBytes)
  var input = CleansedBuffer(capacity: receiveBufferBytes)

  /// - Parameter messageMaximumBytes: the largest message the other end may send.
  package init(_ role: Role, messageMaximumBytes: Int) {
    self.role = role
    self.messageMaximumBytes = messageMaximumBytes
    unsafe session = unsafe makeSession()
    var settings = [
      nghttp2_settings_entry(
        settings_id: Int32(NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS.rawValue),
        value: role == .server ? Self.streamsMaximum : 0)
    ]
    if role == .client {
      settings.append(
        nghttp2_settings_entry(
          settings_id: Int32(NGHTTP2_SETTINGS_ENABLE_PUSH.rawValue), value: 0))
    }
    let result = unsafe nghttp2_submit_settings(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), settings, settings.count)
    precondition(result == 0, "out of memory")
  }

  deinit { unsafe nghttp2_session_del(session) }

  // MARK: Receiving

  /// Takes received bytes; what they mean is in the events.
  ///
  /// - Returns: false if the connection is beyond repair: send what there is, then close.
  package func receive(_ bytes: UnsafeRawBufferPointer) -> Bool {
    let result = unsafe bytes.withMemoryRebound(to: UInt8.self) {
      unsafe nghttp2_session_mem_recv(session, $0.baseAddress, $0.count)
    }
    if result < 0, complaint == nil {
      complaint = unsafe String(cString: nghttp2_strerror(Int32(result)))
    }
    return result >= 0 && !isOver
  }

  /// Takes the events that have come together.
  package func takeEvents() -> [Event] {
    defer { events.removeAll() }
    return events
  }

  /// Neither end has anything left to say: after a connection error, or a GOAWAY and its last stream.
  package var isOver: Bool {
    unsafe nghttp2_session_want_read(session) == 0 && nghttp2_session_want_write(session) == 0
  }

  // MARK: Sending

  package var hasOutput: Bool {
    unsafe output.count > 0 || nghttp2_session_want_write(session) != 0
  }

  /// Whether something waits to be sent, be it for the socket or for the other end's window.
  package var hasUnsentBytes: Bool {
    hasOutput || streams.values.contains { !$0.queue.isEmpty }
  }

  /// Whether anything was sent since the last call.
  package func takeHasSent() -> Bool {
    defer { hasSent = false }
    return hasSent
  }

  /// Shows what is to be sent next; `send` returns how much of it was, or a negative number.
  func withOutput(_ send: (UnsafeRawBufferPointer) -> Int) -> Int {
    fillOutput()
    let sent = unsafe output.withBytes { unsafe send($0) }
    if sent > 0 {
      output.removeFirst(sent)
      hasSent = true
    }
    return sent
  }

  /// Takes all there is to send, for a caller without a socket.
  package func takeOutput() -> [UInt8] {
    var bytes: [UInt8] = []
    while hasOutput {
      let taken = unsafe withOutput {
        unsafe bytes += $0
        return $0.count
      }
      if taken == 0 { break }
    }
    return bytes
  }

  private func fillOutput() {
    while output.count < Self.outputTargetBytes {
      var start: UnsafePointer<UInt8>?
      let count = unsafe nghttp2_session_mem_send(session, &start)
      guard count > 0 else { return }
      unsafe output.append(UnsafeRawBufferPointer(start: start, count: count))
    }
  }

  /// Starts a call with one message and no more to follow (a client).
  ///
  /// - Returns: nil if no further stream can be opened on this connection.
  func call(_ fields: [(String, String)], _ message: SecretBytes) -> Int32? {
    let stream = GRPCStream(messageMaximumBytes: messageMaximumBytes)
    stream.queue.append(message)
    stream.ending = .streamEnd
    var provider = unsafe Self.dataProvider
    let identifier = unsafe withFields(fields) { fields in
      unsafe nghttp2_submit_request(
        session, nil, fields.baseAddress, fields.count, &provider, nil)
    }
    guard identifier > 0 else { return nil }
    streams[identifier] = stream
    return identifier
  }

  /// Answers a call (a server): headers now, messages with `send`, the status with `finish`.
  package func respond(_ identifier: Int32) {
    guard let stream = streams[identifier], !stream.isAnswered else { return }
    stream.isAnswered = true
    var provider = unsafe Self.dataProvider
    unsafe submit(identifier) { [session] in
      unsafe withFields([(":status", "200"), ("content-type", "application/grpc")]) { fields in
        unsafe nghttp2_submit_response(
          session, identifier, fields.baseAddress, fields.count, &provider)
      }
    }
  }

  /// Queues a message that `framed` made. One that waits and has not begun to be sent gives way to
  /// it: every message is full state (Workload API §4.3), and a slow reader needs the newest only.
  package func send(_ identifier: Int32, _ message: SecretBytes) {
    guard let stream = streams[identifier], stream.isAnswered, stream.ending == nil else { return }
    stream.replaceWaiting(by: message)
    resume(identifier)
  }

  /// Ends a call, after the messages that wait.
  package func finish(_ identifier: Int32, _ status: GRPCStatus) {
    guard let stream = streams[identifier], stream.ending == nil else { return }
    let trailers = [
      ("grpc-status", String(status.code.rawValue)), ("grpc-message", status.percentEncodedMessage),
    ]
    guard stream.isAnswered else {
      stream.isAnswered = true
      stream.ending = .streamEnd
      let headers = [(":status", "200"), ("content-type", "application/grpc")] + trailers
      return unsafe submit(identifier) { [session] in
        unsafe withFields(headers) { fields in
          unsafe nghttp2_submit_response(
            session, identifier, fields.baseAddress, fields.count, nil)
        }
      }
    }
    stream.ending = .trailers(trailers)
    resume(identifier)
  }

  func ping() {
    // It fails for want of memory only; then no answer comes, and that has a deadline.
    _ = unsafe nghttp2_submit_ping(session, UInt8(NGHTTP2_FLAG_NONE.rawValue), nil)
  }

  /// Submits the trailers of a stream whose messages have all been sent.
  func submitTrailers(_ identifier: Int32, _ trailers: [(String, String)]) -> Int32 {
    unsafe withFields(trailers) { fields in
      unsafe nghttp2_submit_trailer(session, identifier, fields.baseAddress, fields.count)
    }
  }

  private func resume(_ identifier: Int32) {
    // It fails if the stream was not waiting for more, which is as well.
    _ = unsafe nghttp2_session_resume_data(session, identifier)
  }

  /// A stream that cannot be answered is reset.
  private func submit(_ identifier: Int32, _ body: () -> Int32) {
    guard body() != 0 else { return }
    _ = unsafe nghttp2_submit_rst_stream(
      session, UInt8(NGHTTP2_FLAG_NONE.rawValue), identifier, NGHTTP2_INTERNAL_ERROR.rawValue)
  }
}

/// One call on a connection: what it has received of a message, and what it has to send.
final class GRPCStream {
  enum Ending {
    case streamEnd
    case trailers([(String, String)])
  }

  var reader: MessageReader
  /// Of the header block that is being received.
  var headers = GRPCHeaders()
  /// The final response headers, or the request's, have come.
  var hasHeaders = false
  var isFaulty = false
  var isAnswered = false
  /// Messages to send, the first of which has been sent up to `sent`.
  var queue: [SecretBytes] = []
  var sent = 0
  /// How the stream ends once the queue is empty; nil while more may come.
  var ending: Ending?

  init(messageMaximumBytes: Int) { reader = MessageReader(maximumBytes: messageMaximumBytes) }

  func replaceWaiting(by message: SecretBytes) {
    queue.removeLast(max(0, queue.count - (sent > 0 ? 1 : 0)))
    queue.append(message)
  }
}

/// Calls `body` with header fields in the form nghttp2 takes, which copies them.
private func withFields<Result>(
  _ fields: [(String, String)], _ body: (UnsafeBufferPointer<nghttp2_nv>) -> Result
) -> Result {
  var text = fields.flatMap { Array($0.0.utf8) + Array($0.1.utf8) }
  return unsafe text.withUnsafeMutableBufferPointer { text in
    guard var cursor = text.baseAddress else { preconditionFailure("no header fields") }
    let pairs = unsafe fields.map { name, value in
      let pair = unsafe nghttp2_nv(
        name: cursor, value: cursor + name.utf8.count, namelen: name.utf8.count,
        valuelen: value.utf8.count, flags: UInt8(NGHTTP2_NV_FLAG_NONE.rawValue))
      unsafe cursor += name.utf8.count + value.utf8.count
      return unsafe pair
    }
    return unsafe pairs.withUnsafeBufferPointer { unsafe body($0) }
  }
}
