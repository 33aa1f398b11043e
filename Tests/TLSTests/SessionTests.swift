import COpenSSL
import Identity
import Testing

@testable import TLS

@Suite struct SessionTests {
  let mesh = DemoMesh()

  @Test func `data that rides with the client's Finished is opened after the handshake`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    pair.server.inbox += pair.client.start()
    while let answer = pair.server.takeRecord() { pair.client.inbox += answer }
    while let answer = pair.client.takeRecord() { pair.server.inbox += answer }
    #expect(pair.client.state.isEstablished)
    #expect(!pair.server.state.isEstablished)
    pair.server.inbox += try #require(pair.client.seal(Array("early bird".utf8)))
    while let answer = pair.server.takeRecord() { pair.client.inbox += answer }
    #expect(pair.server.state.isEstablished)
    #expect(pair.server.received == Array("early bird".utf8))
  }

  @Test func `after its Finished a server sends one ticket, in one record, and nothing else`()
    throws
  {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    pair.server.inbox += pair.client.start()
    while let answer = pair.server.takeRecord() { pair.client.inbox += answer }
    while let answer = pair.client.takeRecord() { pair.server.inbox += answer }
    var answers: [UInt8] = []
    while let answer = pair.server.takeRecord() { answers += answer }
    #expect(pair.server.state.isEstablished)
    #expect(pair.server.session.ticketRecordsSent == 1)
    #expect(answers.count == 5 + Int(answers[3]) << 8 + Int(answers[4]))
  }

  @Test func `a client names no server (SNI)`() throws {
    let hello = try Pair(client: mesh.web, server: mesh.db).client.start()
    #expect(hello.count > 100)
    #expect(!contains(hello, [0, 0, 0]) || !contains(hello, Array("demo.mesh".utf8)))
    #expect(contains(hello, Array("culvert/1".utf8)))
  }

  private func contains(_ bytes: [UInt8], _ part: [UInt8]) -> Bool {
    (0...max(0, bytes.count - part.count)).contains { bytes[$0...].starts(with: part) }
  }

  @Test(arguments: [true, false])
  func `a key update asked for by either end is answered, and data goes on`(byClient: Bool) throws {
    let pair = try mesh.connected()
    let (asker, other) = byClient ? (pair.client, pair.server) : (pair.server, pair.client)
    for round in 0..<3 {
      unsafe #expect(SSL_key_update(asker.session.ssl, SSL_KEY_UPDATE_REQUESTED) == 1)
      let text = Array("round \(round)".utf8)
      other.inbox += try #require(asker.seal(text))
      pair.run()
      asker.inbox += try #require(other.seal(text))
      pair.run()
      #expect(other.received.suffix(text.count).elementsEqual(text))
      #expect(asker.received.suffix(text.count).elementsEqual(text))
    }
    #expect(pair.bothEstablished)
  }

  @Test func `close_notify ends one direction and leaves the other open`() throws {
    let pair = try mesh.connected()
    pair.server.inbox += pair.client.step { session, window in
      session.sealCloseNotify(output: &window)
    }
    pair.run()
    #expect(pair.server.state.isClosed)
    #expect(pair.client.seal([1]) == nil)
    pair.client.inbox += try #require(pair.server.seal(Array("still here".utf8)))
    pair.run()
    #expect(pair.client.received == Array("still here".utf8))
    pair.client.inbox += pair.server.step { session, window in
      session.sealCloseNotify(output: &window)
    }
    pair.run()
    #expect(pair.client.state.isClosed)
  }

  @Test func `without close_notify the stream never counts as closed`() throws {
    let pair = try mesh.connected()
    let sealed = try #require(pair.client.seal(Array("cut".utf8)))
    pair.server.inbox += sealed
    pair.run()
    #expect(pair.server.received == Array("cut".utf8))
    #expect(!pair.server.state.isClosed)
    // Half a record is the caller's framing gone wrong, and no clean end either.
    let next = try #require(pair.client.seal(Array("short".utf8)))
    _ = pair.server.feed(Array(next.dropLast(3)))
    #expect(pair.server.state.failure != nil)
    #expect(pair.server.received == Array("cut".utf8))
  }

  @Test func `close_notify twice, or before the handshake, sends nothing`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    #expect(pair.client.step { $0.sealCloseNotify(output: &$1) }.isEmpty)
    pair.connect()
    #expect(pair.bothEstablished)
    #expect(!pair.client.step { $0.sealCloseNotify(output: &$1) }.isEmpty)
    #expect(pair.client.step { $0.sealCloseNotify(output: &$1) }.isEmpty)
  }

  @Test func `seal takes nothing when the window is too small, everything when it is large enough`()
    throws
  {
    let pair = try mesh.connected()
    let bytes = [UInt8](repeating: 7, count: 40_000)
    pair.client.windowBytes = TLSSession.sealedBytes(plaintext: bytes.count) - 1
    #expect(pair.client.seal(bytes) == nil)
    #expect(!pair.client.hasPending)
    pair.client.windowBytes += 1
    pair.server.inbox += try #require(pair.client.seal(bytes))
    pair.run()
    #expect(pair.server.received == bytes)
  }

  @Test func `a handshake succeeds through windows of a few bytes`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    for end in [pair.client, pair.server] { end.windowBytes = 64 }
    var held = 0
    func drain(_ end: End) -> [UInt8] {
      var bytes: [UInt8] = []
      while end.session.hasPendingOutput {
        held += 1
        bytes += end.step { $0.flush(output: &$1) }
      }
      return bytes
    }
    pair.server.inbox += pair.client.start() + drain(pair.client)
    while !pair.bothEstablished {
      let count = pair.client.recordsFed + pair.server.recordsFed
      if let answer = pair.server.takeRecord() { pair.client.inbox += answer + drain(pair.server) }
      if let answer = pair.client.takeRecord() { pair.server.inbox += answer + drain(pair.client) }
      try #require(pair.client.recordsFed + pair.server.recordsFed > count)
    }
    #expect(held > 10)
  }

  @Test
  func `the answer to a key update needs no window of its own: it goes out before later data`()
    throws
  {
    let pair = try mesh.connected()
    unsafe #expect(SSL_key_update(pair.client.session.ssl, SSL_KEY_UPDATE_REQUESTED) == 1)
    pair.server.windowBytes = 0
    pair.server.inbox += try #require(pair.client.seal([1]))
    pair.run()
    pair.server.windowBytes = 1024
    let answer = try #require(pair.server.seal([2]))
    #expect(!pair.server.hasPending)
    pair.client.inbox += answer
    pair.run()
    #expect(pair.client.received == [2])
    #expect(pair.bothEstablished)
  }

  @Test func `endless records without data end the session`() throws {
    let pair = try mesh.connected()
    for _ in 0..<1000 where pair.server.state.isEstablished {
      unsafe #expect(SSL_key_update(pair.client.session.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
      let written = pair.client.step { session, window in
        _ = session.handshakeAgain(&window)
      }
      pair.server.inbox += written
      while pair.server.takeRecord() != nil {}
    }
    #expect(pair.server.state.failure?.detail == "too many records without data")
  }

  @Test func `without any window a session holds its whole flight until there is one`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    func held(_ end: End, _ body: () -> [UInt8]?) throws -> [UInt8] {
      end.windowBytes = 0
      #expect(try #require(body()).isEmpty)
      guard end.hasPending else { return [] }
      end.windowBytes = 64 * 1024
      let bytes = end.step { $0.flush(output: &$1) }
      #expect(!end.hasPending)
      return bytes
    }
    pair.server.inbox += try held(pair.client) { pair.client.start() }
    #expect(!pair.server.inbox.isEmpty)
    while !pair.bothEstablished {
      let count = pair.client.recordsFed + pair.server.recordsFed
      for (end, other) in [(pair.server, pair.client), (pair.client, pair.server)]
      where !end.inbox.isEmpty {
        other.inbox += try held(end) { end.takeRecord() }
      }
      try #require(pair.client.recordsFed + pair.server.recordsFed > count)
    }
    pair.client.windowBytes = 1024
    pair.server.inbox += try #require(pair.client.seal([1]))
    pair.run()
    #expect(pair.server.received == [1])
  }

  @Test func `the longest chain a workload may have fits in what a session holds back`() throws {
    let long = mesh.longIdentity(bytes: IdentityMaterial.maximumChainBytes)
    #expect(long.chain.count <= IdentityMaterial.maximumChainCertificates)
    let pair = try Pair(client: mesh.web, server: long)
    pair.server.inbox += pair.client.start()
    pair.server.windowBytes = 0
    while pair.server.takeRecord() != nil {}
    #expect(pair.server.state.failure == nil)
    pair.server.windowBytes = 64 * 1024
    pair.client.inbox += pair.server.step { $0.flush(output: &$1) }
    #expect(pair.client.inbox.count > IdentityMaterial.maximumChainBytes * 3 / 4)
    pair.run()
    #expect(pair.bothEstablished)
  }

  @Test func `a peer that asks for key updates and never reads the answers is cut off`() throws {
    let pair = try mesh.connected()
    pair.server.windowBytes = 0
    var rounds = 0
    while pair.server.state.isEstablished, rounds < 2000 {
      rounds += 1
      unsafe #expect(SSL_key_update(pair.client.session.ssl, SSL_KEY_UPDATE_REQUESTED) == 1)
      pair.server.inbox += try #require(pair.client.seal([1]))
      while pair.server.takeRecord() != nil {}
    }
    #expect(rounds > 1000)
    #expect(pair.server.state.failure?.detail == "more output than a session holds back")
    pair.server.windowBytes = 128 * 1024
    #expect(pair.server.seal([1]) == nil)
  }

  @Test func `key updates that were not sent yet go out before data, in order`() throws {
    let pair = try mesh.connected()
    pair.server.windowBytes = 0
    for _ in 0..<20 {
      unsafe #expect(SSL_key_update(pair.client.session.ssl, SSL_KEY_UPDATE_REQUESTED) == 1)
      pair.server.inbox += try #require(pair.client.seal([1]))
      while pair.server.takeRecord() != nil {}
    }
    #expect(pair.server.received.count == 20)
    #expect(pair.server.hasPending)
    // Room for the data, but not for what goes before it: nothing is taken.
    pair.server.windowBytes = TLSSession.sealedBytes(plaintext: 1)
    #expect(pair.server.seal([2]) == nil)
    pair.server.windowBytes = 4096
    pair.client.inbox += try #require(pair.server.seal([2]))
    #expect(!pair.server.hasPending)
    pair.run()
    #expect(pair.client.received == [2])
    #expect(pair.bothEstablished)
  }

  @Test func `a flight larger than a session holds back fails, and never overruns`() throws {
    let huge = mesh.longIdentity(bytes: RecordBuffers.maximumOverflowBytes * 3 / 2)
    let pair = try Pair(client: mesh.web, server: huge)
    pair.server.inbox += pair.client.start()
    pair.server.windowBytes = 0
    while pair.server.takeRecord() != nil {}
    #expect(pair.server.state.failure?.detail == "more output than a session holds back")
    #expect(pair.server.seal([1]) == nil)
    // With a window, the same flight is fine.
    #expect(try Pair(client: mesh.web, server: huge).connect().bothEstablished)
  }

  @Test func `64 KiB are sealed into a window of 96 KiB at once`() throws {
    let pair = try mesh.connected()
    let bytes = (0..<64 * 1024).map { UInt8(truncatingIfNeeded: $0 &* 31) }
    pair.client.windowBytes = 96 * 1024
    let sealed = try #require(pair.client.seal(bytes))
    #expect(!pair.client.hasPending)
    #expect(sealed.count <= TLSSession.sealedBytes(plaintext: bytes.count))
    pair.server.inbox += sealed
    pair.run()
    #expect(pair.server.recordsFed > 4)
    #expect(pair.server.received == bytes)
  }

  /// RFC 6066 §4: such a peer's records are far smaller than `sealedBytes` counts with.
  @Test func `a client that asks for short records gets every byte, the rest by flush`() throws {
    let (web, db) = (try TLSContext(mesh.web), try TLSContext(mesh.db))
    let mode = UInt8(TLSEXT_max_fragment_length_512)
    unsafe #expect(SSL_CTX_set_tlsext_max_fragment_length(web.client, mode) == 1)
    let pair = try Pair(End(web, .client), End(db, .server)).connect()
    let bytes = (0..<64 * 1024).map { UInt8(truncatingIfNeeded: $0 &* 13) }
    pair.server.windowBytes = TLSSession.sealedBytes(plaintext: bytes.count)
    pair.client.inbox += try #require(pair.server.seal(bytes))
    pair.client.inbox += pair.server.step { $0.flush(output: &$1) }
    #expect(!pair.server.hasPending)
    pair.run()
    #expect(pair.client.received == bytes)
  }

  @Test func `a session keeps its context alive`() throws {
    var contexts: [TLSContext]? = try [TLSContext(mesh.web), TLSContext(mesh.db)]
    weak let gone = contexts?[0]
    var pair: Pair? = try Pair(
      End(try #require(contexts)[0], .client), End(try #require(contexts)[1], .server))
    contexts = nil
    #expect(gone != nil)
    try #require(pair).connect()
    #expect(pair?.bothEstablished == true)
    pair = nil
    #expect(gone == nil)
  }

  @Test func `what another use of OpenSSL left in the error queue does not matter`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    soilErrorQueue()
    pair.server.inbox += pair.client.start()
    while !pair.bothEstablished {
      let count = pair.client.recordsFed + pair.server.recordsFed
      for (end, other) in [(pair.server, pair.client), (pair.client, pair.server)] {
        soilErrorQueue()
        if let answer = end.takeRecord() { other.inbox += answer }
      }
      try #require(pair.client.recordsFed + pair.server.recordsFed > count)
    }
    soilErrorQueue()
    let sealed = try #require(pair.client.seal([1]))
    soilErrorQueue()
    pair.server.inbox += sealed
    pair.run()
    #expect(pair.server.received == [1])
    unsafe #expect(SSL_key_update(pair.client.session.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1)
    pair.server.inbox += pair.client.step { _ = $0.handshakeAgain(&$1) }
    soilErrorQueue()
    pair.run()
    #expect(pair.bothEstablished)
    soilErrorQueue()
    let failure = pair.server.session.misfed()
    #expect(failure?.detail == "not one whole record")
    #expect(failure?.refusal == nil)
    ERR_clear_error()
  }

  @Test func `an end announced does not name a failure that comes later`() throws {
    let pair = try mesh.connected()
    let notify: (inout TLSSession, inout OutputWindow) -> Void = { $0.sealCloseNotify(output: &$1) }
    pair.server.inbox += pair.client.step(notify)
    pair.run()
    #expect(pair.server.state.isClosed)
    let failure = pair.client.session.misfed()
    #expect(failure?.word == "protocol_error")
  }
}

/// Leaves an error behind, as a careless user of OpenSSL would: the very one that also means "the
/// peer has no certificate".
func soilErrorQueue() {
  ERR_new()
  unsafe withVaList([]) {
    unsafe ERR_vset_error(ERR_LIB_SSL, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, nil, $0)
  }
}

extension TLSSession {
  /// Lets OpenSSL send what it has been asked to, a KeyUpdate without data.
  mutating func handshakeAgain(_ window: inout OutputWindow) -> Int32 {
    unsafe state.pointee.buffers.window = window
    let result = unsafe SSL_do_handshake(ssl)
    window = unsafe state.pointee.buffers.window ?? window
    return result
  }

  /// Gives the session half a header.
  mutating func misfed() -> HandshakeFailure? {
    let bytes: [UInt8] = [23, 3, 3]
    var room = [UInt8](repeating: 0, count: Self.maximumPlaintextBytes)
    return unsafe bytes.withUnsafeBytes { record in
      unsafe room.withUnsafeMutableBytes { room in
        var window = unsafe OutputWindow(base: room.baseAddress!, capacity: 0)
        guard case .failed(let failure) = unsafe open(record: record, into: room, output: &window)
        else { return nil }
        return failure
      }
    }
  }
}
