import Identity
import Net
import TestSupport
import Testing

@testable import WorkloadAPI

/// What SPIFFE asks of a client of the Workload API; WE is the Workload Endpoint specification, WA
/// the Workload API's. Spoken to here is gRPC's own implementation.
@Suite("SPIFFE Workload API, with grpcio", .serialized, .needsGRPC, .timeLimit(.minutes(2)))
struct SPIFFETests {
  /// WE §3, 6.
  @Test(arguments: [WorkloadStream.x509SVID, .x509Bundles])
  func `24: every call carries workload.spiffe.io`(stream: WorkloadStream) throws {
    let agent = try GRPCAgent()
    let client = try Client(agent.endpoint, stream)
    for number in 1...3 {
      let seen = client.events.count
      try eventually("a call") {
        client.advance()
        return agent.calls.count >= number
      }
      try agent.tell("end")
      _ = try client.nextLost(after: seen)
    }
    for call in agent.calls {
      #expect(call.hasPrefix("call /SpiffeWorkloadAPI/\(stream.rawValue) request= "))
      #expect(call.contains(" workload.spiffe.io=true"))
    }
  }

  /// WE §4: what is no such address is refused by WorkloadEndpoint, whose tests are in NetTests.
  @Test func `25: the endpoint is a unix socket or a TCP port`() throws {
    #expect(WorkloadEndpoint.environmentVariable == "SPIFFE_ENDPOINT_SOCKET")
    let local = try GRPCAgent()
    try local.send(Wire.svids([Wire.svid()]))
    #expect(try Client(local.endpoint).nextSVIDs().svids.count == 1)
    let port = try unusedPort()
    let remote = try GRPCAgent(TemporaryDirectory(), address: "127.0.0.1:\(port)", [])
    try remote.send(Wire.svids([Wire.svid()]))
    #expect(try Client(remote.endpoint, mark: Mark.proxy).nextSVIDs().svids.count == 1)
  }

  /// WE §3.1, 5.
  @Test func `26: no TLS is used and no credential is shown`() throws {
    let agent = try GRPCAgent()
    try agent.send(Wire.svids([Wire.svid()]))
    _ = try Client(agent.endpoint).nextSVIDs()
    #expect(
      try agent.calls(1).allSatisfy { !$0.contains("authorization") && !$0.contains("cookie") })

