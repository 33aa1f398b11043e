import Identity
import Net
import Policy

private let connections = 4

/// The bytes are rules, then connections: each is judged and explained as another evaluation of the
/// same rules says.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  var script = Script(bytes: Array(UnsafeBufferPointer(start: start, count: count)))
  let rules = (0..<script.byte() % 48).map { script.rule(number: Int($0)) }
  let authorization = Authorization(rules)
  let reference = Reference(rules: rules)
  for _ in 0..<connections {
    let facts = script.facts()
    let connection = Reference.Connection(facts)
    let matching = rules.map { Reference.matches($0, connection) }
    precondition(
      authorization.judge(facts) == reference.judge(matching: matching), "another verdict")
    precondition(authorization.explain(facts).map { $0 == nil } == matching, "another match")
  }
  return 0
}

private struct Script {
  let bytes: [UInt8]
  private var index = 0

  init(bytes: [UInt8]) { self.bytes = bytes }

  /// 0 beyond the end.
  mutating func byte() -> UInt8 {
    defer { index += 1 }
    return index < bytes.count ? bytes[index] : 0
  }

  mutating func rule(number: Int) -> AuthorizationRule {
    let kind = byte()
    var rule = AuthorizationRule(
      name: "r\(number)", action: kind & 1 == 0 ? .deny : .allow, isAudit: kind & 6 == 0)
    let fields = (byte(), byte())
    if fields.0 & 1 != 0 { rule.principals = list { $0.pattern { $0.id() } } }
    if fields.0 & 2 != 0 { rule.notPrincipals = list { $0.pattern { $0.id() } } }
    if fields.0 & 4 != 0 { rule.trustDomains = list { $0.pattern { $0.word() } } }
    if fields.0 & 8 != 0 { rule.notTrustDomains = list { $0.pattern { $0.word() } } }
    if fields.0 & 16 != 0 { rule.namespaces = list { $0.pattern { $0.word() } } }
    if fields.0 & 32 != 0 { rule.notNamespaces = list { $0.pattern { $0.word() } } }
    if fields.0 & 64 != 0 { rule.serviceAccounts = list { $0.pattern { $0.word() } } }
    if fields.0 & 128 != 0 { rule.notServiceAccounts = list { $0.pattern { $0.word() } } }
    if fields.1 & 1 != 0 { rule.sources = list { $0.range() } }
    if fields.1 & 2 != 0 { rule.notSources = list { $0.range() } }
    if fields.1 & 4 != 0 { rule.ports = PortSet(list { $0.ports() }) }
    if fields.1 & 8 != 0 { rule.notPorts = PortSet(list { $0.ports() }) }
    return rule
  }

  mutating func facts() -> AuthorizationFacts {
    AuthorizationFacts(principal: try? SPIFFEID(id()), source: address(), port: UInt16(byte()))
  }

  private mutating func list<Item>(_ item: (inout Script) -> Item) -> [Item] {
    (0...byte() % 3).map { _ in item(&self) }
  }

  /// Most are cut from a text that connections have, too.
  private mutating func pattern(_ text: (inout Script) -> String) -> TextPattern {
    let kind = byte()
    let text = text(&self).utf8
    switch kind & 3 {
    case 0: return .prefix(String(Substring(text.prefix(Int(kind >> 2)))))
    case 1: return .suffix(String(Substring(text.suffix(Int(kind >> 2)))))
    case 2 where kind >= 0xf0: return .present
    default: return .exact(String(text))
    }
  }

  /// A SPIFFE ID of one of several forms, or none.
  private mutating func id() -> String {
    let form = byte()
    let (domain, one, other) = (word(), word(), word())
    switch form & 7 {
    case 0: return ""
    case 1: return "spiffe://\(domain)"
    case 2: return "spiffe://\(domain)/\(one)/\(other)"
    case 3: return "spiffe://\(domain)/ns/\(one)/sa/\(other)/\(one)"
    default: return "spiffe://\(domain)/ns/\(one)/sa/\(other)"
    }
  }

  private mutating func word() -> String {
    let choice = byte()
    let words = ["a", "ab", "b", "demo.mesh", "demo.mesh.evil", "shop", "ns", "sa"]
    guard choice >= 0xf0 else { return words[Int(choice) % words.count] }
    return String(decoding: (0..<choice & 15).map { _ in byte() }, as: UTF8.self)
  }

  private mutating func address() -> IPAddress {
    let choice = byte()
    let low = UInt32(byte() & 31)
    return choice & 1 == 0 ? IPAddress(v4: 0x0a00_0000 | low) : IPAddress(v6: UInt128(low) << 100)
  }

  private mutating func range() -> CIDR {
    let address = address()
    let length = Int(byte()) % (address.family.bitCount + 1)
    return CIDR(address, prefixLength: length) ?? CIDR(address)
  }

  private mutating func ports() -> ClosedRange<UInt16> {
    let low = UInt16(byte())
    let width = byte()
    return low...low + (width >= 0xf0 ? 0xff00 : UInt16(width & 7))
  }
}
