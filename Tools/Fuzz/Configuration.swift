import Configuration
import Identity
import Policy

/// A text is settings or one error of one line, with its place in the text.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  do throws(ConfigurationError) {
    let settings = try Settings.parse(yaml: bytes, file: "fuzz", directory: "/etc/culvert")
    let ports = settings.listeners
    precondition(Set([ports.outboundPort, ports.inboundPort, ports.meshPort]).count == 3)
    precondition(settings.adminSocket.hasPrefix("/") && settings.adminSocket.utf8.count <= 107)
    precondition(settings.identity.privateKey.hasPrefix("/") && !settings.trustBundles.isEmpty)
    let domains = Set(settings.trustBundles.map(\.trustDomain))
    for id in settings.outbound.rules.flatMap(\.expect) + settings.outbound.peers.map(\.identity) {
      precondition(domains.contains(id.trustDomain) && !id.path.isEmpty)
    }
  } catch {
    precondition((error.line ?? 0) >= 1 && (error.column ?? 0) >= 1)
    let lines = bytes.count { $0 == 10 || $0 == 13 || $0 == 0x85 || $0 == 0xa8 || $0 == 0xa9 } + 2
    precondition((error.line ?? 0) <= lines, "beyond the text")
    precondition(!error.description.utf8.contains { $0 < 0x20 }, "more than one line")
  }
  return 0
}
