import DataPlane
import Sniff
import TLS

struct Trouble: Error, CustomStringConvertible {
  let description: String
}

/// Runs an operation for as long as a batch lasts, several times.
struct Timing {
  let batches: Int
  let batchNanoseconds: UInt64

  /// - Parameter operation: called with a number that counts up.
  func figure(
    _ name: String, bytes: Int, _ operation: (Int) throws -> Void
  ) rethrows -> Figure {
    let clock = ContinuousClock()
    var results: [Double] = []
    // The first batch warms up and says how many operations fill the others.
    var operations = 64
    for batch in 0...batches {
      let start = clock.now
      for number in 0..<operations { try operation(number) }
      let taken = max((clock.now - start).nanoseconds, 1)
      let each = Double(taken) / Double(operations)
      if batch > 0 { results.append(each) }
      operations = max(Int(Double(batchNanoseconds) / each), 16)
    }
    return Figure(name, bytes: bytes, nanoseconds: results)
  }

  // MARK: Sniffing

  func sniff(_ hello: ClientHelloBytes) -> Figure {
    figure("sniff a ClientHello with SNI and ALPN", bytes: hello.bytes.count) { _ in
      var scan = ClientHelloScan()
      let isRead = unsafe hello.bytes.withUnsafeBytes { bytes in
        if case .tls(let found) = unsafe scan.classify(RawSpan(_unsafeBytes: bytes)) {
          return found.offersMesh
        }
        return false
      }
      precondition(isRead, "the scan does not read its ClientHello")
    }
  }

  // MARK: Handshakes

  /// Both ends' part in one mutual TLS handshake, each end's SSL object made and freed.
  func handshake(resumes: Bool) throws -> Figure {
    let handshakes = try Handshakes(resumes: resumes)
    return try figure(
      resumes ? "mutual handshake, resumed, both ends" : "mutual handshake, full, both ends",
      bytes: 0
    ) { _ in try handshakes.connect() }
  }

  // MARK: Records

  /// Sealing and opening of records with `count` bytes of content.
  ///
  /// - Parameter keys: connections that take turns with the worker's one cipher context; with one
  ///   the key stays, with more it is set anew for each record.
  func protect(_ suite: CipherSuite, _ count: Int, keys: Int) throws -> [Figure] {
    let content = [UInt8](repeating: 0x2a, count: count)
    let note = keys == 1 ? "" : ", another key each time"
    let senders = try Pairs(suite, count: keys)
    let sealing = try figure("seal, \(suite.name)\(note)", bytes: count) { number in
      _ = try senders.seal(content, by: number % keys)
    }
    // Others: what was sealed above was never opened.
    let pairs = try Pairs(suite, count: keys)
    let opening = try figure("seal and open, \(suite.name)\(note)", bytes: count) { number in
      try pairs.sealAndOpen(content, by: number % keys)
    }
    return [sealing, opening]
  }
}

/// Connections whose two ends share one worker's contexts.
@safe final class Pairs {
  private var ciphers: CipherContexts
  private var senders: [RecordLayer] = []
  private var receivers: [RecordLayer] = []
  private let room: UnsafeMutableRawBufferPointer

  init(_ suite: CipherSuite, count: Int) throws {
    ciphers = try CipherContexts()
    unsafe room = .allocate(
      byteCount: RecordLayer.sealedBytes(plaintext: RecordLayer.maximumContentBytes), alignment: 64)
    for number in 0..<count {
      let one = [UInt8](repeating: UInt8(2 * number + 1), count: suite.hashBytes)
      let other = [UInt8](repeating: UInt8(2 * number + 2), count: suite.hashBytes)
      var sender = RecordLayer(suite, isClient: true)
      var receiver = RecordLayer(suite, isClient: false)
      let isKeyed = unsafe one.withUnsafeBytes { one in
        unsafe other.withUnsafeBytes { other in
          unsafe sender.install(send: one, receive: other, with: &ciphers)
            && receiver.install(send: other, receive: one, with: &ciphers)
        }
      }
      guard isKeyed else { throw Trouble(description: "keys could not be derived") }
      senders.append(sender)
      receivers.append(receiver)
    }
  }

  deinit { unsafe room.deallocate() }

  /// - Returns: the bytes of the record.
  func seal(_ content: [UInt8], by index: Int) throws -> Int {
    guard let base = unsafe room.baseAddress else { return 0 }
    var window = unsafe OutputWindow(base: base, capacity: room.count)
    let isSealed = unsafe content.withUnsafeBytes { content in
      unsafe senders[index].seal(content, to: &window, with: &ciphers)
    }
    guard isSealed else { throw Trouble(description: "a record could not be sealed") }
    return window.count
  }

  func sealAndOpen(_ content: [UInt8], by index: Int) throws {
    let count = try seal(content, by: index)
    let record = unsafe UnsafeMutableRawBufferPointer(rebasing: room[..<count])
    let opened = unsafe receivers[index].open(record, with: &ciphers)
    guard opened == .data(content.count) else {
      throw Trouble(description: "a record could not be opened")
    }
  }
}

extension Duration {
  var nanoseconds: Int64 {
    components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
  }
}
