import Identity
import Net

@testable import TLS

/// How one end of a connection in memory stands.
enum EndState {
  case handshaking, established, closed
  case failed(HandshakeFailure)

  var failure: HandshakeFailure? {
    if case .failed(let failure) = self { return failure }
    return nil
  }
  var isEstablished: Bool {
    if case .established = self { return true }
    return false
  }
  var isClosed: Bool {
    if case .closed = self { return true }
    return false
  }
}

/// One end: a session and the bytes it has received, fed to it record by record.
final class End {
  var session: TLSSession
  var state = EndState.handshaking
  /// Records on their way to this end.
  var inbox: [UInt8] = []
  var received: [UInt8] = []
  var recordsFed = 0
  /// Room given to the session for output in each call.
  var windowBytes = 64 * 1024

  var hasPending: Bool { session.hasPendingOutput }
  var isResumed: Bool { session.isResumed }

  init(
    _ context: TLSContext, _ role: TLSRole, expect: [SPIFFEID] = [], server: SocketAddress? = nil
  ) throws {
    session = try TLSSession(context, role: role, expect: expect, server: server)
  }

  init(origination context: OriginationContext) throws {
    session = try TLSSession(origination: context)
  }

  /// Runs a step with a window and gives what it wrote.
  func step(_ body: (inout TLSSession, inout OutputWindow) -> Void) -> [UInt8] {
    var storage = [UInt8](repeating: 0, count: windowBytes)
    return unsafe storage.withUnsafeMutableBytes { bytes in
      var window = unsafe OutputWindow(base: bytes.baseAddress!, capacity: bytes.count)
      body(&session, &window)
      return unsafe Array(bytes[..<window.count])
    }
  }

  func start() -> [UInt8] {
    step { session, window in
      note(unsafe session.handshake(record: .init(start: nil, count: 0), output: &window))
    }
  }

  private func note(_ step: HandshakeStep) {
    switch step {
    case .needsRecord: break
    case .finished: state = .established
    case .failed(let failure): state = .failed(failure)
    }
  }

  var isClient: Bool { unsafe session.state.pointee.isClient }

  /// Takes one whole record from the inbox, if there is one, and gives the answer to it.
  func takeRecord() -> [UInt8]? { popRecord().map(feed) }

  func popRecord() -> [UInt8]? {
    guard inbox.count >= 5 else { return nil }
    let length = 5 + Int(inbox[3]) << 8 + Int(inbox[4])
    guard inbox.count >= length else { return nil }
    let record = Array(inbox[..<length])
    inbox.removeFirst(length)
    return record
  }

  func feed(_ record: [UInt8]) -> [UInt8] {
    recordsFed += 1
    return step { session, window in
      unsafe record.withUnsafeBytes { bytes in
        if case .handshaking = state {
          return note(unsafe session.handshake(record: bytes, output: &window))
        }
        var plaintext = [UInt8](repeating: 0, count: TLSSession.maximumPlaintextBytes)
        let step = unsafe plaintext.withUnsafeMutableBytes { room in
          unsafe session.open(record: bytes, into: room, output: &window)
        }
        switch step {
        case .data(let count): received += plaintext[..<count]
        case .closeNotify: state = .closed
        case .failed(let failure): state = .failed(failure)
        }
      }
    }
  }

  func seal(_ bytes: [UInt8]) -> [UInt8]? {
    var succeeded = false
    let sent = step { session, window in
      succeeded = unsafe bytes.withUnsafeBytes { unsafe session.seal($0, output: &window) }
    }
    return succeeded ? sent : nil
  }
}

/// A client and a server in memory.
final class Pair {
  let client: End
  let server: End

  init(
    client: IdentityMaterial, server: IdentityMaterial, role: TLSRole = .server,
    clientExpects: [SPIFFEID] = [], serverExpects: [SPIFFEID] = []
  ) throws {
    self.client = try End(TLSContext(client), .client, expect: clientExpects)
    self.server = try End(TLSContext(server), role, expect: serverExpects)
  }

  init(_ client: End, _ server: End) {
    self.client = client
    self.server = server
  }

  /// Handshakes until neither end has anything left to say.
  @discardableResult
  func connect() -> Pair {
    server.inbox += client.start()
    run()
    return self
  }

  func run() {
    var busy = true
    while busy {
      busy = false
      while let answer = server.takeRecord() {
        client.inbox += answer
        busy = true
      }
      while let answer = client.takeRecord() {
        server.inbox += answer
        busy = true
      }
    }
  }

  var bothEstablished: Bool { client.state.isEstablished && server.state.isEstablished }
}

extension SPIFFEID {
  static let web = try! SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web")
  static let db = try! SPIFFEID("spiffe://demo.mesh/ns/shop/sa/db")
}
