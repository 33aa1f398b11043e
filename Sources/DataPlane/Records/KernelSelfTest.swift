internal import CLinux
internal import COpenSSL
package import Net
internal import TLS

/// Tries the kernel's record protection with real keys on loopback connections: one end by kTLS,
/// the other by this record layer, with buffers so small that both ends wait for each other.
///
/// kTLS has lost bytes in several kernels without an error (Docs/KERNEL.md), so it is used only
/// where this has passed, in this process, on this kernel.
package enum KernelSelfTest {
  /// Bytes through each direction and suite.
  static let payloadBytes = 256 * 1024
  /// What one try may take; loopback needs milliseconds.
  static let timeoutNanoseconds: UInt64 = 5_000_000_000

  /// Runs all of it, in the network namespace of the calling thread.
  package static func run() -> KernelVerdict {
    var verdict = KernelVerdict()
    if let reason = unavailableReason { return .unused(reason) }
    for suite in CipherSuite.allCases {
      do throws(Problem) {
        var trial = try KernelTrial(suite)
        try trial.prepare([.send])
        try trial.sendFromKernel()
        verdict.send.insert(suite)
      } catch {
        note(error, suite, &verdict.sendReason)
      }
      do throws(Problem) {
        var trial = try KernelTrial(suite)
        try trial.prepare([.receive])
        try trial.receiveInKernel()
        verdict.receive.insert(suite)
      } catch {
        note(error, suite, &verdict.receiveReason)
      }
    }
    guard
      let suite = CipherSuite.allCases.first(where: {
        verdict.send.contains($0) && verdict.receive.contains($0)
      })
    else { return verdict }
    do throws(Problem) {
      var trial = try KernelTrial(suite)
      try trial.prepare([.send, .receive])
      try trial.rekey()
      verdict.canRekey = true
    } catch {
      let reason =
        "connections that may need key updates stay with the proxy: \(error.description)"
      verdict.sendReason = verdict.sendReason ?? reason
      verdict.receiveReason = verdict.receiveReason ?? reason
    }
    return verdict
  }

  /// Whether the kernel has kTLS at all.
  static var isAvailable: Bool { unavailableReason == nil }

  private static var unavailableReason: String? {
    let pair: LoopbackPair
    do throws(Errno) {
      pair = try LoopbackPair(.v4)
    } catch {
      return "not tried: no connection over 127.0.0.1: \(error)"
    }
    do throws(Errno) {
      try KernelTLS.attach(pair.client.number)
      return nil
    } catch {
      return attachReason(error)
    }
  }

  /// What a refused `tls` ULP means.
  package static func attachReason(_ error: Errno) -> String {
    error == .noEntry
      ? "the module tls is not loaded (modprobe tls), or the kernel lacks CONFIG_TLS"
      : "the kernel refuses the tls ULP: \(error)"
  }

  private static func note(_ problem: Problem, _ suite: CipherSuite, _ reason: inout String?) {
    reason = (reason.map { $0 + "; " } ?? "") + "\(suite.name): \(problem.description)"
  }

  struct Problem: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
    init(_ what: String, _ error: Errno) { description = "\(what): \(error)" }
  }
}

/// One connection over loopback. Its client end belongs to the kernel.
private struct KernelTrial: ~Copyable {
  private typealias Problem = KernelSelfTest.Problem

  private static let sendBufferBytes: Int32 = 4096
  private static let receiveBufferBytes: Int32 = 65_536

  private let suite: CipherSuite
  private let pair: LoopbackPair
  private var ciphers: CipherContexts
  /// The keys of both ends; the kernel's end only lends its keys to the kernel.
  private var kernel: RecordLayer
  private var user: RecordLayer
  private let message = KernelMessage()
  private let deadline = Clock.monotonicNanoseconds() + KernelSelfTest.timeoutNanoseconds
  private var inbox: [UInt8] = []

  init(_ suite: CipherSuite) throws(KernelSelfTest.Problem) {
    self.suite = suite
    kernel = RecordLayer(suite, isClient: true)
    user = RecordLayer(suite, isClient: false)
    let pair = try Self.connect()
    let ciphers = try Self.makeCiphers()
    self.pair = pair
    self.ciphers = ciphers
  }

