import TestSupport
import Testing

@testable import WorkloadAPI

/// One call, fed with bytes written by hand.
@Suite struct `A call` {
  private let message = Wire.svids([Wire.svid()])

  private func call(_ bytes: [UInt8]) -> Call { Call().receive(bytes) }

  @Test func `gives the messages of a stream`() {
    let call = call(Frame.opening(message))
    #expect(call.svids.count == 1 && call.end == nil)
    call.receive(Frame.message(message) + Frame.message(message))
    #expect(call.svids.count == 3 && call.end == nil)
    call.receive(Frame.trailers(0))
    #expect(call.end?.reason == .streamEnded)
  }

  @Test func `is the same however its bytes are cut`() {
    let bytes = Frame.opening(message) + Frame.message(message) + Frame.trailers(14, "bye")
    for size in [1, 2, 3, 7, 50] {
      let call = Call()
      for start in stride(from: 0, to: bytes.count, by: size) {
        call.receive(Array(bytes[start..<min(start + size, bytes.count)]))
      }
      #expect(call.svids.count == 2, "\(size)")
      #expect(call.end?.reason == .unavailable && call.end?.detail == "bye", "\(size)")
    }
  }

  @Test func `takes messages that lie across DATA frames and share them`() {
    let framed = [0] + Frame.number(UInt32(message.count)) + message
    let two = framed + framed
    for cut in 0...two.count {
      let call = call(
        Frame.settings + Frame.response + Frame.data(Array(two[..<cut]))
          + Frame.data(Array(two[cut...])))
      #expect(call.svids.count == 2, "cut at \(cut)")
    }
  }

  @Test func `asks as gRPC wants it`() throws {
    let frames = Frame.parse(Call().request)
    #expect(frames.map(\.type) == [4, 1, 0], "SETTINGS, HEADERS, DATA")
    #expect(frames[2].payload == [0, 0, 0, 0, 0], "an empty message")
    #expect(frames[2].flags == 1, "END_STREAM")
  }

  // MARK: How it ends

  @Test func `takes a status without any message`() {
    let call = call(Frame.settings + Frame.trailersOnly(7, "no identity issued"))
    #expect(call.end?.reason == .permissionDenied)
    #expect(call.end?.detail == "no identity issued")
  }

  @Test(arguments: [
    (0, WorkloadFailure.Reason.streamEnded, "said"), (1, .otherStatus, "CANCELLED: said"),
    (2, .otherStatus, "UNKNOWN: said"), (3, .invalidArgument, "said"),
    (7, .permissionDenied, "said"), (8, .otherStatus, "RESOURCE_EXHAUSTED: said"),
    (12, .unimplemented, "said"), (13, .otherStatus, "INTERNAL: said"),
    (14, .unavailable, "said"), (16, .otherStatus, "UNAUTHENTICATED: said"),
    (17, .otherStatus, "UNKNOWN: said"), (99_999, .otherStatus, "UNKNOWN: said"),
  ])
  func `knows every status`(code: Int, reason: WorkloadFailure.Reason, detail: String) {
    for bytes in [
      Frame.opening(message) + Frame.trailers(code, "said"),
      Frame.settings + Frame.trailersOnly(code, "said"),
    ] {
      let end = call(bytes).end
      #expect(end?.reason == reason && end?.detail == detail, "\(String(describing: end))")
    }
  }

  /// gRPC, "HTTP to gRPC Status Code Mapping".
  @Test(arguments: [
    ("400", WorkloadFailure.Reason.otherStatus), ("401", .otherStatus), ("403", .permissionDenied),
    ("404", .unimplemented), ("429", .unavailable), ("502", .unavailable), ("503", .unavailable),
    ("504", .unavailable), ("500", .otherStatus), ("204", .otherStatus),
  ])
  func `makes a status of HTTP's where gRPC's is missing`(
    status: String, reason: WorkloadFailure.Reason
  ) {
    let only = call(Frame.settings + Frame.headers([(":status", status)], end: true))
    #expect(only.end?.reason == reason)
    let text = [(":status", status), ("content-type", "text/plain")]
    let withBody = call(
      Frame.settings + Frame.headers(text) + Frame.data(Array("oh".utf8), end: true))
    #expect(status == "204" || withBody.end?.reason == reason)
  }

  @Test func `misses the status of a stream that ends without trailers`() {
    let call = call(Frame.opening(message) + Frame.data([], end: true))
    #expect(call.svids.count == 1)
    #expect(call.end?.reason == .otherStatus)
    #expect(call.end?.detail == "UNKNOWN: HTTP status 200, no grpc-status")
  }

