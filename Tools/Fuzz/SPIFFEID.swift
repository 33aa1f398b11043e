import Identity

/// A text is refused, or it is a SPIFFE ID in its one valid form.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  guard let id = try? SPIFFEID(String(decoding: bytes, as: UTF8.self)) else { return 0 }
  precondition(Array(id.description.utf8) == bytes, "normalised")
  precondition(bytes.count <= SPIFFEID.maximumBytes)
  let isPlain = bytes.allSatisfy { (0x2d...0x7a).contains($0) && $0 != UInt8(ascii: "?") }
  precondition(isPlain, "a character that is not allowed")
  precondition(id.path.isEmpty || id.path.hasPrefix("/") && !id.path.hasSuffix("/"))
  precondition(!(id.path + "/").contains("/../") && !(id.path + "/").contains("/./"))
  precondition(!id.path.contains("//"))
  return 0
}