  mutating func prepare(_ ways: [KernelTLS.Way]) throws(KernelSelfTest.Problem) {
    try installSecrets()
    do throws(Errno) {
      // Small enough that neither end gets far ahead of the other; with a window smaller than
      // a segment of loopback every step would wait for a timer.
      for end in [pair.client.number, pair.server.number] {
        try Socket.setOption(end, level: SOL_SOCKET, SO_SNDBUF, Self.sendBufferBytes)
        try Socket.setOption(end, level: SOL_SOCKET, SO_RCVBUF, Self.receiveBufferBytes)
      }
      try KernelTLS.attach(pair.client.number)
      for way in ways { try install(way) }
    } catch {
      throw Problem("the kernel does not take the keys", error)
    }
  }

  deinit {
    message.deallocate()
    var kernel = kernel
    var user = user
    unsafe OPENSSL_cleanse(&kernel, MemoryLayout<RecordLayer>.size)
    unsafe OPENSSL_cleanse(&user, MemoryLayout<RecordLayer>.size)
  }

  private static func connect() throws(KernelSelfTest.Problem) -> LoopbackPair {
    do throws(Errno) {
      return try LoopbackPair(.v4)
    } catch {
      throw Problem("no connection over 127.0.0.1", error)
    }
  }

  private static func makeCiphers() throws(KernelSelfTest.Problem) -> CipherContexts {
    do throws(TLSSetupError) {
      return try CipherContexts()
    } catch {
      throw Problem(error.description)
    }
  }

  private mutating func installSecrets() throws(KernelSelfTest.Problem) {
    var secrets = (0..<2 * suite.hashBytes).map { _ in UInt8.random(in: 0...255) }
    let count = suite.hashBytes
    let isDone = unsafe secrets.withUnsafeMutableBytes { bytes in
      defer { unsafe OPENSSL_cleanse(bytes.baseAddress, bytes.count) }
      guard let base = bytes.baseAddress else { return false }
      let first = unsafe UnsafeRawBufferPointer(start: base, count: count)
      let second = unsafe UnsafeRawBufferPointer(start: base + count, count: count)
      return unsafe kernel.install(send: first, receive: second, with: &ciphers)
        && user.install(send: second, receive: first, with: &ciphers)
    }
    guard isDone else { throw Problem("keys could not be derived") }
  }

  private mutating func install(_ way: KernelTLS.Way) throws(Errno) {
    switch way {
    case .send: try KernelTLS.install(.send, suite, &kernel.send, on: pair.client.number)
    case .receive: try KernelTLS.install(.receive, suite, &kernel.receive, on: pair.client.number)
    }
  }

  // MARK: The trials

  /// The kernel sends pieces of odd sizes, a control record among them, closes its direction while
  /// the reader is far behind, and nothing may be missing.
  mutating func sendFromKernel() throws(KernelSelfTest.Problem) {
    var sent = 0
    var opened = Transcript()
    var pieces = Pieces([1, 17, 4096, 16_384, 40_000])
    var step = 0
    while !opened.isComplete {
      var isBlocked = false
      while !isBlocked, step < 4 {
        switch step {
        case 0 where sent >= KernelSelfTest.payloadBytes / 2:
          if try sendControl(.alert, [1, Alert.userCanceled.rawValue]) {
            step = 1
          } else {
            isBlocked = true
          }
        case 1 where sent == KernelSelfTest.payloadBytes:
          if try sendControl(.alert, [1, Alert.closeNotify.rawValue]) {
            step = 2
          } else {
            isBlocked = true
          }
        case 2:
          shutdown(pair.client.number, Int32(SHUT_WR))
          step = 4
        default:
          var piece = Transcript.pattern(
            sent, min(pieces.next(), KernelSelfTest.payloadBytes - sent))
          let count = try sendFromKernel(&piece, type: nil)
          sent += count
          isBlocked = count == 0
        }
      }
      if try !readByUser(&opened) { try wait(for: pair.server.number, POLLIN) }
    }
    guard opened.controls == 1 else { throw Problem("a control record did not arrive") }
  }

  /// Records of odd sizes arrive in pieces and are read into buffers of odd sizes.
  mutating func receiveInKernel() throws(KernelSelfTest.Problem) {
    var outbox = try sealPayload()
    var isShut = false
    var received = Transcript()
    var rooms = Pieces([7, 100, 16_384, 65_536])
    while !received.isComplete {
      if outbox.isEmpty, !isShut {
        shutdown(pair.server.number, Int32(SHUT_WR))
        isShut = true
      }
      let written = outbox.isEmpty ? 0 : try writeByUser(outbox)
      outbox.removeFirst(written)
      var hasRead = false
      while try readInKernel(&received, room: rooms.next()) { hasRead = true }
      if written == 0, !hasRead, !received.isComplete { try wait(for: pair.client.number, POLLIN) }
    }
    guard received.controls == 1 else { throw Problem("a control record did not arrive") }
  }