    let raw = try RawAgent()
    try raw.awaitRequest(of: try Client(raw.endpoint))
    #expect(raw.received.starts(with: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8))
  }

  /// WE appendix A.
  @Test(arguments: [
    ("INVALID_ARGUMENT", WorkloadFailure.Reason.invalidArgument),
    ("UNIMPLEMENTED", .unimplemented),
  ])
  func `27: a refusal for good is reported and not retried`(
    code: String, reason: WorkloadFailure.Reason
  ) throws {
    let agent = try GRPCAgent()
    try agent.tell("fail \(code) so it is")
    let client = try Client(agent.endpoint)
    let failure = try client.nextLost()
    #expect(failure.reason == reason)
    #expect(failure.detail == "so it is")
    #expect(failure.retryMilliseconds == nil)
    #expect(client.state == .stopped)
    #expect(client.deadlineMilliseconds == nil && client.interest == nil)
    client.ahead += 3_600_000
    client.advance()
    #expect(client.events.count == 1)
    _ = try agent.calls(1)
  }

  /// WE appendix A.
  @Test(arguments: [
    ("UNAVAILABLE", WorkloadFailure.Reason.unavailable), ("PERMISSION_DENIED", .permissionDenied),
    ("RESOURCE_EXHAUSTED", .otherStatus),
  ])
  func `27: a passing refusal is retried with exponential backoff`(
    code: String, reason: WorkloadFailure.Reason
  ) throws {
    let agent = try GRPCAgent()
    try agent.tell("fail \(code) later")
    var timing = WorkloadClient.Timing.quick
    timing.backoff = Backoff(initialMilliseconds: 10, maximumMilliseconds: 30, jitter: 0)
    let client = try Client(agent.endpoint, timing: timing)
    for wait: Int64 in [10, 16, 26, 30, 30] {
      let failure = try client.nextLost(after: client.events.count)
      #expect(failure.reason == reason)
      #expect(failure.detail.hasSuffix("later"))
      #expect(failure.retryMilliseconds == wait)
      #expect(client.state == .backingOff)
    }
    try agent.send(Wire.svids([Wire.svid()]))
    _ = try client.nextSVIDs()
    #expect(client.state == .streaming)
    try agent.tell("fail \(code) later")
    #expect(
      try client.nextLost(after: client.events.count).retryMilliseconds == 10,
      "a good message resets the backoff")
  }

  /// WA §4.3, 4.4.
  @Test func `28: the first response is awaited, and every message is full state`() throws {
    let agent = try GRPCAgent()
    try agent.send(
      Wire.svids([Wire.svid()], crls: [[9]], federated: [("spiffe://partner.example", [7, 8])]))
    let client = try Client(agent.endpoint)
    let first = try client.nextSVIDs()
    #expect(first.crls == [[9]])
    #expect(first.federatedBundles.map(\.trustDomain) == [.partner])
    #expect(first.federatedBundles.map(\.certificates) == [[7, 8]])
    let seen = client.events.count
    try agent.send(Wire.svids([Wire.svid(bundle: [60])]))
    let second = try client.nextSVIDs(after: seen)
    #expect(second.svids.map(\.bundle) == [[60]])
    #expect(second.crls.isEmpty && second.federatedBundles.isEmpty, "nothing is kept of the first")
    #expect(try agent.calls(1).count == 1, "on the same stream")
  }

  /// WA §4.5. Each refusal with its valid twin is in MessageTests.
  @Test func `29: a message without a mandatory field is discarded, and the stream goes on`() throws
  {
    let agent = try GRPCAgent()
    try agent.send([])
    let client = try Client(agent.endpoint)
    #expect(try client.nextDiscarded() == "no svids")
    #expect(client.state == .waiting)
    try agent.send(Wire.svids([Wire.svid(key: [])]))
    #expect(try client.nextDiscarded(after: 1) == "SVID 1 has no x509_svid_key")
    try agent.send(Wire.svids([Wire.svid()]))
    _ = try client.nextSVIDs()
    _ = try agent.calls(1)
  }

  /// WA §5.2.1, 5.3.
  @Test func `30: the default SVID is the first, and of two with one hint the first counts`() throws
  {
    let agent = try GRPCAgent()
    let ids = (0..<4).map { "spiffe://demo.mesh/\($0)" }
    try agent.send(
      Wire.svids([
        Wire.svid(id: ids[0], hint: "internal"), Wire.svid(id: ids[1], hint: "internal"),
        Wire.svid(id: ids[2]), Wire.svid(id: ids[3]),
      ]))
    let response = try Client(agent.endpoint).nextSVIDs()
    #expect(response.svids.map(\.id.description) == [ids[0], ids[2], ids[3]])
    #expect(response.svids.map(\.hint) == ["internal", "", ""])
  }

  /// WA §5.2.1.
  @Test func `31: after PermissionDenied the SVIDs are no longer used`() throws {
    let agent = try GRPCAgent()
    try agent.send(Wire.svids([Wire.svid()]))
    let client = try Client(agent.endpoint)
    _ = try client.nextSVIDs()
    try agent.tell("fail PERMISSION_DENIED no identity issued")
    let failure = try client.nextLost()
    #expect(failure.withdrawsIdentity)
    #expect(failure.detail == "no identity issued")
    let others = WorkloadFailure.Reason.allCases.filter { $0 != .permissionDenied }
    for reason in others {
      let failure = WorkloadFailure(reason: reason, detail: "", retryMilliseconds: 1)
      #expect(!failure.withdrawsIdentity, "\(reason)")
    }
  }

  /// WA §4.2.
  @Test func `31: a stream that ends is replaced at once`() throws {
    let agent = try GRPCAgent()
    try agent.send(Wire.svids([Wire.svid()]))
    let client = try Client(agent.endpoint)
    _ = try client.nextSVIDs()
    try agent.tell("end")
    let failure = try client.nextLost()
    #expect(failure.reason == .streamEnded)
    #expect(failure.retryMilliseconds == 0)
    #expect(client.state == .connecting)
    try agent.send(Wire.svids([Wire.svid(bundle: [60])]))
    #expect(try client.nextSVIDs(after: client.events.count).svids[0].bundle == [60])
    try agent.tell("end")
    let second = try client.nextLost(after: client.events.count)
    #expect(second.retryMilliseconds == 20, "not again and again")
  }
}

@Suite("A gRPC agent", .serialized, .needsGRPC, .timeLimit(.minutes(2)))
struct GRPCTests {
  @Test func `serves bundles to whoever needs no identity`() throws {
    let agent = try GRPCAgent()
    try agent.send(
      Wire.bundles([("spiffe://partner.example", [2]), ("spiffe://demo.mesh", [1])], crls: [[5]]))
    let response = try Client(agent.endpoint, .x509Bundles).nextBundles()
    #expect(response.bundles.map(\.trustDomain) == [.demo, .partner])
    #expect(response.bundles.map(\.certificates) == [[1], [2]])
    #expect(response.crls == [[5]])
  }

