import Identity

/// A text is a bundle, a map of bundles, or refused with one line; what is taken is within bounds.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(SPIFFEBundleError) {
    check(try SPIFFEBundle(jwks: bytes))
  } catch {
    check(error)
  }
  do throws(SPIFFEBundleError) {
    let map = try SPIFFEBundleMap(document: bytes)
    precondition(map.bundles.count <= SPIFFEBundleMap.maximumTrustDomains)
    for bundle in map.bundles.values { check(bundle) }
  } catch {
    check(error)
  }
  if let decoded = Base64.decode(String(decoding: bytes, as: UTF8.self)) {
    precondition(Array(Base64.encode(decoded).utf8) == bytes, "more than one form")
  }
  return 0
}

private func check(_ bundle: SPIFFEBundle) {
  precondition(
    bundle.x509Authorities.count + bundle.ignoredKeys <= SPIFFEBundle.maximumKeys)
  precondition(bundle.x509Authorities.allSatisfy { !$0.isEmpty })
  precondition((bundle.refreshHintSeconds ?? 1) > 0)
}

private func check(_ error: SPIFFEBundleError) {
  precondition(error.description.utf8.allSatisfy { (0x20...0x7e).contains($0) }, "not one line")
}
