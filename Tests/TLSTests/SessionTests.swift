import COpenSSL
import Foundation
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

  @Test func `a server sends no tickets: after its Finished it has nothing to say`() throws {
    let pair = try Pair(client: mesh.web, server: mesh.db)
    pair.server.inbox += pair.client.start()
    while let answer = pair.server.takeRecord() { pair.client.inbox += answer }
    while let answer = pair.client.takeRecord() { pair.server.inbox += answer }
    var answers: [UInt8] = []
    while let answer = pair.server.takeRecord() { answers += answer }
    #expect(pair.server.state.isEstablished)
    #expect(answers.isEmpty)
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

  @Test func `an answer that found no window goes out before later data`() throws {
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

  @Test func `garbage in place of any record fails the session and never traps`() throws {
    var random = SystemRandomNumberGenerator()
    for round in 0..<400 {
      let pair = try round % 2 == 0 ? mesh.connected() : Pair(client: mesh.web, server: mesh.db)
      let end = round % 4 < 2 ? pair.client : pair.server
      if round % 4 == 1 { _ = end.start() }
      let body = (0..<Int.random(in: 1...400, using: &random)).map { _ in
        UInt8.random(in: 0...255, using: &random)
      }
      let type = UInt8([20, 21, 22, 23, 24, 0, 255].randomElement()!)
      _ = end.feed([type, 3, 3, UInt8(body.count >> 8), UInt8(body.count & 255)] + body)
      // One stray ChangeCipherSpec of value 1 is ignored in a handshake (RFC 8446 §5).
      if type != 20 { #expect(end.state.failure != nil) }
    }
  }

  @Test func `a record changed in one bit is refused and its bytes are not given out`() throws {
    for _ in 0..<64 {
      let pair = try mesh.connected()
      var sealed = try #require(pair.client.seal(Array("integrity".utf8)))
      let place = Int.random(in: 5..<sealed.count)
      sealed[place] ^= 1 << Int.random(in: 0..<8)
      pair.client.inbox += pair.server.feed(sealed)
      pair.run()
      #expect(pair.server.state.failure?.alertSent == "bad_record_mac")
      #expect(pair.client.state.failure?.alertReceived == "bad_record_mac")
      #expect(pair.server.received.isEmpty)
      #expect(pair.server.seal([1]) == nil)
    }
  }

  @Test func `two thousand sessions leave no memory behind`() throws {
    let (web, db) = (try TLSContext(mesh.web), try TLSContext(mesh.db))
    func churn(_ count: Int) throws {
      for round in 0..<count {
        let client = try End(web, .client)
        let server = try End(db, .server)
        if round % 10 != 0 {
          server.inbox += client.start()
          _ = server.takeRecord()
          continue
        }
        server.inbox += client.start()
        while let answer = server.takeRecord() { client.inbox += answer }
        while let answer = client.takeRecord() { server.inbox += answer }
      }
    }
    try churn(50)
    let before = try residentBytes()
    try churn(2000)
    let growth = try residentBytes() - before
    // A session is about 10 KiB, so a leak shows as 20 MiB; other tests run at the same time.
    #expect(growth < 8 * 1024 * 1024)
  }
}

/// Memory of this process that is in use (proc(5), statm).
func residentBytes() throws -> Int {
  let fields = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8).split(separator: " ")
  return try #require(Int(fields[1])) * 4096
}

extension TLSSession {
  /// Lets OpenSSL send what it has been asked to, a KeyUpdate without data.
  mutating func handshakeAgain(_ window: inout OutputWindow) -> Int32 {
    unsafe state.pointee.buffers.window = window
    let result = unsafe SSL_do_handshake(ssl)
    window = unsafe state.pointee.buffers.window ?? window
    return result
  }
}
