import Sniff

/// Whatever the bytes are: no trap, and the verdict depends neither on how they arrive nor, for a
/// hello, on how it is cut into records.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  let whole = classify(bytes.span.bytes)

  // Splits derived from the input, so that a finding repeats.
  var state = bytes.reduce(UInt64(count) &+ 1) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
  func next(_ bound: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int(state >> 33) % bound
  }
  var scan = ClientHelloScan()
  var arrived = 0
  let largestSegment = 1 + next(64)
  while true {
    let verdict = scan.classify(bytes.span.bytes.extracting(first: arrived))
    let isSame = verdict == classify(bytes.span.bytes.extracting(first: arrived))
    precondition(isSame, "a scan and a single look differ")
    if verdict != .incomplete {
      precondition(verdict == whole, "later bytes changed the verdict")
      break
    }
    if arrived == count {
      precondition(whole == .incomplete, "the last bytes changed nothing but the verdict")
      break
    }
    arrived = min(count, arrived + 1 + next(largestSegment))
  }

  if case .tls(let hello) = whole { checkRecut(bytes, hello, fragmentBytes: 1 + next(600)) }
  return 0
}

/// The same message in records of another size is the same hello.
private func checkRecut(_ bytes: [UInt8], _ hello: ClientHello, fragmentBytes: Int) {
  precondition((1...bytes.count).contains(hello.recordBytes))
  precondition(hello.alpn.count <= ClientHello.maximumListed)
  precondition(hello.versions.count <= ClientHello.maximumListed)
  let isPrintable = ([hello.serverName ?? ""] + hello.alpn).joined().utf8
    .allSatisfy { (0x20...0x7e).contains($0) }
  precondition(isPrintable)

  var message: [UInt8] = []
  var offset = 0
  while offset < hello.recordBytes {
    let length = Int(bytes[offset + 3]) << 8 | Int(bytes[offset + 4])
    message += bytes[offset + 5..<offset + 5 + length]
    offset += 5 + length
  }
  var recut: [UInt8] = []
  for start in stride(from: 0, to: message.count, by: fragmentBytes) {
    let fragment = message[start..<min(start + fragmentBytes, message.count)]
    recut += [22, 3, 3, UInt8(fragment.count >> 8), UInt8(fragment.count & 255)] + fragment
  }
  guard recut.count <= ClientHello.maximumBytes else { return }
  let expected = ClientHello(
    serverName: hello.serverName, alpn: hello.alpn, versions: hello.versions,
    offersMesh: hello.offersMesh, recordBytes: recut.count)
  precondition(classify(recut.span.bytes) == .tls(expected), "another cut, another hello")
}
