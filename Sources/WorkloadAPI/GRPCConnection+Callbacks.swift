internal import CHTTP2

// What nghttp2 calls. Every callback gets the connection as its user data.

extension GRPCConnection {
  func makeSession() -> OpaquePointer {
    var callbacks: OpaquePointer?
    var options: OpaquePointer?
    var session: OpaquePointer?
    var memory = unsafe CleansingAllocator.forHTTP2()
    let isReady =
      unsafe nghttp2_session_callbacks_new(&callbacks) == 0
      && nghttp2_option_new(&options) == 0
    precondition(isReady, "out of memory")
    defer {
      unsafe nghttp2_session_callbacks_del(callbacks)
      unsafe nghttp2_option_del(options)
    }
    unsafe Self.set(callbacks)
    // A stream that is over needs no memory here: there is no priority to keep.
    unsafe nghttp2_option_set_no_closed_streams(options, 1)
    let user = unsafe Unmanaged.passUnretained(self).toOpaque()
    let result =
      switch role {
      case .client: unsafe nghttp2_session_client_new3(&session, callbacks, user, options, &memory)
      case .server: unsafe nghttp2_session_server_new3(&session, callbacks, user, options, &memory)
      }
    guard result == 0, let session = unsafe session else { preconditionFailure("out of memory") }
    return unsafe session
  }