  /// Each direction takes its next key, between data before and after.
  mutating func rekey() throws(KernelSelfTest.Problem) {
    var opened = Transcript()
    var first = Transcript.pattern(0, 100)
    _ = try sendFromKernel(&first, type: nil)
    _ = try sendControl(.handshake, [24, 0, 0, 1, 0])
    guard ciphers.update(&kernel.send, suite) else { throw Problem("keys could not be derived") }
    do throws(Errno) { try install(.send) } catch { throw Problem("TLS_TX", error) }
    var second = Transcript.pattern(100, 100)
    _ = try sendFromKernel(&second, type: nil)
    while opened.count < 200 {
      if try !readByUser(&opened) { try wait(for: pair.server.number, POLLIN) }
    }

    var received = Transcript()
    var records = try seal(.applicationData, Transcript.pattern(0, 100))
    records += try seal(.handshake, [24, 0, 0, 1, 0])
    guard ciphers.update(&user.send, suite) else { throw Problem("keys could not be derived") }
    records += try seal(.applicationData, Transcript.pattern(100, 100))
    guard try writeByUser(records) == records.count else { throw Problem("no room for 300 bytes") }
    while received.count < 200 {
      if try !readInKernel(&received, room: 1000) { try wait(for: pair.client.number, POLLIN) }
    }
  }

  // MARK: The kernel's end

