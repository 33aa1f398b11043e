import Sniff
import Testing

func verdictOn(_ bytes: [UInt8]) -> Classification { unsafe classify(bytes.span.bytes) }

func helloIn(_ bytes: [UInt8]) -> ClientHello? {
  guard case .tls(let hello) = verdictOn(bytes) else { return nil }
  return hello
}

/// The verdicts a client's bytes get when they come one at a time, up to the first that is final.
func verdictsByteByByte(_ bytes: [UInt8]) -> (final: Classification, decidedAfter: Int) {
  var scan = ClientHelloScan()
  for count in 0...bytes.count {
    let verdict = unsafe scan.classify(bytes.span.bytes.extracting(first: count))
    if verdict != .incomplete { return (verdict, count) }
  }
  return (.incomplete, bytes.count)
}

@Suite struct WhatAHelloSays {
  @Test func aMeshHelloOfOpenSSL() {
    #expect(
      verdictOn(Capture.opensslMesh)
        == .tls(
          ClientHello(
            serverName: nil, alpn: ["culvert/1", "istio"], versions: [0x0304], offersMesh: true,
            recordBytes: Capture.opensslMesh.count)))
  }

  @Test func anIstioHelloIsMeshWithItsServerName() throws {
    let hello = try #require(helloIn(Capture.opensslIstio))
    #expect(hello.serverName == "db.shop.example")
    #expect(hello.alpn == ["istio"])
    #expect(hello.offersMesh)
  }

  @Test func aWebClientIsNotMesh() throws {
    let hello = try #require(helloIn(Capture.pythonWeb))
    #expect(hello.serverName == "www.example.com")
    #expect(hello.alpn == ["h2", "http/1.1"])
    #expect(hello.versions == [0x0304, 0x0303])
    #expect(!hello.offersMesh)
  }

  @Test func anOldClientWithoutServerNameOrALPN() throws {
    let hello = try #require(helloIn(Capture.pythonTLS12))
    #expect(hello.serverName == nil)
    #expect(hello.alpn == [])
    #expect(hello.versions == [0x0303])
    #expect(!hello.offersMesh)
  }

  @Test func aHelloWithoutExtensionsIsOrdinaryBeforeTLS13() throws {
    let body: [UInt8] = [3, 1] + [UInt8](repeating: 9, count: 32) + [0, 0, 2, 0, 47, 1, 0]
    let hello = try #require(helloIn(HelloBuilder.records(HelloBuilder.message(body: body))))
    #expect(hello.versions == [0x0301])
  }

  @Test func whatFollowsTheHelloIsNotItsBusiness() throws {
    let early: [UInt8] = [23, 3, 3, 0, 2, 1, 2]
    let hello = try #require(helloIn(Capture.opensslMesh + early))
    #expect(hello.recordBytes == Capture.opensslMesh.count)
  }

  @Test func greaseChangesNothing() throws {
    var builder = HelloBuilder()
    builder.cipherSuites = [0x0a, 0x0a, 0x13, 0x01]
    builder.extensions = [
      (0x2a2a, []), (43, [6, 0xfa, 0xfa, 3, 4, 3, 3]), (16, HelloBuilder.alpn(["\n\n", "istio"])),
      (0x3a3a, [0]),
    ]
    let hello = try #require(helloIn(builder.bytes))
    #expect(hello.versions == [0x0304, 0x0303])
    #expect(hello.alpn == ["\\x0a\\x0a", "istio"])
    #expect(hello.offersMesh)
  }

  @Test func aPostQuantumKeyShareChangesNothing() throws {
    let plain = try #require(helloIn(HelloBuilder().bytes))
    var builder = HelloBuilder()
    // X25519MLKEM768 (0x11ec): 1216 bytes, before the server name.
    let share = [0x11, 0xec] + HelloBuilder.vector16([UInt8](repeating: 3, count: 1216))
    builder.extensions.insert((51, HelloBuilder.vector16(share)), at: 0)
    let hello = try #require(helloIn(builder.bytes))
    #expect(hello.serverName == plain.serverName)
    #expect(hello.alpn == plain.alpn)
    #expect(hello.offersMesh)
  }

  @Test func anEncryptedClientHelloChangesNothing() throws {
    var builder = HelloBuilder()
    builder.extensions.append((0xfe0d, [UInt8](repeating: 0, count: 300)))
    let hello = try #require(helloIn(builder.bytes))
    #expect(hello.serverName == "db.example")
    #expect(hello.offersMesh)
  }

  @Test func textsOfAClientCannotForgeALogLine() throws {
    var builder = HelloBuilder()
    builder.extensions = [
      (0, HelloBuilder.serverName("a\nb\\c\u{e9}")), (16, HelloBuilder.alpn(["h2\r"])),
    ]
    let hello = try #require(helloIn(builder.bytes))
    #expect(hello.serverName == "a\\x0ab\\x5cc\\xc3\\xa9")
    #expect(hello.alpn == ["h2\\x0d"])
  }

  @Test func aMeshOfferCountsEvenBeyondTheListedNames() throws {
    var builder = HelloBuilder()
    builder.extensions = [(16, HelloBuilder.alpn((0..<100).map { "p\($0)" } + ["istio"]))]
    let hello = try #require(helloIn(builder.bytes))
    #expect(hello.alpn.count == ClientHello.maximumListed)
    #expect(hello.offersMesh)
  }

  @Test(arguments: ["culvert/2", "culvert/1x", "culvert", "istio-peer-exchange", "ISTIO", "h2"])
  func onlyTheExactNamesAreMesh(name: String) throws {
    var builder = HelloBuilder()
    builder.extensions = [(16, HelloBuilder.alpn([name]))]
    #expect(try #require(helloIn(builder.bytes)).offersMesh == false)
  }
}

