internal import CNetfilter
internal import Net

/// One step of a rule as the kernel's nf_tables machine knows it. Every step reads and writes the
/// same register, so registers are left out.
enum Expression: Hashable {
  case meta(UInt32)
  case payload(base: UInt32, offset: UInt32, length: UInt32)
  /// `direction` is 0 for the connection's original tuple; nil where the key has none.
  case connection(UInt32, direction: UInt8?)
  case addressType(flags: UInt32)
  case bitwise(mask: [UInt8], xor: [UInt8])
  case compare([UInt8], negated: Bool)
  case lookup(SetReference, negated: Bool)
  case load([UInt8])
  case verdict(Int32)
  case redirect
  case setConnectionMark
  /// Something culvert-init never writes; the name the kernel gives it.
  case unknown(String)
}

/// The set a rule looks up: what it holds.
enum SetReference: Hashable {
  case ports(PortSet)
  case addresses(AddressSet)
  case unknown(String)
}

// Register contents are in network byte order where they come from a packet's headers, else in
// the machine's.
private func native(_ value: UInt32) -> [UInt8] {
  let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
  return value.littleEndian == value ? bytes : bytes.reversed()
}

private func network(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 255)] }

extension Expression {
  private static let transport = Expression.meta(UInt32(NFT_META_L4PROTO.rawValue))
  private static let family = Expression.meta(UInt32(NFT_META_NFPROTO.rawValue))
  private static let mark = Expression.meta(UInt32(NFT_META_MARK.rawValue))
  private static let connectionMark = connection(UInt32(NFT_CT_MARK.rawValue), direction: nil)
  private static let lowMask = bitwise(mask: native(Mark.mask), xor: native(0))

  private static func isTransport(_ transport: Match.Transport) -> [Expression] {
    [Self.transport, .compare([transport.rawValue], negated: false)]
  }

  private static func isFamily(_ family: IPAddress.Family) -> [Expression] {
    [Self.family, .compare([UInt8(family == .v4 ? NFPROTO_IPV4 : NFPROTO_IPV6)], negated: false)]
  }

  /// The steps of one rule. A match on a header field needs the protocol known first, once.
  static func list(_ rule: Rule) -> [Expression] {
    var result: [Expression] = []
    var knowsTCP = false
    for match in rule.matches {
      if match.readsTCPHeader, !knowsTCP {
        result += isTransport(.tcp)
        knowsTCP = true
      }
      result += steps(match)
    }
    switch rule.statement {
    case .pass: result.append(.verdict(NFT_RETURN.rawValue))
    case .drop: result.append(.verdict(NF_DROP))
    case .redirect(let port): result += [.load(network(port)), .redirect]
    case .markConnection(let mark):
      result += [
        connectionMark, .bitwise(mask: native(~Mark.mask), xor: native(UInt32(mark))),
        .setConnectionMark,
      ]
    }
    return result
  }

  private static func steps(_ match: Match) -> [Expression] {
    switch match {
    case .transport(let transport, let negated):
      [Self.transport, .compare([transport.rawValue], negated: negated)]
    case .family(let family): isFamily(family)
    case .mark(let mark): [Self.mark, lowMask, .compare(native(UInt32(mark)), negated: false)]
    case .connectionMark(let mark):
      [connectionMark, lowMask, .compare(native(UInt32(mark)), negated: false)]
    case .loopback(let way):
      [.meta(index(way)), .compare(native(loopbackIndex), negated: false)]
    case .forwarded: [.meta(index(.incoming)), .compare(native(0), negated: true)]
    case .interface(let way, let name):
      [.meta(Self.name(way)), .compare(padded(name), negated: false)]
    case .user(let user):
      [.meta(UInt32(NFT_META_SKUID.rawValue)), .compare(native(user), negated: false)]
    case .group(let group):
      [.meta(UInt32(NFT_META_SKGID.rawValue)), .compare(native(group), negated: false)]
    case .destination(let set, let negated):
      isFamily(set.family) + [destination(set.family), .lookup(.addresses(set), negated: negated)]
    case .port(let end, let ports, let negated):
      [port(end), .lookup(.ports(ports), negated: negated)]
    case .flag(let flag):
      [
        flags, .bitwise(mask: [flag.rawValue], xor: [0]),
        .compare([flag.rawValue], negated: false),
      ]
    case .replyDirection: [direction, .compare([1], negated: false)]
    case .originalPort(let port): [originalPort, .compare(network(port), negated: false)]
    case .localDestination: [destinationType, .compare(native(localType), negated: false)]
    }
  }

  /// The loopback interface is the first of every network namespace.
  private static let loopbackIndex: UInt32 = 1
  /// RTN_LOCAL (linux/rtnetlink.h).
  private static let localType: UInt32 = 2
  private static let direction = connection(UInt32(NFT_CT_DIRECTION.rawValue), direction: nil)
  private static let originalPort = connection(UInt32(NFT_CT_PROTO_DST.rawValue), direction: 0)
  private static let destinationType = addressType(flags: UInt32(NFTA_FIB_F_DADDR.rawValue))
  private static let flags = payload(
    base: UInt32(NFT_PAYLOAD_TRANSPORT_HEADER.rawValue), offset: 13, length: 1)

  private static func index(_ way: Match.Way) -> UInt32 {
    UInt32((way == .incoming ? NFT_META_IIF : NFT_META_OIF).rawValue)
  }

  private static func name(_ way: Match.Way) -> UInt32 {
    UInt32((way == .incoming ? NFT_META_IIFNAME : NFT_META_OIFNAME).rawValue)
  }