  @Test func `does not take a status that is not a number`() {
    for status in ["", "+0", "-0", "0x0", "zero", "0,0", "18446744073709551616"] {
      let fields = [
        (":status", "200"), ("content-type", "application/grpc"), ("grpc-status", status),
      ]
      let end = call(Frame.settings + Frame.headers(fields, end: true)).end
      #expect(end?.reason == .otherStatus, "\(status)")
    }
  }

  @Test func `decodes what the agent says and makes it safe to log`() {
    for (sent, shown) in [
      ("plain", "plain"), ("50%25 %e2%82%AC", "50% €"), ("%0a%1b[31m%00", "??[31m?"),
      ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%ff", "\u{fffd}"), ("%e2%80%a8", "?"),
      (String(repeating: "x", count: 1000), String(repeating: "x", count: 200)),
    ] {
      let end = call(Frame.settings + Frame.trailersOnly(14, sent)).end
      #expect(end?.detail == shown)
    }
  }

  @Test func `skips informational responses`() {
    let call = call(
      Frame.settings + Frame.headers([(":status", "103")]) + Frame.response
        + Frame.message(message))
    #expect(call.svids.count == 1 && call.end == nil)
  }

  @Test(arguments: [
    (UInt32(7), WorkloadFailure.Reason.unavailable), (8, .otherStatus), (11, .otherStatus),
    (12, .permissionDenied), (2, .otherStatus), (0, .otherStatus),
  ])
  func `ends when its stream is reset`(code: UInt32, reason: WorkloadFailure.Reason) {
    let call = call(Frame.opening(message) + Frame.reset(code))
    #expect(call.svids.count == 1)
    #expect(call.end?.reason == reason)
    #expect(call.end?.detail.contains("HTTP/2 error \(code)") == true)
  }

  @Test func `ends on GOAWAY, whatever is still to come`() {
    let orderly = call(Frame.opening(message) + Frame.goAway(0) + Frame.message(message))
    #expect(orderly.svids.count == 1)
    #expect(orderly.end?.reason == .streamEnded && orderly.end?.wantsFewerPings == false)
    let calm = call(Frame.opening(message) + Frame.goAway(11, "too_many_pings"))
    #expect(calm.end?.reason == .streamEnded && calm.end?.wantsFewerPings == true)
    #expect(call(Frame.opening(message) + Frame.goAway(11)).end?.reason == .unavailable)
    let broken = call(Frame.opening(message) + Frame.goAway(1, "bad\u{1b}frame")).end
    #expect(broken?.reason == .protocolError)
    #expect(broken?.detail == "GOAWAY: bad?frame, HTTP/2 error 1")
    let unseen = call(Frame.settings + Frame.goAway(0, lastStream: 0))
    #expect(unseen.end?.reason == .streamEnded)
  }

  // MARK: What is no answer

  @Test func `refuses a compressed message`() {
    #expect(call(Frame.opening(message)).end == nil)
    for flag: UInt8 in [1, 2, 255] {
      let call = call(
        Frame.settings + Frame.response + Frame.message(message, flag: flag)
          + Frame.message(message))
      #expect(call.svids.isEmpty)
      #expect(call.end?.reason == .protocolError)
      #expect(call.end?.detail.contains("compressed") == true)
    }
  }

  @Test func `refuses a giant message by its length alone`() {
    let length = Frame.number(UInt32(WorkloadLimits.messageMaximumBytes))
    let largest = call(Frame.settings + Frame.response + Frame.data([0] + length))
    #expect(largest.end == nil)
    for length in [WorkloadLimits.messageMaximumBytes + 1, 0xffff_ffff] {
      let call = call(
        Frame.settings + Frame.response + Frame.data([0] + Frame.number(UInt32(length))))
      #expect(call.end?.reason == .messageTooLarge)
      #expect(call.end?.detail.hasPrefix("\(length) bytes") == true)
    }
  }

  @Test func `misses the rest of a message the stream ends in`() {
    let half = Array(([0] + Frame.number(UInt32(message.count)) + message).dropLast())
    let opening = Frame.settings + Frame.response + Frame.data(half)
    #expect(call(opening + Frame.trailers(0)).end?.reason == .protocolError)
    #expect(call(opening + Frame.trailers(14)).end?.reason == .unavailable)
  }

