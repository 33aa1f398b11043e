import COpenSSL
import Identity

@testable import DataPlane
@testable import TLS

/// A workload that both ends of a test connection can be.
struct TestIdentity {
  let material: IdentityMaterial

  init() throws {
    let domain = try TrustDomain("demo.mesh")
    let authorityKey = try CertificateBuilder.makeKey()
    let authority = try CertificateBuilder.authority(
      domain, key: authorityKey, lifetimeSeconds: 3600, backdateSeconds: 60)
    let id = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web")
    let key = try CertificateBuilder.makeKey()
    let leaf = try CertificateBuilder.leaf(
      id, key: key, issuer: authority, issuerKey: authorityKey, lifetimeSeconds: 3600,
      backdateSeconds: 60)
    let bundle = TrustBundle(trustDomain: domain, certificates: [authority])
    material = IdentityMaterial(id: id, chain: [leaf], key: key, bundles: [bundle])
  }
}

/// One end of a connection in memory whose records OpenSSL protects.
final class OpenSSLEnd {
  enum State: Equatable {
    case handshaking, established, closed, failed
  }

  var session: TLSSession
  var state = State.handshaking
  /// The name of the alert this end has sent or received when it failed.
  var alert: String?
  /// Why it failed.
  var detail = ""
  var received: [UInt8] = []
  let isClient: Bool

  init(_ context: TLSContext, isClient: Bool) throws {
    session = try TLSSession(context, role: isClient ? .client : .server, expect: [])
    self.isClient = isClient
  }

  private func step(_ body: (inout TLSSession, inout OutputWindow) -> Void) -> [UInt8] {
    var storage = [UInt8](repeating: 0, count: 512 * 1024)
    return unsafe storage.withUnsafeMutableBytes { bytes in
      var window = unsafe OutputWindow(base: bytes.baseAddress!, capacity: bytes.count)
      body(&session, &window)
      return unsafe Array(UnsafeRawBufferPointer(rebasing: bytes[..<window.count]))
    }
  }

  /// Takes one record, or none to start, and gives the answer.
  func feed(_ record: [UInt8]) -> [UInt8] {
    step { session, window in
      unsafe record.withUnsafeBytes { bytes in
        guard state != .handshaking else {
          switch unsafe session.handshake(record: bytes, output: &window) {
          case .needsRecord: break
          case .finished: state = .established
          case .failed(let failure): fail(failure)
          }
          return
        }
        var plaintext = [UInt8](repeating: 0, count: TLSSession.maximumPlaintextBytes)
        let opened = unsafe plaintext.withUnsafeMutableBytes { room in
          unsafe session.open(record: bytes, into: room, output: &window)
        }
        switch opened {
        case .data(let count): received += plaintext[..<count]
        case .closeNotify: state = .closed
        case .failed(let failure): fail(failure)
        }
      }
    }
  }

  private func fail(_ failure: HandshakeFailure) {
    state = .failed
    detail = failure.detail
    alert = failure.alertSent ?? failure.alertReceived
  }

  func seal(_ bytes: [UInt8]) -> [UInt8]? {
    var isSealed = false
    let sealed = step { session, window in
      isSealed = unsafe bytes.withUnsafeBytes { unsafe session.seal($0, output: &window) }
    }
    return isSealed ? sealed : nil
  }

  func closeNotify() -> [UInt8] { step { $0.sealCloseNotify(output: &$1) } }

  /// Asks for a KeyUpdate, which goes out before the next data.
  func updateKey(requested: Bool) -> Bool {
    let kind = requested ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED
    return unsafe SSL_key_update(session.ssl, kind) == 1
  }

  /// Pads each record to a multiple of this many bytes; 1 is none.
  func pad(to bytes: Int) -> Bool {
    unsafe SSL_set_block_padding(session.ssl, bytes) == 1
  }

  /// Whether it has a ticket to come back with.
  var isResumable: Bool {
    unsafe SSL_SESSION_is_resumable(SSL_get_session(session.ssl)) == 1
  }

  /// The record layer that takes over here.
  func handOver(recordsPerKey: Int) -> RecordEnd? {
    guard session.handOverObstacle == nil, let suite = session.cipherSuite else { return nil }
    let recordsSent = session.ticketRecordsSent
    return unsafe session.handOver { send, receive in
      unsafe RecordEnd(
        suite, isClient: isClient, send: Array(send), receive: Array(receive),
        recordsPerKey: recordsPerKey, recordsSent: recordsSent)
    }
  }
}

/// A connection of which one end has been handed over.
final class MixedConnection {
  let openssl: OpenSSLEnd
  let culvert: RecordEnd
  /// The session that was handed over.
  let handedOver: OpenSSLEnd
  /// Records on their way.
  var toCulvert: [UInt8] = []
  var toOpenSSL: [UInt8] = []
  /// What each record came to at Culvert's end, in order.
  var opened: [Opened] = []

  /// - Parameters:
  ///   - tickets: what a server sends, by OpenSSL in either case.
  ///   - early: data that OpenSSL's end sends at once when it is through, a client in the same
  ///     flight as its Finished.
  init(
    _ identity: IdentityMaterial, _ suite: CipherSuite, culvertIsClient: Bool, tickets: Int = 0,
    early: [UInt8] = [], recordsPerKey: Int = RecordLayer.recordsPerKeyMaximum
  ) throws {
    let context = try TLSContext(identity, suites: [suite])
    unsafe SSL_CTX_set_num_tickets(context.server, tickets)
    openssl = try OpenSSLEnd(context, isClient: !culvertIsClient)
    handedOver = try OpenSSLEnd(context, isClient: culvertIsClient)
    if culvertIsClient { toOpenSSL += handedOver.feed([]) } else { toCulvert += openssl.feed([]) }
    var layer: RecordEnd?
    while layer == nil || openssl.state == .handshaking {
      var isIdle = true
      if layer == nil, let record = Self.pop(&toCulvert) {
        toOpenSSL += handedOver.feed(record)
        isIdle = false
        if handedOver.state == .established {
          layer = handedOver.handOver(recordsPerKey: recordsPerKey)
        }
      }
      if openssl.state == .handshaking, let record = Self.pop(&toOpenSSL) {
        toCulvert += openssl.feed(record)
        isIdle = false
        if openssl.state == .established, !early.isEmpty {
          toCulvert += openssl.seal(early) ?? []
        }
      }
      guard !isIdle else { break }
    }
    guard let layer else { throw TLSSetupError("no hand-over") }
    culvert = layer
  }

  static func pop(_ bytes: inout [UInt8]) -> [UInt8]? {
    guard bytes.count >= 5 else { return nil }
    let length = 5 + Int(bytes[3]) << 8 + Int(bytes[4])
    guard bytes.count >= length else { return nil }
    defer { bytes.removeFirst(length) }
    return Array(bytes[..<length])
  }

  /// Lets everything on its way arrive, and the answers to it.
  func deliver() {
    while !toCulvert.isEmpty || !toOpenSSL.isEmpty {
      for record in records(in: toCulvert) { opened.append(culvert.open(record)) }
      toCulvert = []
      toOpenSSL += culvert.control()
      for record in records(in: toOpenSSL) { toCulvert += openssl.feed(record) }
      toOpenSSL = []
    }
  }
}
