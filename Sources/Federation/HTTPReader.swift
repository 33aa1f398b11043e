internal import CHTTPParser

/// Reads one HTTP/1.1 message as it comes; libhttp_parser does the parsing.
///
/// Of a response with status 200 the body is kept. Any other response, and a request, is complete
/// with its header: nobody needs what follows. Not thread-safe.
@safe final class HTTPReader {
  enum Kind { case request, response }

  /// What has been read so far.
  enum Step: Equatable {
    case needsMore
    case complete
    case failed(Failure)
  }

  enum Failure: Error, Equatable {
    case malformed(String)
    case bodyTooLarge
  }

  private let kind: Kind
  private let maximumBodyBytes: Int
  private let maximumOtherBytes: Int
  private let parser: UnsafeMutablePointer<http_parser>

  /// Of a response: 0 before its status line.
  private(set) var status = 0
  /// Of a request.
  private(set) var method = Method.other
  /// Values of Location fields.
  private(set) var locations: [String] = []
  private(set) var body: [UInt8] = []

  enum Method { case get, head, other }

  private var receivedBytes = 0
  private var fieldName: [UInt8] = []
  private var fieldValue: [UInt8] = []
  private var isInValue = false
  private var isComplete = false
  private var isTooLarge = false

  /// - Parameters:
  ///   - maximumOtherBytes: of all that is no body: header, interim responses, chunk sizes,
  ///     trailer.
  init(_ kind: Kind, maximumBodyBytes: Int = 0, maximumOtherBytes: Int) {
    self.kind = kind
    self.maximumBodyBytes = maximumBodyBytes
    self.maximumOtherBytes = maximumOtherBytes
    unsafe parser = .allocate(capacity: 1)
    unsafe parser.initialize(to: http_parser())
    unsafe http_parser_init(parser, kind == .request ? HTTP_REQUEST : HTTP_RESPONSE)
    // Only used by callbacks inside `run`, while `self` is alive.
    unsafe parser.pointee.data = Unmanaged.passUnretained(self).toOpaque()
  }

  deinit { unsafe parser.deallocate() }

  /// Takes the next bytes; none mean that the peer has ended its stream.
  func feed(_ bytes: ArraySlice<UInt8>) -> Step {
    guard !isComplete else { return .complete }
    receivedBytes += bytes.count
    let consumed = unsafe bytes.withUnsafeBytes { unsafe run($0) }
    if isTooLarge { return .failed(.bodyTooLarge) }
    if isComplete { return .complete }
    let error = unsafe culvert_http_errno(parser)
    guard error == HPE_OK, consumed == bytes.count else {
      return .failed(.malformed(Self.text(error)))
    }
    guard !bytes.isEmpty else { return .failed(.malformed("it ends before it is complete")) }
    guard receivedBytes - body.count <= maximumOtherBytes else {
      return .failed(.malformed("more than \(maximumOtherBytes) bytes of header and framing"))
    }
    return .needsMore
  }

  private func run(_ bytes: UnsafeRawBufferPointer) -> Int {
    var settings = Self.settings
    defer { withExtendedLifetime(self) {} }
    let start = unsafe bytes.baseAddress?.assumingMemoryBound(to: CChar.self)
    return unsafe http_parser_execute(parser, &settings, start, bytes.count)
  }

  private static func text(_ error: http_errno) -> String {
    switch error {
    case HPE_OK: "more than one message"
    case HPE_INVALID_EOF_STATE: "it ends before it is complete"
    default: unsafe String(cString: http_errno_description(error))
    }
  }

  // MARK: What the parser finds

  private func take(name bytes: UnsafeRawBufferPointer) {
    endField()
    unsafe fieldName += bytes
  }

  private func take(value bytes: UnsafeRawBufferPointer) {
    isInValue = true
    unsafe fieldValue += bytes
  }

  private func endField() {
    guard isInValue else { return }
    if String(decoding: fieldName, as: UTF8.self).lowercased() == "location" {
      locations.append(String(decoding: fieldValue, as: UTF8.self))
    }
    fieldName.removeAll(keepingCapacity: true)
    fieldValue.removeAll(keepingCapacity: true)
    isInValue = false
  }

  /// Interim responses come before the one that counts (RFC 9110 §15.2); 101 would be the last.
  private var isInterim: Bool {
    kind == .response && (100...199).contains(status) && status != 101
  }

  /// - Returns: what the parser wants to know: 0 to go on, 1 if there is no body, -1 to stop.
  private func takeEndOfHeader() -> Int32 {
    endField()
    if kind == .request {
      method =
        switch unsafe http_method(parser.pointee.method) {
        case HTTP_GET: .get
        case HTTP_HEAD: .head
        default: .other
        }
    } else {
      status = unsafe Int(parser.pointee.status_code)
    }
    // Whatever its fields say, it has no body (RFC 9110 §15.2).
    if isInterim { return 1 }
    isComplete = kind == .request || status != 200
    // UInt64.max stands for "not said".
    let announced = unsafe parser.pointee.content_length
    isTooLarge = !isComplete && announced != .max && announced > UInt64(maximumBodyBytes)
    return isComplete || isTooLarge ? -1 : 0
  }

  private func take(body bytes: UnsafeRawBufferPointer) -> Bool {
    guard body.count + bytes.count <= maximumBodyBytes else {
      isTooLarge = true
      return false
    }
    unsafe body += bytes
    return true
  }

  private func takeEndOfMessage() -> Bool {
    isComplete = !isInterim
    locations.removeAll(where: { _ in isInterim })
    return !isComplete
  }
}

// MARK: - Callbacks

extension HTTPReader {
  /// 0 goes on; -1 stops the parser, with an error that nobody looks at.
  private static func of(_ parser: UnsafeMutablePointer<http_parser>?) -> HTTPReader? {
    guard let data = unsafe parser?.pointee.data else { return nil }
    return unsafe Unmanaged<HTTPReader>.fromOpaque(data).takeUnretainedValue()
  }

  private static var settings: http_parser_settings {
    var settings = http_parser_settings()
    unsafe http_parser_settings_init(&settings)
    unsafe settings.on_header_field = { parser, start, count in
      unsafe HTTPReader.of(parser)?.take(name: UnsafeRawBufferPointer(start: start, count: count))
      return 0
    }
    unsafe settings.on_header_value = { parser, start, count in
      unsafe HTTPReader.of(parser)?.take(value: UnsafeRawBufferPointer(start: start, count: count))
      return 0
    }
    unsafe settings.on_headers_complete = { parser in
      unsafe HTTPReader.of(parser)?.takeEndOfHeader() ?? -1
    }
    unsafe settings.on_body = { parser, start, count in
      let bytes = unsafe UnsafeRawBufferPointer(start: start, count: count)
      return unsafe HTTPReader.of(parser)?.take(body: bytes) == true ? 0 : -1
    }
    unsafe settings.on_message_complete = { parser in
      unsafe HTTPReader.of(parser)?.takeEndOfMessage() == true ? 0 : -1
    }
    return settings
  }
}