@Suite struct WhatIsNotTLS {
  @Test(arguments: ["GET / HTTP/1.1\r\n", "SSH-2.0-x\r\n", "\0", "\u{15}", "*1\r\n$4\r\nPING\r\n"])
  func otherProtocolsArePlaintextFromTheirFirstByte(text: String) {
    let bytes = Array(text.utf8)
    #expect(verdictOn(bytes) == .plaintext)
    #expect(verdictOn([bytes[0]]) == .plaintext)
  }

  @Test func anSSLv2HelloIsPlaintext() {
    #expect(verdictOn([0x80, 0x2e, 1, 3, 1, 0, 0x15, 0, 0, 0, 0x10]) == .plaintext)
  }

  @Test func nothingIsIncomplete() { #expect(verdictOn([]) == .incomplete) }

  @Test(arguments: [[0x16, 0x02], [0x16, 0x47, 0x45], [22, 3, 1, 0, 4, 2]] as [[UInt8]])
  func theFirstByteThatCannotBeTLSDecides(bytes: [UInt8]) {
    #expect(verdictOn(bytes.dropLast(bytes[1] == 0x47 ? 2 : 1)) == .incomplete)
    #expect(verdictOn(bytes) == .plaintext)
  }
}

@Suite struct FragmentedHellos {
  @Test(arguments: Capture.all)
  func everyPrefixIsIncompleteUntilTheEnd(capture: [UInt8]) {
    let whole = verdictOn(capture)
    for count in 0..<capture.count {
      #expect(verdictOn(Array(capture[..<count])) == .incomplete, "after \(count) bytes")
      var scan = ClientHelloScan()
      #expect(unsafe scan.classify(capture.span.bytes.extracting(first: count)) == .incomplete)
      #expect(unsafe scan.classify(capture.span.bytes) == whole, "split at \(count)")
    }
    #expect(verdictsByteByByte(capture) == (whole, capture.count))
  }

  @Test(arguments: Capture.all)
  func everyRecordSizeGivesTheSameHello(capture: [UInt8]) throws {
    let whole = try #require(helloIn(capture))
    let message = Array(capture.dropFirst(5))
    for fragmentBytes in 1...message.count {
      let bytes = HelloBuilder.records(message, fragmentBytes: fragmentBytes)
      let cut = try #require(helloIn(bytes))
      #expect(cut.serverName == whole.serverName && cut.alpn == whole.alpn)
      #expect(cut.versions == whole.versions && cut.offersMesh == whole.offersMesh)
      #expect(cut.recordBytes == bytes.count)
      #expect(verdictsByteByByte(bytes) == (.tls(cut), bytes.count))
    }
  }