  /// IFNAMSIZ bytes; all are compared, so a name is no prefix of another.
  private static func padded(_ name: String) -> [UInt8] {
    Array(name.utf8) + [UInt8](repeating: 0, count: max(0, 16 - name.utf8.count))
  }

  private static func port(_ end: Match.End) -> Expression {
    .payload(
      base: UInt32(NFT_PAYLOAD_TRANSPORT_HEADER.rawValue), offset: end.rawValue, length: 2)
  }

  private static func destination(_ family: IPAddress.Family) -> Expression {
    .payload(
      base: UInt32(NFT_PAYLOAD_NETWORK_HEADER.rawValue), offset: family == .v4 ? 16 : 24,
      length: UInt32(family.bitCount / 8))
  }
}

extension Match {
  fileprivate var readsTCPHeader: Bool {
    switch self {
    case .port, .flag: true
    default: false
    }
  }
}

extension Rule {
  /// Reads a rule back: the inverse of `Expression.list`; nil for what it never writes.
  init?(_ expressions: [Expression]) {
    var matches: [Match] = []
    var rest = expressions[...]
    while let match = Self.match(&rest) { matches.append(match) }
    guard let statement = Self.statement(rest) else { return nil }
    self.init(matches, statement)
    // A protocol test in front of a header field belongs to that field.
    for index in self.matches.indices.reversed()
    where self.matches[index] == .transport(.tcp)
      && self.matches.dropFirst(index + 1).first?.readsTCPHeader == true
    {
      self.matches.remove(at: index)
    }
    guard Expression.list(self) == expressions else { return nil }
  }

  private static func statement(_ rest: ArraySlice<Expression>) -> Statement? {
    let rest = Array(rest)
    if rest == [.verdict(NFT_RETURN.rawValue)] { return .pass }
    if rest == [.verdict(NF_DROP)] { return .drop }
    if rest.count == 2, case .load(let bytes) = rest[0], bytes.count == 2, rest[1] == .redirect {
      return .redirect(UInt16(bytes[0]) << 8 | UInt16(bytes[1]))
    }
    if rest.count == 3, case .bitwise(_, let xor) = rest[1], rest[2] == .setConnectionMark {
      return .markConnection(UInt16(truncatingIfNeeded: number(xor)))
    }
    return nil
  }

  /// Takes the expressions of one match off the front. It may guess: the caller encodes the result
  /// again and compares.
  private static func match(_ rest: inout ArraySlice<Expression>) -> Match? {
    let steps = Array(rest.prefix(4))
    guard steps.count > 1 else { return nil }
    var length = 2
    let match: Match?
    switch (steps[0], steps[1]) {
    case (.meta(let key), .compare(let bytes, let negated)):
      (match, length) = meta(key, bytes, negated, steps.dropFirst(2))
    case (.meta, .bitwise), (.connection, .bitwise), (.payload, .bitwise):
      (match, length) = (masked(steps), 3)
    case (.payload(_, let offset, _), .lookup(.ports(let ports), let negated)):
      match = Match.End(rawValue: offset).map { .port($0, ports, negated: negated) }
    case (.connection(_, let direction), .compare(let bytes, _)):
      match = direction == nil ? .replyDirection : .originalPort(networkNumber(bytes))
    case (.addressType, .compare): match = .localDestination
    default: match = nil
    }
    if match != nil { rest = rest.dropFirst(length) }
    return match
  }

  private static func masked(_ steps: [Expression]) -> Match? {
    guard steps.count > 2, case .compare(let bytes, _) = steps[2] else { return nil }
    switch steps[0] {
    case .meta: return .mark(UInt16(truncatingIfNeeded: number(bytes)))
    case .connection: return .connectionMark(UInt16(truncatingIfNeeded: number(bytes)))
    default: return bytes.first.flatMap(Match.Flag.init(rawValue:)).map { .flag($0) }
    }
  }

  /// The match and how many expressions it takes.
  private static func meta(
    _ key: UInt32, _ bytes: [UInt8], _ negated: Bool, _ following: ArraySlice<Expression>
  ) -> (Match?, Int) {
    switch nft_meta_keys(key) {
    case NFT_META_L4PROTO:
      let transport = bytes.first.flatMap(Match.Transport.init(rawValue:))
      return (transport.map { .transport($0, negated: negated) }, 2)
    case NFT_META_NFPROTO:
      if following.count > 1, case .lookup(.addresses(let set), let negated) = following[3] {
        return (.destination(set, negated: negated), 4)
      }
      return (.family(bytes == [UInt8(NFPROTO_IPV4)] ? .v4 : .v6), 2)
    case NFT_META_IIF: return (negated ? .forwarded : .loopback(.incoming), 2)
    case NFT_META_OIF: return (.loopback(.outgoing), 2)
    case NFT_META_IIFNAME: return (.interface(.incoming, text(bytes)), 2)
    case NFT_META_OIFNAME: return (.interface(.outgoing, text(bytes)), 2)
    case NFT_META_SKUID: return (.user(number(bytes)), 2)
    case NFT_META_SKGID: return (.group(number(bytes)), 2)
    default: return (nil, 0)
    }
  }

  private static func text(_ bytes: [UInt8]) -> String {
    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }

  private static func networkNumber(_ bytes: [UInt8]) -> UInt16 {
    bytes.prefix(2).reduce(0) { $0 << 8 | UInt16($1) }
  }

  private static func number(_ bytes: [UInt8]) -> UInt32 {
    let bytes = native(1) == [1, 0, 0, 0] ? bytes.reversed() : bytes
    return bytes.suffix(4).reduce(0) { $0 << 8 | UInt32($1) }
  }
}
