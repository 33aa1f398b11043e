import TLS

@testable import DataPlane

/// Made once: making contexts takes far longer than a connection.
nonisolated(unsafe) private let contexts = (end: Contexts(), peer: Contexts())

/// The bytes tell what a peer does that holds the right keys: records of any type and content,
/// spoilt ones, bytes that are no record; and what we do in between.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var script = Script(bytes: Array(UnsafeBufferPointer(start: start, count: count)))
  let run = Run(script.byte())
  while !script.isAtEnd { run.step(&script) }
  run.finish()
  return 0
}

private struct Script {
  let bytes: [UInt8]
  private var index = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  var isAtEnd: Bool { index >= bytes.count }

  /// 0 beyond the end.
  mutating func byte() -> UInt8 {
    defer { index += 1 }
    return index < bytes.count ? bytes[index] : 0
  }

  mutating func number() -> Int { Int(byte()) << 8 | Int(byte()) }

  mutating func bytes(_ count: Int) -> [UInt8] {
    let end = min(index + count, bytes.count)
    defer { index = max(index, end) }
    return index < end ? Array(bytes[index..<end]) : []
  }
}

private final class Run {
  let end: RecordEnd
  let peer: RecordEnd
  /// What the end has said after it refused something.
  private var alertsAfterFault = 0
  private var hasFailed = false
  private var hasEndedReceiving = false
  private var hasEndedSending = false
  /// The peer's own limits were reached: nothing more is shown to it.
  private var isPeerDone = false

  init(_ choice: UInt8) {
    let suite = CipherSuite.allCases[Int(choice >> 1) % 3]
    let (up, down) = (
      [UInt8](repeating: 1, count: suite.hashBytes), [UInt8](repeating: 2, count: suite.hashBytes)
    )
    let isClient = choice & 1 == 1
    let limit = RecordLayer.recordsPerKeyMinimum
    end = RecordEnd(
      suite, isClient: isClient, send: up, receive: down, contexts: contexts.end,
      recordsPerKey: limit)
    peer = RecordEnd(
      suite, isClient: !isClient, send: down, receive: up, contexts: contexts.peer,
      recordsPerKey: limit)
  }

  func step(_ script: inout Script) {
    switch script.byte() % 9 {
    case 0, 1:
      let (type, padding) = (script.byte(), Int(script.byte()))
      let content = script.bytes(Int(script.byte()))
      receive(peer.craft(type, content, padding: padding), (type, content))
    case 2:
      let (type, padding) = (script.byte(), script.number() % 17_000)
      let content = [UInt8](repeating: script.byte(), count: script.number() % 17_000)
      receive(peer.craft(type, content, padding: padding), (type, content))
    case 3:
      let bytes = script.bytes(script.number())
      receive(bytes, nil)
    case 4:
      var record = peer.craft(script.byte(), script.bytes(Int(script.byte())))
      record[script.number() % record.count] ^= max(script.byte(), 1)
      receive(record, nil)
      peer.layer.send.sequence -= 1
    case 5: receive(peer.craft(22, [24, 0, 0, 1, script.byte() & 1]), nil, isForged: false)
    case 6:
      let content = [UInt8](repeating: script.byte(), count: script.number())
      let sealed = end.seal(content)
      precondition((sealed == nil) == hasEndedSending, "sent after the end, or not before it")
      send(sealed ?? [], expect: sealed == nil ? [] : content)
    case 7: send(end.control(), expect: [])
    default:
      end.layer.oweCloseNotify()
      hasEndedSending = true
      precondition(end.seal([1]) == nil)
      send(end.control(), expect: [])
    }
  }

  /// - Parameter crafted: what is in the record, if it is sound.
  private func receive(
    _ record: [UInt8], _ crafted: (type: UInt8, content: [UInt8])?, isForged: Bool = true
  ) {
    let before = (end.layer.receive.sequence, end.layer.receive.identifier, end.received.count)
    let opened = end.open(record)
    let after = (end.layer.receive.sequence, end.layer.receive.identifier)
    if hasEndedReceiving { precondition(opened == .nothing, "opened behind close_notify") }
    if crafted == nil, isForged {
      switch opened {
      case .failed(let fault): precondition(!fault.isReceived, "an alert out of nothing")
      default: precondition(opened == .nothing && hasEndedReceiving, "a forgery was opened")
      }
      precondition(after == (before.0, before.1), "a forgery used a number up")
    }
    switch opened {
    case .data(let count):
      precondition(after == (before.0 + 1, before.1))
      if let crafted {
        // Zeros at the end are padding, whoever put them there.
        let inner = Array((crafted.content + [crafted.type]).reversed().drop { $0 == 0 })
        precondition(inner.first == 23 && inner.count == count + 1)
        precondition(
          end.received[before.2...].elementsEqual(inner.dropFirst().reversed()), "other data")
      }
    case .keyUpdate:
      precondition(after.0 == 0 && after.1 > before.1, "a KeyUpdate without a new key")
      peer.updateSendingKey()
    case .nothing, .tickets, .closeNotify:
      precondition(after.1 == before.1 && after.0 >= before.0)
      if opened == .closeNotify { hasEndedReceiving = true }
    case .failed(let fault):
      // Too many KeyUpdates: the key was changed all the same.
      if after.1 != before.1 { peer.updateSendingKey() }
      hasEndedSending = true
      precondition(end.seal([1]) == nil, "sealed after a fault")
      if fault.isReceived {
        precondition(end.control().isEmpty, "said something after a fatal alert")
      } else {
        hasFailed = true
      }
    }
  }

  /// Shows the peer what was written.
  private func send(_ bytes: [UInt8], expect data: [UInt8]) {
    let before = peer.received.count
    for record in records(in: bytes) {
      if hasFailed {
        alertsAfterFault += 1
        precondition(alertsAfterFault == 1, "more than one alert")
      }
      guard !isPeerDone else { continue }
      let sequence = (peer.layer.receive.identifier, peer.layer.receive.sequence)
      switch peer.open(record) {
      case .failed(let fault) where fault.isReceived:
        precondition(hasFailed)
        isPeerDone = true
      case .failed(let fault):
        // KeyUpdates that it asked for itself.
        precondition("\(fault.detail)" == "too many records without data", "unreadable")
        isPeerDone = true
      case .closeNotify: isPeerDone = true
      case .data: precondition(!hasFailed)
      case .keyUpdate: precondition(peer.layer.receive.identifier > sequence.0)
      case .nothing, .tickets: preconditionFailure("nobody says this")
      }
    }
    if !isPeerDone { precondition(peer.received[before...].elementsEqual(data), "other data") }
  }

  func finish() {
    send(end.control(), expect: [])
    if hasEndedSending { precondition(end.control().isEmpty && end.closeNotify().isEmpty) }
    for (layer, contexts) in [(end.layer, contexts.end), (peer.layer, contexts.peer)] {
      contexts.ciphers.forget(key: layer.send.identifier)
      contexts.ciphers.forget(key: layer.receive.identifier)
    }
  }
}
