import CLinux
import Foundation
import Net
import TestSupport
import Testing

@testable import WorkloadAPI

/// The client with a socket, before an agent that does only what it is told; the client's clock is
/// the tests'.
@Suite(.timeLimit(.minutes(1))) struct `A client` {
  private let message = Wire.svids([Wire.svid()])

  private func streaming() throws -> (Client, RawAgent) {
    let agent = try RawAgent()
    let client = try Client(agent.endpoint)
    try agent.awaitRequest(of: client)
    agent.send(Frame.opening(message))
    _ = try client.nextSVIDs(while: agent.serve)
    return (client, agent)
  }

  // MARK: States and times

  @Test func `tells where it stands`() throws {
    let agent = try RawAgent()
    let client = try Client(agent.endpoint)
    #expect(client.state == .connecting && client.interest == nil)
    #expect(try #require(client.deadlineMilliseconds) <= client.now, "it wants to begin")
    try agent.awaitRequest(of: client)
    #expect(client.state == .waiting)
    #expect(Int32(try #require(client.interest).events) == POLLIN)
    agent.send(Frame.opening(message))
    _ = try client.nextSVIDs(while: agent.serve)
    #expect(client.state == .streaming && client.lastFailure == nil)
    agent.send(Frame.trailers(14, "enough"))
    _ = try client.nextLost(while: agent.serve)
    #expect(client.state == .backingOff && client.interest == nil)
    #expect(client.lastFailure?.description == "unavailable: enough; next attempt in 20 ms")
  }

  @Test func `waits ten seconds for the first answer`() throws {
    let agent = try RawAgent()
    let client = try Client(agent.endpoint)
    try agent.awaitRequest(of: client)
    // HTTP/2 alone is no answer.
    agent.send(Frame.settings + Frame.response)
    client.ahead += 9000
    client.advance()
    #expect(client.events.isEmpty)
    client.ahead += 1000
    let failure = try client.nextLost(while: agent.serve)
    #expect(failure.reason == .hung && failure.detail == "connected, but no answer")
    try agent.awaitRequest(of: client, number: 2)
  }

  @Test func `asks a silent agent for a sign of life`() throws {
    let (client, agent) = try streaming()
    for turn in 1...3 {
      client.ahead += 30_000
      try eventually("a ping") {
        client.advance()
        agent.serve()
        return agent.pings.count == turn
      }
      agent.send(Frame.pingAcknowledgement(agent.pings[turn - 1]))
      try eventually("the answer") {
        client.advance()
        return try #require(client.deadlineMilliseconds) - client.now > 20_000
      }
    }
    client.ahead += 30_000
    client.advance()
    client.ahead += 9990
    client.advance()
    #expect(client.state == .streaming)
    client.ahead += 10
    let failure = try client.nextLost(while: agent.serve)
    #expect(failure.reason == .hung && failure.detail == "no answer to a ping")
    try agent.awaitRequest(of: client, number: 2)
  }

  @Test func `takes any byte for a sign of life`() throws {
    let (client, agent) = try streaming()
    client.ahead += 30_000
    client.advance()
    agent.send(Frame.settings)
    try eventually("it to be heard") {
      client.advance()
      return try #require(client.deadlineMilliseconds) - client.now > 20_000
    }
  }

  // MARK: Agents that fail

  @Test func `finds nobody at the socket`() throws {
    let directory = try TemporaryDirectory()
    let client = try Client("unix://\(directory.path)/agent.sock")
    let failure = try client.nextLost()
    #expect(failure.reason == .cannotConnect && failure.detail == "No such file or directory")
    for expected: Int64 in [32, 50, 50] {
      let failure = try client.nextLost(after: client.events.count)
      #expect(failure.retryMilliseconds == expected)
    }
  }

  @Test func `finds nobody at the port`() throws {
    let client = try Client("tcp://127.0.0.1:1")
    let failure = try client.nextLost()
    #expect(failure.reason == .cannotConnect && failure.detail == "Connection refused")
  }

  @Test func `does not wait for ever for a connection`() throws {
    // A listener whose queue is full does not answer.
    let listener = try Socket.listener(on: SocketAddress(.loopbackV4, port: 0), backlog: 0)
    let port = try Socket.localAddress(listener.number).port
    let clients = try (0..<4).map { _ in try Client("tcp://127.0.0.1:\(port)") }
    for client in clients { client.advance() }
    let stuck = try #require(clients.first { $0.state == .connecting })
    #expect(Int32(try #require(stuck.interest).events) == POLLOUT)
    stuck.ahead += 4900
    stuck.advance()
    #expect(stuck.events.isEmpty)
    stuck.ahead += 100
    let failure = try stuck.nextLost()
    #expect(failure.reason == .cannotConnect && failure.detail == "no connection in time")
  }

  @Test func `is refused by a full queue of a unix socket`() throws {
    let agent = try RawAgent()
    let clients = try (0..<40).map { _ in try Client(agent.endpoint) }
    for client in clients { client.advance() }
    let refused = try #require(clients.first { $0.lastFailure != nil })
    #expect(refused.lastFailure?.reason == .cannotConnect)
    #expect(refused.state == .backingOff)
  }

  @Test func `reconnects to an agent that was killed, once it is back`() throws {
    let (client, agent) = try streaming()
    agent.stop()
    let ended = try client.nextLost()
    #expect(ended.reason == .streamEnded && ended.retryMilliseconds == 0)
    #expect(try client.nextLost(after: client.events.count).reason == .cannotConnect)
    try agent.restart()
    try agent.awaitRequest(of: client, number: 2)
    agent.send(Frame.opening(message))
    _ = try client.nextSVIDs(after: client.events.count, while: agent.serve)
  }

  @Test func `backs off from an agent that hangs up without an answer`() throws {
    let agent = try RawAgent()
    let client = try Client(agent.endpoint)
    for number in 1...3 {
      let seen = client.events.count
      try agent.awaitRequest(of: client, number: number)
      agent.hangUp()
      let failure = try client.nextLost(after: seen)
      #expect(failure.reason == .streamEnded)
      #expect(try #require(failure.retryMilliseconds) >= 20)
    }
  }

  @Test func `replaces an ended stream at once, but not in a circle`() throws {
    let (client, agent) = try streaming()
    var waits: [Int64?] = []
    for number in 2...4 {
      let seen = client.events.count
      agent.hangUp()
      waits.append(try client.nextLost(after: seen).retryMilliseconds)
      try agent.awaitRequest(of: client, number: number)
      agent.send(Frame.opening(message))
      _ = try client.nextSVIDs(after: client.events.count, while: agent.serve)
    }
    #expect(waits == [0, 20, 20])
    client.ahead += 10_000
    let seen = client.events.count
    agent.hangUp()
    #expect(try client.nextLost(after: seen).retryMilliseconds == 0)
  }

  @Test(arguments: [
    (Frame.goAway(0), WorkloadFailure.Reason.streamEnded), (Frame.reset(7), .unavailable),
    (Frame.reset(8), .otherStatus), (Frame.message([], flag: 1), .protocolError),
    (Frame.data([0, 255, 255, 255, 255]), .messageTooLarge),
    ([UInt8](repeating: 0x55, count: 5000), .protocolError),
  ])
  func `leaves an agent that breaks off, and comes back`(
    bytes: [UInt8], reason: WorkloadFailure.Reason
  ) throws {
    let (client, agent) = try streaming()
    agent.send(bytes)
    #expect(try client.nextLost(while: agent.serve).reason == reason)
    try agent.awaitRequest(of: client, number: 2)
    agent.send(Frame.opening(message))
    _ = try client.nextSVIDs(after: client.events.count, while: agent.serve)
    #expect(client.state == .streaming)
  }

  @Test func `takes bytes that come one by one`() throws {
    let agent = try RawAgent()
    let client = try Client(agent.endpoint)
    try agent.awaitRequest(of: client)
    var rest = (Frame.opening(message) + Frame.message(message))[...]
    try eventually("two messages") {
      if let byte = rest.popFirst() { agent.send([byte]) }
      client.advance()
      return client.events.count == 2
    }
    #expect(rest.isEmpty)
  }

  @Test func `takes a large message as the window allows`() throws {
    let (client, agent) = try streaming()
    let large = Wire.svids([Wire.svid(certificates: [UInt8](repeating: 7, count: 1 << 20))])
    var rest = Frame.message(large)[...]
    var window = 65_535 - message.count - 5
    var counted = 0
    let seen = client.events.count
    let response = try client.nextSVIDs(
      after: seen,
      while: {
        agent.serve()
        let updates = Frame.parse(agent.received).filter { $0.type == 8 && $0.stream == 1 }
        for update in updates.dropFirst(counted) {
          window += update.payload.reduce(0) { $0 << 8 | Int($1) }
        }
        counted = updates.count
        while !rest.isEmpty {
          let payload = rest.prefix(3).reduce(0) { $0 << 8 | Int($1) }
          guard payload <= window else { break }
          agent.send(Array(rest.prefix(9 + payload)))
          rest = rest.dropFirst(9 + payload)
          window -= payload
        }
      })
    #expect(response.svids[0].certificates.count == 1 << 20)
    #expect(counted > 10)
  }

  // MARK: The socket

  @Test func `marks a TCP socket as the proxy's own`() throws {
    let listener = try Socket.listener(on: SocketAddress(.loopbackV4, port: 0), backlog: 1)
    let port = try Socket.localAddress(listener.number).port
    let client = try Client("tcp://127.0.0.1:\(port)", mark: 0xc17)
    client.advance()
    let descriptor = try #require(client.interest).descriptor
    #expect(try Socket.option(descriptor, level: SOL_SOCKET, SO_MARK) == 0xc17)
    #expect(fcntl(descriptor, F_GETFL) & O_NONBLOCK != 0)
    #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
  }

  @Test func `closes its socket when it goes`() throws {
    let agent = try RawAgent()
    do {
      let client = try Client(agent.endpoint)
      try agent.awaitRequest(of: client)
    }
    var byte: UInt8 = 0
    #expect(unsafe recv(agent.connection, &byte, 1, 0) == 0)
  }
}

@Suite struct `A backoff` {
  @Test func `grows to its maximum and begins again`() {
    var backoff = Backoff(jitter: 0)
    let delays = (0..<16).map { _ in backoff.delayMilliseconds() }
    #expect(delays.prefix(4) == [100, 160, 256, 410])
    #expect(delays.last == 30_000)
    #expect(zip(delays, delays.dropFirst()).allSatisfy { $0 <= $1 })
    backoff.reset()
    #expect(backoff.delayMilliseconds() == 100)
  }

  @Test func `leaves a fifth to chance and never exceeds its maximum`() {
    var first: Set<Int64> = []
    for _ in 0..<200 {
      var backoff = Backoff()
      first.insert(backoff.delayMilliseconds())
      for _ in 0..<15 { #expect(backoff.delayMilliseconds() <= 30_000) }
    }
    #expect(first.count > 10 && first.allSatisfy { (80...120).contains($0) })
  }
}