  /// - Returns: the bytes taken; 0 if there was no room.
  private func sendFromKernel(
    _ bytes: inout [UInt8], type: UInt8?
  ) throws(KernelSelfTest.Problem) -> Int {
    let number = pair.client.number
    let count = unsafe bytes.withUnsafeMutableBytes { bytes in
      unsafe message.prepareToSend(bytes, type: type)
      return unsafe sendmsg(number, message.header, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    }
    if count < 0, Errno.current == .tryAgain { return 0 }
    guard count >= 0 else { throw Problem("send", Errno.current) }
    return count
  }

  private func sendControl(
    _ type: ContentType, _ bytes: [UInt8]
  ) throws(KernelSelfTest.Problem) -> Bool {
    var bytes = bytes
    return try sendFromKernel(&bytes, type: type.rawValue) > 0
  }

  /// - Returns: false if nothing was there.
  private mutating func readInKernel(
    _ transcript: inout Transcript, room: Int
  ) throws(KernelSelfTest.Problem) -> Bool {
    var bytes = [UInt8](repeating: 0, count: room)
    let number = pair.client.number
    let count = unsafe bytes.withUnsafeMutableBytes { bytes in
      unsafe message.prepareToReceive(bytes.baseAddress, bytes.count)
      return unsafe recvmsg(number, message.header, Int32(MSG_DONTWAIT))
    }
    if count < 0, Errno.current == .tryAgain { return false }
    guard count >= 0 else { throw Problem("recvmsg", Errno.current) }
    guard count > 0 else {
      try transcript.end()
      return false
    }
    switch message.receivedType {
    case ContentType.applicationData.rawValue:
      try transcript.take(bytes[..<count])
    case ContentType.alert.rawValue where count == 2:
      try transcript.takeAlert(Alert(rawValue: bytes[1]))
    case ContentType.handshake.rawValue where bytes[..<count] == [24, 0, 0, 1, 0]:
      guard ciphers.update(&kernel.receive, suite) else {
        throw Problem("keys could not be derived")
      }
      do throws(Errno) { try install(.receive) } catch { throw Problem("TLS_RX", error) }
    default:
      throw Problem("a record of type \(message.receivedType) with \(count) bytes")
    }
    return true
  }

  // MARK: The user's end

  private mutating func sealPayload() throws(KernelSelfTest.Problem) -> [UInt8] {
    var pieces = Pieces([1, 16_384, 100, 5000])
    var position = 0
    var records: [UInt8] = []
    var hasControl = false
    while position < KernelSelfTest.payloadBytes {
      let count = min(pieces.next(), KernelSelfTest.payloadBytes - position)
      records += try seal(.applicationData, Transcript.pattern(position, count))
      position += count
      if position >= KernelSelfTest.payloadBytes / 2, !hasControl {
        hasControl = true
        records += try seal(.alert, [1, Alert.userCanceled.rawValue])
      }
    }
    return records + (try seal(.alert, [1, Alert.closeNotify.rawValue]))
  }

  private mutating func seal(
    _ type: ContentType, _ content: [UInt8]
  ) throws(KernelSelfTest.Problem) -> [UInt8] {
    var record = [UInt8](repeating: 0, count: content.count + RecordLayer.overheadBytes)
    let isSealed = unsafe record.withUnsafeMutableBytes { record in
      unsafe content.withUnsafeBytes { content in
        guard let base = record.baseAddress else { return false }
        return unsafe ciphers.seal(suite, &user.send, type: type, content, to: base)
      }
    }
    guard isSealed else { throw Problem("a record could not be sealed") }
    return record
  }

  private func writeByUser(_ bytes: [UInt8]) throws(KernelSelfTest.Problem) -> Int {
    let count = unsafe CLinux.send(
      pair.server.number, bytes, min(bytes.count, 3000),
      Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
    if count < 0, Errno.current == .tryAgain { return 0 }
    guard count >= 0 else { throw Problem("send", Errno.current) }
    return count
  }

  /// - Returns: false if nothing was there.
  private mutating func readByUser(
    _ transcript: inout Transcript
  ) throws(KernelSelfTest.Problem) -> Bool {
    var bytes = [UInt8](repeating: 0, count: 3000)
    let count = unsafe recv(pair.server.number, &bytes, bytes.count, Int32(MSG_DONTWAIT))
    if count < 0, Errno.current == .tryAgain { return false }
    guard count >= 0 else { throw Problem("recv", Errno.current) }
    guard count > 0 else {
      try transcript.end()
      return true
    }
    inbox += bytes[..<count]
    while inbox.count >= 5, inbox.count >= 5 + Int(inbox[3]) << 8 + Int(inbox[4]) {
      let length = 5 + Int(inbox[3]) << 8 + Int(inbox[4])
      var record = Array(inbox[..<length])
      inbox.removeFirst(length)
      let opened = unsafe record.withUnsafeMutableBytes { unsafe user.open($0, with: &ciphers) }
      switch opened {
      case .data(let count): try transcript.take(record[5..<5 + count])
      case .nothing: try transcript.takeAlert(.userCanceled)
      case .closeNotify: try transcript.takeAlert(.closeNotify)
      case .keyUpdate, .tickets: break
      case .failed(let fault): throw Problem("\(fault.detail)")
      }
    }
    return true
  }

  private func wait(for descriptor: Int32, _ events: Int32) throws(KernelSelfTest.Problem) {
    guard Clock.monotonicNanoseconds() < deadline else { throw Problem("no progress") }
    var request = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    _ = unsafe poll(&request, 1, 20)
  }
}

/// Sizes in turn.
private struct Pieces {
  private let sizes: [Int]
  private var index = 0

  init(_ sizes: [Int]) { self.sizes = sizes }

  mutating func next() -> Int {
    defer { index += 1 }
    return sizes[index % sizes.count]
  }
}

/// What has come out at the other end, compared with what went in.
private struct Transcript {
  private(set) var count = 0
  private(set) var controls = 0
  private(set) var isComplete = false
  private var isClosed = false

  /// Bytes that tell their position.
  static func pattern(_ start: Int, _ count: Int) -> [UInt8] {
    (start..<start + count).map { UInt8(truncatingIfNeeded: $0 &* 167 &+ $0 >> 8) }
  }

  mutating func take(_ bytes: ArraySlice<UInt8>) throws(KernelSelfTest.Problem) {
    guard !isClosed, bytes.elementsEqual(Self.pattern(count, bytes.count)) else {
      throw KernelSelfTest.Problem("other bytes than were sent, after \(count)")
    }
    count += bytes.count
  }

  mutating func takeAlert(_ alert: Alert) throws(KernelSelfTest.Problem) {
    switch alert {
    case .userCanceled: controls += 1
    case .closeNotify: isClosed = true
    default: throw KernelSelfTest.Problem("the alert \(alert.name)")
    }
  }

  mutating func end() throws(KernelSelfTest.Problem) {
    guard isClosed, count == KernelSelfTest.payloadBytes else {
      throw KernelSelfTest.Problem("the end after \(count) of \(KernelSelfTest.payloadBytes) bytes")
    }
    isComplete = true
  }
}
