internal import Net

/// The text `nft list table inet culvert` prints for the same rules (nftables 1.0.6).
extension Table: CustomStringConvertible {
  package var description: String {
    "table inet \(Table.name) {\n\tcomment \"\(Table.comment)\"\n"
      + chains.map(\.description).joined(separator: "\n") + "}\n"
  }
}

extension Chain: CustomStringConvertible {
  package var description: String {
    "\tchain \(name) {\n\t\ttype \(kind.rawValue) hook \(hook.rawValue) "
      + "priority \(priorityText); policy accept;\n"
      + rules.map { "\t\t\($0)\n" }.joined() + "\t}\n"
  }

  /// nft knows the name `dstnat` at prerouting only.
  private var priorityText: String {
    switch (kind, hook) {
    case (.filter, _): "filter"
    case (.nat, .prerouting): "dstnat"
    case (.nat, _): "\(kind.priority)"
    }
  }
}

extension Rule: CustomStringConvertible {
  package var description: String {
    (matches.map(\.description) + [statement.description]).joined(separator: " ")
  }
}

extension Statement: CustomStringConvertible {
  package var description: String {
    switch self {
    case .pass: "return"
    case .drop: "drop"
    case .redirect(let port): "redirect to :\(port)"
    case .markConnection(let mark):
      // nft leaves out a mask of ones only.
      "ct mark set ct mark "
        + (mark == .max ? "" : "& 0x\(hexadecimal(0xffff_0000 | UInt32(mark))) ")
        + "| 0x\(hexadecimal(UInt32(mark)))"
    }
  }
}

extension Match: CustomStringConvertible {
  package var description: String {
    switch self {
    case .transport(let transport, let negated): "meta l4proto \(negated ? "!= " : "")\(transport)"
    case .family(let family): "meta nfproto \(family == .v4 ? "ipv4" : "ipv6")"
    case .mark(let mark): "meta mark & 0x0000ffff == 0x\(hexadecimal(UInt32(mark)))"
    case .connectionMark(let mark): "ct mark & 0x0000ffff == 0x\(hexadecimal(UInt32(mark)))"
    case .loopback(let way): "\(way == .incoming ? "iif" : "oif") \"lo\""
    case .forwarded: "iif != 0"
    case .interface(let way, let name):
      "\(way == .incoming ? "iifname" : "oifname") \"\(name)\""
    case .user(let user): "meta skuid \(user)"
    case .group(let group): "meta skgid \(group)"
    case .destination(let set, let negated):
      "\(set.family == .v4 ? "ip" : "ip6") daddr \(negated ? "!= " : "")" + "{ \(set) }"
    case .port(let end, let set, let negated):
      "tcp \(end == .source ? "sport" : "dport") \(negated ? "!= " : "")"
        + "{ \(set.description.replacingCommas) }"
    case .flag(let flag): "tcp flags & \(flag) == \(flag)"
    case .replyDirection: "ct direction reply"
    case .originalPort(let port): "ct original proto-dst \(port)"
    case .localDestination: "fib daddr type local"
    }
  }
}

extension AddressSet: CustomStringConvertible {
  package var description: String {
    ranges.map { range in
      let low = address(range.lowerBound)
      if range.lowerBound == range.upperBound { return low.description }
      let size = range.upperBound - range.lowerBound
      let hostBits = size.leadingZeroBitCount == 0 ? 128 : 128 - size.leadingZeroBitCount
      let isPrefix = size & (size &+ 1) == 0 && range.lowerBound & size == 0
      return isPrefix
        ? "\(low)/\(family.bitCount - hostBits)" : "\(low)-\(address(range.upperBound))"
    }.joined(separator: ", ")
  }
}

extension String {
  fileprivate var replacingCommas: String {
    split(separator: ",").joined(separator: ", ")
  }
}

/// Eight digits.
private func hexadecimal(_ value: UInt32) -> String {
  let digits = String(value, radix: 16)
  return String(repeating: "0", count: 8 - digits.count) + digits
}
