import Net

@testable import Federation

/// Bytes as a response, as a request and as a URL, in pieces: each is complete, wants more or is
/// refused with one line, within its bounds, and stays so.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let pieceBytes = bytes.first.map({ Int($0) + 1 }) else { return 0 }
  let text = bytes.dropFirst()
  check(.response, text, pieceBytes)
  check(.request, text, pieceBytes)
  checkURL(String(decoding: text, as: UTF8.self))
  return 0
}

private let maximumBodyBytes = 512
private let maximumOtherBytes = 1024

private func check(_ kind: HTTPReader.Kind, _ text: ArraySlice<UInt8>, _ pieceBytes: Int) {
  let reader = HTTPReader(
    kind, maximumBodyBytes: maximumBodyBytes, maximumOtherBytes: maximumOtherBytes)
  var rest = text
  var step = HTTPReader.Step.needsMore
  while step == .needsMore, !rest.isEmpty {
    step = reader.feed(rest.prefix(pieceBytes))
    rest = rest.dropFirst(pieceBytes)
  }
  if step == .needsMore { step = reader.feed([]) }
  precondition(step != .needsMore, "an end that ends nothing")
  precondition(reader.body.count <= maximumBodyBytes)
  precondition(reader.body.isEmpty || kind == .response && reader.status == 200)
  if case .failed(.malformed(let detail)) = step {
    precondition(detail.utf8.allSatisfy { (0x20...0x7e).contains($0) }, "not one line")
  }
  if step == .complete { precondition(reader.feed([0x20]) == .complete) }
}

private func checkURL(_ text: String) {
  let base: HTTPSURL
  do throws(HTTPSURLError) {
    base = try HTTPSURL("https://a.example/b/c?d")
  } catch {
    preconditionFailure("a URL")
  }
  for url in [try? HTTPSURL(text), try? base.resolve(location: text)] {
    guard let url else { continue }
    precondition(url.path.hasPrefix("/") && url.port > 0 && !url.host.isEmpty)
    precondition(url.description.utf8.allSatisfy { (0x21...0x7e).contains($0) })
    precondition((try? HTTPSURL(url.description)) == url, "not the same URL again")
  }
}
