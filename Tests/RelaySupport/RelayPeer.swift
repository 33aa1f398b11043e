#if DEBUG
  @testable import DataPlane
  @testable import TLS

  /// The TLS end of a relayed connection: a record layer with the worker's secrets swapped.
  final class RelayPeer {
    /// What a record came to, in order; data that follows data is one entry.
    enum Heard: Equatable {
      case data(Int)
      case keyUpdate, closeNotify
      case alert(UInt8)
      /// What the worker sent is wrong.
      case fault(UInt8)
    }

    let suite: CipherSuite
    private var ciphers: CipherContexts
    private var layer: RecordLayer
    private var wire: [UInt8] = []
    private(set) var plaintext: [UInt8] = []
    private(set) var heard: [Heard] = []

    init(_ suite: CipherSuite, isClient: Bool, send: [UInt8], receive: [UInt8]) throws {
      self.suite = suite
      ciphers = try CipherContexts()
      layer = RecordLayer(suite, isClient: isClient)
      let isKeyed = unsafe send.withUnsafeBytes { send in
        unsafe receive.withUnsafeBytes { receive in
          unsafe layer.install(send: send, receive: receive, with: &ciphers)
        }
      }
      guard isKeyed else { throw Trouble("no keys") }
    }

    // MARK: Sealing

    /// One record with this content.
    func record(_ type: ContentType, _ content: ArraySlice<UInt8>) -> [UInt8] {
      let count = content.count + RecordLayer.overheadBytes
      return unsafe [UInt8](unsafeUninitializedCapacity: count) { room, filled in
        let isSealed = unsafe content.withUnsafeBytes { content in
          unsafe ciphers.seal(
            suite, &layer.send, type: type, content, to: UnsafeMutableRawPointer(room.baseAddress!))
        }
        precondition(isSealed)
        filled = count
      }
    }

    /// Application data in records as large as they may be.
    func data(_ bytes: [UInt8]) -> [UInt8] {
      var records: [UInt8] = []
      var index = 0
      while index < bytes.count {
        let end = min(index + RecordLayer.maximumContentBytes, bytes.count)
        records += record(.applicationData, bytes[index..<end])
        index = end
      }
      return records
    }

    /// A KeyUpdate; what is sealed after it has the next key.
    func keyUpdate(isRequested: Bool) -> [UInt8] {
      let record = record(.handshake, [24, 0, 0, 1, isRequested ? 1 : 0])
      precondition(ciphers.update(&layer.send, suite))
      return record
    }

    func closeNotify() -> [UInt8] { record(.alert, [1, 0]) }

    // MARK: Opening

    /// Opens the records that are whole now.
    func take(_ bytes: [UInt8]) {
      wire += bytes
      var start = 0
      while wire.count - start >= RecordLayer.headerBytes {
        let end = start + 5 + Int(wire[start + 3]) << 8 + Int(wire[start + 4])
        guard end <= wire.count else { break }
        open(start..<end)
        start = end
      }
      wire.removeFirst(start)
    }

    /// The plaintext so far; it is forgotten.
    func takePlaintext() -> [UInt8] {
      defer { plaintext.removeAll(keepingCapacity: true) }
      return plaintext
    }

    private func open(_ range: Range<Int>) {
      let opened = unsafe wire.withUnsafeMutableBytes { wire in
        unsafe layer.open(UnsafeMutableRawBufferPointer(rebasing: wire[range]), with: &ciphers)
      }
      switch opened {
      case .data(let count):
        let start = range.lowerBound + RecordLayer.headerBytes
        plaintext += wire[start..<start + count]
        if case .data(let before) = heard.last {
          heard[heard.count - 1] = .data(before + count)
        } else {
          heard.append(.data(count))
        }
      case .nothing, .tickets: break
      case .keyUpdate: heard.append(.keyUpdate)
      case .closeNotify: heard.append(.closeNotify)
      case .failed(let fault):
        heard.append(
          fault.isReceived ? .alert(fault.alert.rawValue) : .fault(fault.alert.rawValue))
      }
    }
  }
#endif