  @Test func `sends messages larger than the flow control window`() throws {
    let agent = try GRPCAgent()
    let client = try Client(agent.endpoint)
    let bytes = 1 << 20
    for turn in UInt8(0)..<4 {
      let seen = client.events.count
      let crl = [0x12] + Wire.varint(bytes + 1) + [turn]
      try agent.send(Wire.svids([Wire.svid()]) + crl, zeros: bytes)
      let lists = try client.nextSVIDs(after: seen).crls
      #expect(lists.map(\.count) == [bytes + 1] && lists[0][0] == turn)
    }
    _ = try agent.calls(1)
  }

  @Test func `is left when its message is too large`() throws {
    let agent = try GRPCAgent()
    let maximum = WorkloadLimits.messageMaximumBytes
    /// With one CRL that fills it up.
    func send(_ bytes: Int) throws {
      let svids = Wire.svids([Wire.svid()])
      let filling = bytes - svids.count - 5
      try agent.send(svids + [0x12] + Wire.varint(filling), zeros: filling)
    }
    try send(maximum)
    let client = try Client(agent.endpoint)
    #expect(try client.nextSVIDs().svids.count == 1)
    let seen = client.events.count
    try send(maximum + 1)
    let failure = try client.nextLost(after: seen)
    #expect(failure.reason == .messageTooLarge)
    #expect(failure.detail == "4194305 bytes, at most 4194304 are taken")
    #expect(client.state == .backingOff)
  }

  @Test func `may be killed and come back`() throws {
    let agent = try GRPCAgent()
    try agent.send(Wire.svids([Wire.svid()]))
    let client = try Client(agent.endpoint)
    _ = try client.nextSVIDs()
    agent.kill()
    let ended = try client.nextLost()
    #expect(ended.reason == .streamEnded && ended.retryMilliseconds == 0)
    let refused = try client.nextLost(after: client.events.count)
    #expect(refused.reason == .cannotConnect)
    #expect(refused.retryMilliseconds == 20)
    #expect(client.lastFailure?.reason == .cannotConnect)
    let next = try agent.successor()
    try next.send(Wire.svids([Wire.svid(bundle: [61])]))
    #expect(try client.nextSVIDs(after: client.events.count).svids[0].bundle == [61])
    #expect(client.state == .streaming)
  }

  /// gRPC's own implementation sends GOAWAY with "too_many_pings" if pings come faster than every
  /// five minutes, and so does SPIRE's.
  @Test func `that wants fewer pings gets fewer`() throws {
    let agent = try GRPCAgent("--ping-strikes")
    try agent.send(Wire.svids([Wire.svid()]))
    let client = try Client(agent.endpoint)
    _ = try client.nextSVIDs()
    var interval: Int64 = 30_000
    for _ in 0..<2 {
      let seen = client.events.count
      let failure = try client.nextLost(
        after: seen,
        while: {
          // Time passes for the client alone.
          if let deadline = client.deadlineMilliseconds, deadline - client.now > 10_000 {
            #expect(deadline - client.now <= interval)
            client.ahead += deadline - client.now
          }
        })
      #expect(failure.reason == .streamEnded)
      #expect(failure.detail == "GOAWAY: too_many_pings")
      #expect(failure.retryMilliseconds == 0)
      _ = try client.nextSVIDs(after: client.events.count)
      interval *= 2
      let deadline = try #require(client.deadlineMilliseconds)
      #expect((interval - 5000...interval).contains(deadline - client.now))
    }
  }

  @Test func `that stops answering is hung`() throws {
    let agent = try GRPCAgent()
    try agent.send(Wire.svids([Wire.svid()]))
    let client = try Client(agent.endpoint)
    _ = try client.nextSVIDs()
    try agent.pauseProcess()
    // What it had still sent.
    client.advance()
    client.ahead += 30_000
    client.advance()
    client.ahead += 9000
    client.advance()
    #expect(client.state == .streaming)
    client.ahead += 1000
    let failure = try client.nextLost()
    #expect(failure.reason == .hung)
    #expect(failure.detail == "no answer to a ping")
  }

  @Test func `that answers pings is not`() throws {
    let agent = try GRPCAgent()
    try agent.send(Wire.svids([Wire.svid()]))
    let client = try Client(agent.endpoint)
    _ = try client.nextSVIDs()
    client.ahead += 30_000
    client.advance()
    try eventually("the answer to the ping") {
      client.advance()
      return try #require(client.deadlineMilliseconds) - client.now > 20_000
    }
    client.ahead += 15_000
    client.advance()
    #expect(client.state == .streaming)
  }
}

private func unusedPort() throws -> UInt16 {
  let listener = try Socket.listener(
    on: SocketAddress(.loopbackV4, port: 0), backlog: 1)
  return try Socket.localAddress(listener.number).port
}