  @Test func `refuses an answer that is not gRPC`() {
    for type in ["text/html", "application/grpcx", "application/json"] {
      let fields = [(":status", "200"), ("content-type", type)]
      #expect(call(Frame.settings + Frame.headers(fields)).end?.reason == .protocolError, "\(type)")
    }
    for type in ["application/grpc", "application/grpc+proto", "Application/gRPC;charset=utf-8"] {
      let fields = [(":status", "200"), ("content-type", type)]
      let call = call(Frame.settings + Frame.headers(fields) + Frame.message(message))
      #expect(call.svids.count == 1 && call.end == nil, "\(type)")
    }
    #expect(
      call(Frame.settings + Frame.headers([(":status", "200")])).end?.reason == .protocolError)
  }

  @Test(arguments: [
    Array("HTTP/1.1 400 Bad Request\r\n\r\n".utf8), [UInt8](repeating: 0, count: 100),
    [UInt8](repeating: 255, count: 100), Array("\u{16}\u{3}\u{1}\u{2}\u{0}hello".utf8),
    // A response before SETTINGS, DATA before a response, a stream nobody asked for, a push.
    Frame.response, Frame.settings + Frame.data([0]), Frame.settings + Frame.data([0], stream: 3),
    Frame.settings + Frame.settingsAcknowledgement + Frame.frame(5, 4, 1, Frame.number(2)),
    // A frame larger than allowed, a PING of seven bytes, a WINDOW_UPDATE of zero.
    Frame.settings + Frame.frame(0, 0, 1, [UInt8](repeating: 0, count: 16_385)),
    Frame.settings + Frame.frame(6, 0, 0, [UInt8](repeating: 0, count: 7)),
    Frame.settings + Frame.frame(8, 0, 0, Frame.number(0)),
    // Header compression that refers to nothing; headers without a status.
    Frame.settings + Frame.frame(1, 4, 1, [0xff, 0xff, 0x0f]),
    Frame.settings + Frame.headers([("content-type", "application/grpc")]),
  ])
  func `calls garbage a protocol error`(bytes: [UInt8]) {
    let call = Call()
    call.receive(bytes)
    #expect(call.end?.reason == .protocolError, "\(call.outcomes)")
    #expect(call.end?.detail.isEmpty == false)
  }

  @Test func `gives more room as messages are taken`() {
    let call = Call()
    call.receive(Frame.settings + Frame.response)
    // Half a window and a little more.
    let large = Wire.svids([Wire.svid(certificates: [UInt8](repeating: 1, count: 40_000))])
    for _ in 0..<20 {
      call.receive(Frame.message(large))
      let updates = Frame.parse(call.takeOutput()).filter { $0.type == 8 }
      #expect(Set(updates.map(\.stream)) == [0, 1], "for the stream and for the connection")
    }
    #expect(call.svids.count == 20)
  }

  @Test func `answers pings and settings, and is not flooded with them`() {
    let call = Call()
    call.receive(Frame.settings + Frame.frame(6, 0, 0, [1, 2, 3, 4, 5, 6, 7, 8]))
    let answers = Frame.parse(call.takeOutput())
    #expect(answers.map(\.type) == [4, 6] && answers.allSatisfy { $0.flags == 1 })
    #expect(answers.last?.payload == [1, 2, 3, 4, 5, 6, 7, 8])
    // An agent that does not read what it asks for.
    var deaf = WorkloadCall(.x509SVID)
    _ = deaf.takeOutput()
    let ping = Frame.frame(6, 0, 0, [UInt8](repeating: 0, count: 8))
    var outcomes: [WorkloadCall.Outcome] = unsafe Frame.settings.withUnsafeBytes {
      unsafe deaf.receive($0)
    }
    for _ in 0..<2000 { outcomes += unsafe ping.withUnsafeBytes { unsafe deaf.receive($0) } }
    guard case .ended(let end)? = outcomes.first else {
      Issue.record("\(outcomes)")
      return
    }
    #expect(end.reason == .protocolError)
  }

  @Test func `gives an agent up that sends only what cannot be used`() {
    let bad = Frame.message([])
    let call = call(Frame.opening([]))
    for _ in 2..<WorkloadCall.discardedMaximum { call.receive(bad) }
    #expect(call.discarded.count == WorkloadCall.discardedMaximum - 1 && call.end == nil)
    call.receive(bad)
    #expect(call.end?.reason == .protocolError)
    #expect(call.discarded.count == WorkloadCall.discardedMaximum)
  }

  @Test func `says nothing after its end`() {
    let call = call(Frame.settings + Frame.trailersOnly(7))
    let count = call.outcomes.count
    call.receive(Frame.message(message) + Frame.goAway(0) + [1, 2, 3])
    call.receive([UInt8](repeating: 9, count: 1000))
    #expect(call.outcomes.count == count)
  }
}