  private static func set(_ callbacks: OpaquePointer?) {
    unsafe nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks) { _, frame, user in
      guard let frame = unsafe frame else { return 0 }
      unsafe connection(user).beginHeaders(frame.pointee.hd.stream_id)
      return 0
    }
    unsafe nghttp2_session_callbacks_set_on_header_callback(callbacks) {
      _, frame, name, nameCount, value, valueCount, _, user in
      guard let frame = unsafe frame else { return 0 }
      // Both texts have the length given.
      let name = unsafe UnsafeBufferPointer(start: name, count: nameCount)
      let value = unsafe UnsafeBufferPointer(start: value, count: valueCount)
      unsafe connection(user).addHeader(frame.pointee.hd.stream_id, name, value)
      return 0
    }
    unsafe nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks) {
      _, _, identifier, start, count, user in
      // It points into what was given to `receive`.
      let bytes = unsafe UnsafeRawBufferPointer(start: start, count: count)
      unsafe connection(user).takeData(identifier, bytes)
      return 0
    }
    unsafe nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks) { _, frame, user in
      guard let frame = unsafe frame else { return 0 }
      unsafe connection(user).takeFrame(frame)
      return 0
    }
    unsafe nghttp2_session_callbacks_set_on_stream_close_callback(callbacks) {
      _, identifier, _, user in
      unsafe connection(user).closeStream(identifier)
      return 0
    }
    unsafe nghttp2_session_callbacks_set_error_callback2(callbacks) { _, _, text, count, user in
      let text = unsafe UnsafeRawBufferPointer(start: text, count: count)
      let complaint = unsafe String(decoding: text, as: UTF8.self)
      unsafe connection(user).complaint = GRPCStatus.printable(complaint)
      return 0
    }
  }

  /// The data source of every stream: its queue.
  static var dataProvider: nghttp2_data_provider {
    unsafe nghttp2_data_provider(
      source: nghttp2_data_source(),
      read_callback: { _, identifier, buffer, capacity, flags, _, user in
        // nghttp2 gives room for `capacity` bytes.
        let room = unsafe UnsafeMutableRawBufferPointer(start: buffer, count: capacity)
        guard let flags = unsafe flags else { return 0 }
        return unsafe connection(user).readQueue(identifier, into: room, &flags.pointee)
      })
  }

  // MARK: Receiving

  fileprivate func beginHeaders(_ identifier: Int32) {
    if streams[identifier] == nil, role == .server {
      streams[identifier] = GRPCStream(messageMaximumBytes: messageMaximumBytes)
    }
    streams[identifier]?.headers = GRPCHeaders()
  }

  fileprivate func addHeader(
    _ identifier: Int32, _ name: UnsafeBufferPointer<UInt8>, _ value: UnsafeBufferPointer<UInt8>
  ) {
    unsafe streams[identifier]?.headers.add(
      String(decoding: name, as: UTF8.self), String(decoding: value, as: UTF8.self))
  }

  fileprivate func takeData(_ identifier: Int32, _ bytes: UnsafeRawBufferPointer) {
    guard let stream = streams[identifier], !stream.isFaulty else { return }
    do throws(MessageFault) {
      try unsafe stream.reader.take(bytes) { events.append(.message(stream: identifier, $0)) }
    } catch {
      stream.isFaulty = true
      events.append(.faulty(stream: identifier, error))
    }
  }

  fileprivate func takeFrame(_ frame: UnsafePointer<nghttp2_frame>) {
    let header = unsafe frame.pointee.hd
    let isEnd = UInt32(header.flags) & NGHTTP2_FLAG_END_STREAM.rawValue != 0
    switch nghttp2_frame_type(UInt32(header.type)) {
    case NGHTTP2_HEADERS: takeHeaders(header.stream_id, isEnd: isEnd)
    case NGHTTP2_DATA:
      if isEnd { end(header.stream_id, nil) }
    case NGHTTP2_RST_STREAM:
      let code = unsafe frame.pointee.rst_stream.error_code
      events.append(.reset(stream: header.stream_id, errorCode: code))
    case NGHTTP2_PING:
      if UInt32(header.flags) & NGHTTP2_FLAG_ACK.rawValue != 0 { events.append(.pong) }
    case NGHTTP2_GOAWAY:
      let goAway = unsafe frame.pointee.goaway
      // The data has the length given.
      let data = unsafe UnsafeBufferPointer(
        start: goAway.opaque_data, count: goAway.opaque_data_len)
      let text = unsafe GRPCStatus.printable(
        String(decoding: data.prefix(GRPCHeaders.valueMaximumBytes), as: UTF8.self))
      unsafe events.append(.goAway(errorCode: goAway.error_code, debugData: text))
    default: break
    }
  }

  private func takeHeaders(_ identifier: Int32, isEnd: Bool) {
    guard let stream = streams[identifier] else { return }
    // An informational response comes before the one that counts (RFC 9110 §15.2).
    if role == .client, stream.headers[.status]?.hasPrefix("1") == true, !isEnd { return }
    if !stream.hasHeaders, role == .server || !isEnd {
      stream.hasHeaders = true
      events.append(.headers(stream: identifier, stream.headers))
    }
    if isEnd { end(identifier, stream.headers) }
  }

  private func end(_ identifier: Int32, _ headers: GRPCHeaders?) {
    let isInside = streams[identifier]?.reader.isInside ?? false
    events.append(.ended(stream: identifier, headers, insideMessage: isInside))
  }

  fileprivate func closeStream(_ identifier: Int32) {
    guard streams.removeValue(forKey: identifier) != nil else { return }
    events.append(.closed(stream: identifier))
  }

  // MARK: Sending

  fileprivate func readQueue(
    _ identifier: Int32, into room: UnsafeMutableRawBufferPointer, _ flags: inout UInt32
  ) -> Int {
    guard let stream = streams[identifier] else {
      return Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
    }
    guard let message = stream.queue.first else {
      guard let ending = stream.ending else { return Int(NGHTTP2_ERR_DEFERRED.rawValue) }
      return finishQueue(identifier, ending, &flags)
    }
    let count = min(room.count, message.count - stream.sent)
    unsafe message.withBytes { bytes in
      unsafe room.copyMemory(
        from: UnsafeRawBufferPointer(rebasing: bytes[stream.sent..<stream.sent + count]))
    }
    stream.sent += count
    if stream.sent == message.count {
      stream.queue.removeFirst()
      stream.sent = 0
      if stream.queue.isEmpty, let ending = stream.ending {
        let result = finishQueue(identifier, ending, &flags)
        if result < 0 { return result }
      }
    }
    return count
  }

  /// Says that the data ends here, with or without trailers; 0 or an error.
  private func finishQueue(
    _ identifier: Int32, _ ending: GRPCStream.Ending, _ flags: inout UInt32
  ) -> Int {
    flags |= NGHTTP2_DATA_FLAG_EOF.rawValue
    guard case .trailers(let trailers) = ending else { return 0 }
    flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM.rawValue
    let isSubmitted = submitTrailers(identifier, trailers) == 0
    return isSubmitted ? 0 : Int(NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE.rawValue)
  }
}

/// The connection a callback is for: it owns the session that calls.
private func connection(_ user: UnsafeMutableRawPointer?) -> GRPCConnection {
  guard let user = unsafe user else { preconditionFailure("the session has its connection") }
  return unsafe Unmanaged<GRPCConnection>.fromOpaque(user).takeUnretainedValue()
}
