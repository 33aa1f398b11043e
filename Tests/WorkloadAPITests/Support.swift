import CLinux
import Foundation
import Identity
import Net
import TestSupport
import Testing
import WorkloadAPI

extension TrustDomain {
  static let demo = try! TrustDomain("demo.mesh")
  static let partner = try! TrustDomain("partner.example")
}

/// A client that `#expect` can look at, and what it has learnt.
final class Client {
  private var client: WorkloadClient
  private(set) var events: [WorkloadEvent] = []
  /// How many milliseconds the client's clock is ahead.
  var ahead: Int64 = 0

  init(
    _ endpoint: String, _ stream: WorkloadStream = .x509SVID, mark: UInt32 = 0,
    timing: WorkloadClient.Timing = .quick
  ) throws {
    client = WorkloadClient(
      try WorkloadEndpoint(endpoint), stream: stream, mark: mark, timing: timing)
  }

  var state: WorkloadClient.State { client.state }
  var lastFailure: WorkloadFailure? { client.lastFailure }
  var deadlineMilliseconds: Int64? { client.deadlineMilliseconds }
  var interest: (descriptor: Int32, events: Int16)? { client.interest }

  var now: Int64 { Self.clock + ahead }

  private static var clock: Int64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
  }

  func advance() { events += client.advance(now: now) }

  func forget() { events = [] }

  /// Drives the client as a control loop does until `find` gives something from the events beyond
  /// the first `skipped`.
  @discardableResult
  func wait<Found>(
    after skipped: Int = 0, seconds: Double = patience, _ what: String = "",
    while serving: () throws -> Void = {}, for find: (WorkloadEvent) -> Found?
  ) throws -> Found {
    let deadline = Self.clock + Int64(seconds * 1000)
    while true {
      advance()
      try serving()
      if let found = events.dropFirst(skipped).lazy.compactMap(find).first { return found }
      guard Self.clock < deadline else { throw Trouble("\(what) never came; instead: \(events)") }
      pause(atMost: 20)
    }
  }

  /// Waits as poll(2) in a control loop does.
  func pause(atMost milliseconds: Int64) {
    let due = deadlineMilliseconds.map { max(0, $0 - now) } ?? milliseconds
    var request = pollfd(
      fd: interest?.descriptor ?? -1, events: interest?.events ?? 0, revents: 0)
    _ = unsafe poll(&request, 1, Int32(min(due, milliseconds)))
  }

  func nextSVIDs(after skipped: Int = 0, while serving: () throws -> Void = {}) throws
    -> X509SVIDResponse
  {
    try wait(after: skipped, "a message", while: serving) {
      if case .svids(let response) = $0 { return response }
      return nil
    }
  }

  func nextBundles() throws -> X509BundlesResponse {
    try wait {
      if case .bundles(let response) = $0 { return response }
      return nil
    }
  }

  func nextDiscarded(after skipped: Int = 0) throws -> String {
    try wait(after: skipped, "a discarded message") {
      if case .discarded(let reason) = $0 { return reason }
      return nil
    }
  }

  func nextLost(after skipped: Int = 0, while serving: () throws -> Void = {}) throws
    -> WorkloadFailure
  {
    try wait(after: skipped, "the loss", while: serving) {
      if case .lost(let failure) = $0 { return failure }
      return nil
    }
  }
}

extension WorkloadClient.Timing {
  /// Tests need not wait for real backoffs; their other limits stay as they are.
  static var quick: Self {
    var timing = Self()
    timing.backoff = Backoff(initialMilliseconds: 20, maximumMilliseconds: 50, jitter: 0)
    return timing
  }
}

/// What a pure call makes of bytes.
final class Call {
  private var call: WorkloadCall
  private(set) var outcomes: [WorkloadCall.Outcome] = []

  /// What it sent before anything came.
  let request: [UInt8]

  init(_ stream: WorkloadStream = .x509SVID) {
    call = WorkloadCall(stream)
    request = call.takeOutput()
  }

  private var sent: [UInt8] = []

  /// Receives bytes, and answers before there are more than a window allows.
  @discardableResult
  func receive(_ bytes: [UInt8]) -> Call {
    for start in stride(from: 0, to: bytes.count, by: 16_384) {
      unsafe bytes[start..<min(start + 16_384, bytes.count)].withUnsafeBytes {
        unsafe receive(pointer: $0)
      }
    }
    return self
  }

  func receive(pointer bytes: UnsafeRawBufferPointer) {
    outcomes += unsafe call.receive(bytes)
    sent += call.takeOutput()
    // A stream that breaks a rule is over once the reset has been sent.
    outcomes += unsafe call.receive(UnsafeRawBufferPointer(start: nil, count: 0))
  }

  func takeOutput() -> [UInt8] {
    defer { sent = [] }
    return sent
  }

  /// Another call in the place of this one.
  func forget() {
    call = WorkloadCall(.x509SVID)
    outcomes = []
  }

  var svids: [X509SVIDResponse] {
    outcomes.compactMap {
      if case .svids(let response) = $0 { return response }
      return nil
    }
  }

  var bundles: [X509BundlesResponse] {
    outcomes.compactMap {
      if case .bundles(let response) = $0 { return response }
      return nil
    }
  }

  var discarded: [String] {
    outcomes.compactMap {
      if case .discarded(let reason) = $0 { return reason }
      return nil
    }
  }

  /// How it ended; nothing may come after that.
  var end: WorkloadCall.End? {
    guard case .ended(let end)? = outcomes.last else { return nil }
    return end
  }
}

extension SecretBytes {
  var array: [UInt8] { unsafe withBytes { unsafe Array($0) } }
}
