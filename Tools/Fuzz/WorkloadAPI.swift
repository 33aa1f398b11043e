import Identity

@testable import WorkloadAPI

/// The first byte chooses what the others are: what an agent sends on its connection, one message,
/// or what a client sends to an agent.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = UnsafeRawBufferPointer(start: start, count: count)
  guard let choice = bytes.first else { return 0 }
  let rest = UnsafeRawBufferPointer(rebasing: bytes.dropFirst())
  switch choice % 8 {
  case 0, 1: call(.x509SVID, rest)
  case 2, 3: call(.x509Bundles, rest)
  case 4: if let response = try? X509SVIDResponse(decoding: rest) { check(response) }
  case 5: if let response = try? X509BundlesResponse(decoding: rest) { check(response) }
  default: serve(rest)
  }
  return 0
}

/// The first byte says in what pieces the others come.
private func call(_ stream: WorkloadStream, _ bytes: UnsafeRawBufferPointer) {
  var call = WorkloadCall(stream)
  let request = call.takeOutput()
  precondition(request.starts(with: "PRI * HTTP/2.0".utf8))
  var hasEnded = false
  var discarded = 0
  inPieces(bytes) { piece in
    for outcome in call.receive(piece) {
      precondition(!hasEnded, "an outcome after the end")
      switch outcome {
      case .svids(let response): check(response)
      case .bundles(let response): check(response)
      case .discarded: discarded += 1
      case .ended(let end):
        hasEnded = true
        precondition(end.detail.unicodeScalars.count < 1000)
        precondition(end.detail.unicodeScalars.allSatisfy { $0.value >= 32 && $0.value != 127 })
      }
    }
    _ = call.takeOutput()
  }
  precondition(discarded <= WorkloadCall.discardedMaximum)
}

/// An agent that answers everything, and ends every other call.
private func serve(_ bytes: UnsafeRawBufferPointer) {
  let connection = GRPCConnection(.server, messageMaximumBytes: 1024)
  inPieces(bytes) { piece in
    guard connection.receive(piece) else { return }
    for event in connection.takeEvents() {
      switch event {
      case .headers(let stream, let headers):
        if headers[.workload] == "true" { connection.respond(stream) }
      case .message(let stream, let message):
        let copy = message.withBytes { Array($0) }
        connection.send(stream, MessageReader.framed(copy.count) { $0.append(copy) })
      case .ended(let stream, _, _):
        if stream & 2 == 0 { connection.finish(stream, GRPCStatus(.ok, "done %\u{1}é")) }
      case .faulty(let stream, _): connection.finish(stream, GRPCStatus(.internal, ""))
      case .reset, .closed, .goAway, .pong: break
      }
    }
    precondition(connection.streams.count <= Int(GRPCConnection.streamsMaximum))
    _ = connection.takeOutput()
  }
}

private func inPieces(_ bytes: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void) {
  guard let first = bytes.first else { return }
  let size = first == 0 ? bytes.count : Int(first)
  for start in stride(from: 1, to: bytes.count, by: size) {
    body(UnsafeRawBufferPointer(rebasing: bytes[start..<min(start + size, bytes.count)]))
  }
}

private func check(_ response: X509SVIDResponse) {
  precondition((1...WorkloadLimits.svidsMaximum).contains(response.svids.count))
  let hints = response.svids.map(\.hint).filter { !$0.isEmpty }
  precondition(Set(hints).count == hints.count, "two SVIDs with one hint")
  for svid in response.svids {
    precondition(!svid.id.path.isEmpty && !svid.certificates.isEmpty && !svid.bundle.isEmpty)
    precondition(svid.privateKey.count > 0)
  }
  check(response.federatedBundles)
}

private func check(_ response: X509BundlesResponse) { check(response.bundles) }

private func check(_ bundles: [TrustDomainBundle]) {
  precondition(bundles.count <= WorkloadLimits.bundlesMaximum)
  precondition(zip(bundles, bundles.dropFirst()).allSatisfy { $0.trustDomain < $1.trustDomain })
  precondition(bundles.allSatisfy { !$0.certificates.isEmpty })
}
