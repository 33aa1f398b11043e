import Glibc
import Identity
import Net
import TLS

/// Two proxies in memory that connect again and again.
@safe final class Handshakes {
  private let client: TLSContext
  private let server: TLSContext
  private let address: SocketAddress?
  private var toServer: Wire
  private var toClient: Wire

  /// - Parameter resumes: whether connections resume the first one.
  init(resumes: Bool) throws {
    let directory = "/tmp/culvert-microbench-\(getpid())-\(resumes)"
    let authority = try CertificateAuthority.create(
      directory: directory, trustDomain: TrustDomain("bench.mesh"))
    func material(_ name: String) throws -> IdentityMaterial {
      let pair = try authority.issue(
        SPIFFEID("spiffe://bench.mesh/ns/bench/sa/\(name)"), lifetimeSeconds: 3600)
      return try IdentityMaterial(
        pair, bundles: [authority.trustBundle], svidEpoch: 1, trustEpoch: 1)
    }
    client = try TLSContext(material("client"))
    server = try TLSContext(material("server"))
    for file in ["ca.pem", "ca.key"] { unsafe unlink("\(directory)/\(file)") }
    unsafe rmdir(directory)
    address = resumes ? SocketAddress(.loopbackV4, port: 443) : nil
    toServer = Wire()
    toClient = Wire()
  }

  /// One connection, from the ClientHello to both ends' Finished and the ticket, and its end.
  func connect() throws {
    toServer.reset()
    toClient.reset()
    var client = try TLSSession(client, role: .client, expect: [], server: address)
    var server = try TLSSession(server, role: .server, expect: [])
    var clientIsDone = false
    var serverIsDone = false
    unsafe try Self.step(
      &client, UnsafeRawBufferPointer(start: nil, count: 0), &toServer, &clientIsDone)
    while !toServer.isEmpty || !toClient.isEmpty {
      while let record = unsafe toServer.next() {
        unsafe try Self.step(&server, record, &toClient, &serverIsDone)
      }
      while let record = unsafe toClient.next() {
        unsafe try Self.step(&client, record, &toServer, &clientIsDone)
      }
    }
    guard clientIsDone, serverIsDone else { throw Trouble(description: "no handshake") }
  }

  private static func step(
    _ session: inout TLSSession, _ record: UnsafeRawBufferPointer, _ wire: inout Wire,
    _ isDone: inout Bool
  ) throws {
    if isDone {
      var room = [UInt8](repeating: 0, count: TLSSession.maximumPlaintextBytes)
      let step = unsafe room.withUnsafeMutableBytes { room in
        unsafe session.open(record: record, into: room, output: &wire.window)
      }
      guard case .data(0) = step else { throw Trouble(description: "not a ticket") }
      return
    }
    switch unsafe session.handshake(record: record, output: &wire.window) {
    case .needsRecord: break
    case .finished: isDone = true
    case .failed(let failure): throw Trouble(description: failure.description)
    }
  }
}

/// Records on their way.
@safe private struct Wire {
  private static let capacity = 65_536
  private let base = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 16)
  var window: OutputWindow
  private var start = 0

  init() { unsafe window = OutputWindow(base: base, capacity: Self.capacity) }

  var isEmpty: Bool { start == window.count }

  mutating func reset() {
    start = 0
    unsafe window = OutputWindow(base: base, capacity: Self.capacity)
  }

  mutating func next() -> UnsafeRawBufferPointer? {
    guard window.count - start >= 5 else { return nil }
    let header = unsafe UnsafeRawBufferPointer(start: base + start, count: 5)
    let count = unsafe 5 + Int(header[3]) << 8 + Int(header[4])
    defer { start += count }
    return unsafe UnsafeRawBufferPointer(start: base + start, count: count)
  }
}
