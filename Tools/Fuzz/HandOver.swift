@testable import DataPlane
@testable import TLS

/// Made once: making contexts takes far longer than a connection.
nonisolated(unsafe) private let contexts = Contexts()

/// The bytes: where to cut, lines of a key log up to the first NUL, then what follows a handshake.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let choice = bytes.first else { return 0 }
  let lines = bytes.dropFirst().prefix { $0 != 0 }
  let content = Array(bytes.dropFirst(2 + lines.count))
  let secrets = takeLines(lines.split(separator: 10, omittingEmptySubsequences: false))
  let isClient = choice & 1 == 1
  let cuts = Cuts(content, largest: 1 + Int(choice >> 3))
  let steps = checkCuts(cuts.pieces, isClient: isClient)
  checkLayer(cuts.pieces, steps, secrets, CipherSuite.allCases[Int(choice >> 1) % 3], isClient)
  return 0
}

// MARK: Key log

/// A line is taken as another reading of it says, or not at all.
private func takeLines(_ lines: [ArraySlice<UInt8>]) -> TrafficSecrets {
  var secrets = TrafficSecrets()
  for line in lines {
    let before = secrets
    Array(line).withUnsafeBytes { secrets.take(keyLogLine: $0) }
    let client = expected(
      Array(line), "CLIENT_TRAFFIC_SECRET_0 ", before.client, before.clientCount)
    let server = expected(
      Array(line), "SERVER_TRAFFIC_SECRET_0 ", before.server, before.serverCount)
    precondition(secrets.clientCount == client.count && secrets.serverCount == server.count)
    precondition(client.elementsEqual((0..<client.count).map { secrets.client[$0] }))
    precondition(server.elementsEqual((0..<server.count).map { secrets.server[$0] }))
  }
  return secrets
}

private func expected(
  _ line: [UInt8], _ label: String, _ before: TrafficSecrets.Bytes, _ count: Int
) -> [UInt8] {
  let unchanged = (0..<count).map { before[$0] }
  guard line.starts(with: label.utf8) else { return unchanged }
  // The client random and a space.
  let text = line.dropFirst(label.utf8.count + 65)
  guard !text.isEmpty else { return unchanged }
  let digits = text.compactMap { $0 < 0x80 ? Character(UnicodeScalar($0)).hexDigitValue : nil }
  guard digits.count == text.count, digits.count % 2 == 0, digits.count <= 96 else { return [] }
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] * 16 + digits[$0 + 1]) }
}

// MARK: Messages

/// Pieces of some bytes, at places that follow from the bytes, so that a finding repeats.
private struct Cuts {
  private(set) var pieces: [[UInt8]] = []

  init(_ content: [UInt8], largest: Int) {
    var state = content.reduce(UInt64(content.count) &+ 1) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
    var start = 0
    while start < content.count {
      state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
      let end = min(content.count, start + 1 + Int(state >> 33) % (largest * 8))
      pieces.append(Array(content[start..<end]))
      start = end
    }
  }
}

/// Gives a parser the pieces up to the first fault: each step is what all the bytes since the last
/// KeyUpdate give in one piece.
private func checkCuts(_ pieces: [[UInt8]], isClient: Bool) -> [PostHandshake.Step] {
  var messages = PostHandshake()
  var steps: [PostHandshake.Step] = []
  var sinceUpdate: [UInt8] = []
  for piece in pieces {
    let step = piece.withUnsafeBytes { messages.take($0, isClient: isClient) }
    steps.append(step)
    sinceUpdate += piece
    var whole = PostHandshake()
    let same = sinceUpdate.withUnsafeBytes { whole.take($0, isClient: isClient) }
    precondition(step == same, "another cut, another step")
    precondition(messages.isInMessage == whole.isInMessage)
    switch step {
    case .tickets: continue
    case .keyUpdate:
      precondition(!messages.isInMessage)
      sinceUpdate = []
    case .fault: return steps
    }
  }
  return steps
}

// MARK: Layer

/// A layer keyed with those secrets opens the pieces as records, and comes to the same steps.
private func checkLayer(
  _ pieces: [[UInt8]], _ steps: [PostHandshake.Step], _ secrets: TrafficSecrets,
  _ suite: CipherSuite, _ isClient: Bool
) {
  // Too short a secret never gets this far: zeros make up for it here.
  let client = (0..<suite.hashBytes).map { secrets.client[$0] }
  let server = (0..<suite.hashBytes).map { secrets.server[$0] }
  let (send, receive) = isClient ? (client, server) : (server, client)
  let end = RecordEnd(
    suite, isClient: isClient, send: send, receive: receive, contexts: contexts)
  let peer = RecordEnd(
    suite, isClient: !isClient, send: receive, receive: send, contexts: contexts)
  defer {
    for layer in [end.layer, peer.layer] {
      contexts.ciphers.forget(key: layer.send.identifier)
      contexts.ciphers.forget(key: layer.receive.identifier)
    }
  }
  var isRequested = false
  for (piece, step) in zip(pieces, steps).prefix(RecordLayer.maximumIdleRecords) {
    let opened = end.open(peer.craft(22, piece, padding: piece.count % 3))
    switch step {
    case .tickets: precondition(opened == .tickets)
    case .keyUpdate(let asks):
      precondition(opened == .keyUpdate)
      isRequested = isRequested || asks
      peer.updateSendingKey()
    case .fault(let fault):
      precondition(opened == .failed(fault))
      precondition(peer.open(end.control()) == .failed(RecordFault(received: fault.alert)))
      precondition(end.seal([1]) == nil)
      return
    }
  }
  let sealed = records(in: end.seal([1, 2, 3]) ?? [])
  precondition(sealed.count == (isRequested ? 2 : 1), "one answer, or none")
  if isRequested { precondition(peer.open(sealed[0]) == .keyUpdate) }
  precondition(peer.open(sealed[sealed.count - 1]) == .data(3) && peer.received == [1, 2, 3])
}