  @Test func theMinorRecordVersionIsIgnored() throws {
    for minor in UInt8(0)...4 {
      var bytes = HelloBuilder.records(HelloBuilder().message, fragmentBytes: 60)
      bytes[2] = minor
      #expect(helloIn(bytes)?.offersMesh == true)
    }
  }

  @Test(arguments: [(0, 23), (0, 20), (0, 0x47), (1, 2), (3, 0x41)] as [(Int, UInt8)])
  func aSecondRecordThatIsNoHandshakeIsMalformed(offset: Int, value: UInt8) {
    var bytes = HelloBuilder.records(HelloBuilder().message, fragmentBytes: 60)
    #expect(helloIn(bytes) != nil)
    bytes[65 + offset] = value
    #expect(verdictOn(bytes) == .malformed)
    #expect(verdictsByteByByte(bytes).final == .malformed)
  }

  @Test func anEmptyOrOversizedRecordIsMalformed() {
    #expect(verdictOn([22, 3, 1, 0, 0]) == .malformed)
    #expect(verdictOn([22, 3, 1, 0x40, 0, 1, 0, 0x50]) == .incomplete)
    #expect(verdictOn([22, 3, 1, 0x40, 1]) == .malformed)
    let cut = HelloBuilder.records(HelloBuilder().message, fragmentBytes: 60)
    #expect(verdictOn(Array(cut[..<65]) + [22, 3, 1, 0, 0] + cut[65...]) == .malformed)
  }

  @Test func bytesAfterTheHelloInItsLastRecordAreMalformed() {
    let message = HelloBuilder().message
    #expect(verdictOn(HelloBuilder.records(message + [1])) == .malformed)
    // As soon as the header shows it.
    #expect(verdictOn(Array(HelloBuilder.records(message + [1])[..<9])) == .malformed)
    #expect(verdictOn(HelloBuilder.records(message + message)) == .malformed)
  }
}

@Suite struct LargeHellos {
  private func padded(to messageBytes: Int) -> [UInt8] {
    var builder = HelloBuilder()
    let missing = messageBytes - builder.message.count
    builder.extensions.append((21, [UInt8](repeating: 0, count: missing - 4)))
    return builder.message
  }

  @Test func aHelloThatJustFitsIsRead() throws {
    // Four records' headers are 20 bytes.
    let bytes = HelloBuilder.records(
      padded(to: ClientHello.maximumBytes - 25), fragmentBytes: 16_000)
    #expect(bytes.count == ClientHello.maximumBytes)
    #expect(helloIn(bytes)?.serverName == "db.example")
    #expect(verdictOn(Array(bytes.dropLast())) == .incomplete)
  }

  @Test func oneByteMoreIsTooLarge() {
    let bytes = HelloBuilder.records(
      padded(to: ClientHello.maximumBytes - 24), fragmentBytes: 16_000)
    #expect(bytes.count == ClientHello.maximumBytes + 1)
    #expect(verdictOn(bytes) == .tooLarge)
    let (final, decidedAfter) = verdictsByteByByte(bytes)
    #expect(final == .tooLarge)
    #expect(decidedAfter <= ClientHello.maximumBytes)
  }

  @Test func sixteenMegabytesAreTooLargeAsSoonAsAnnounced() {
    #expect(verdictOn([22, 3, 1, 0x40, 0, 1, 0xff, 0xff]) == .incomplete)
    #expect(verdictOn([22, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff]) == .tooLarge)
  }

  @Test func recordHeadersCountTowardsTheLimit() {
    let bytes = HelloBuilder.records(padded(to: 20_000), fragmentBytes: 1)
    let (final, decidedAfter) = verdictsByteByByte(bytes)
    #expect(final == .tooLarge)
    #expect(decidedAfter <= ClientHello.maximumBytes)
    #expect(verdictOn(bytes) == .tooLarge)
  }
}
