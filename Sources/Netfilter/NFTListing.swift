internal import CNetfilter
internal import Net

/// What one message of a listing says.
enum NFTListing {
  /// Whether it carries culvert-init's comment.
  static func isOurs(_ message: [UInt8]) -> Bool {
    let table = unsafe allocated(nftnl_table_alloc())
    defer { unsafe nftnl_table_free(table) }
    guard unsafe message.withHeader({ unsafe nftnl_table_nlmsg_parse($0, table) }) == 0 else {
      return false
    }
    var length: UInt32 = 0
    guard
      let data = unsafe nftnl_table_get_data(
        table, UInt16(NFTNL_TABLE_USERDATA.rawValue), &length)
    else { return false }
    let bytes = unsafe Array(UnsafeRawBufferPointer(start: data, count: Int(length)))
    return bytes.dropFirst(2) == (Array(Table.comment.utf8) + [0])[...]
  }

  /// A chain without its rules, if it is of the table `inet culvert`; `name` alone if it is of a
  /// kind culvert-init never writes.
  static func chain(_ message: [UInt8]) -> (name: String, chain: Chain?)? {
    let object = unsafe allocated(nftnl_chain_alloc())
    defer { unsafe nftnl_chain_free(object) }
    guard unsafe message.withHeader({ unsafe nftnl_chain_nlmsg_parse($0, object) }) == 0 else {
      return nil
    }
    func text(_ attribute: nftnl_chain_attr) -> String {
      unsafe nftnl_chain_get_str(object, UInt16(attribute.rawValue))
        .map { unsafe String(cString: $0) } ?? ""
    }
    guard text(NFTNL_CHAIN_TABLE) == Table.name else { return nil }
    let name = text(NFTNL_CHAIN_NAME)
    // A number that is absent is not asked for: libnftnl would read through a null pointer.
    func number(_ attribute: nftnl_chain_attr) -> UInt32? {
      let attribute = UInt16(attribute.rawValue)
      return unsafe nftnl_chain_is_set(object, attribute)
        ? unsafe nftnl_chain_get_u32(object, attribute) : nil
    }
    guard let kind = Chain.Kind(rawValue: text(NFTNL_CHAIN_TYPE)),
      let hook = Hook.allCases.first(where: { $0.number == number(NFTNL_CHAIN_HOOKNUM) }),
      number(NFTNL_CHAIN_PRIO) == UInt32(bitPattern: kind.priority),
      number(NFTNL_CHAIN_POLICY) == UInt32(NF_ACCEPT)
    else { return (name, nil) }
    return (name, Chain(name, kind, hook, []))
  }

  static func setName(_ message: [UInt8]) -> (name: String, type: UInt32)? {
    let set = unsafe allocated(nftnl_set_alloc())
    defer { unsafe nftnl_set_free(set) }
    // libnftnl reads through a null pointer where a number is absent.
    func number(_ attribute: nftnl_set_attr) -> UInt32 {
      let attribute = UInt16(attribute.rawValue)
      return unsafe nftnl_set_is_set(set, attribute) ? nftnl_set_get_u32(set, attribute) : 0
    }
    guard unsafe message.withHeader({ unsafe nftnl_set_nlmsg_parse($0, set) }) == 0,
      let name = unsafe nftnl_set_get_str(set, UInt16(NFTNL_SET_NAME.rawValue))
    else { return nil }
    let isInterval = number(NFTNL_SET_FLAGS) & UInt32(NFT_SET_INTERVAL.rawValue) != 0
    return (unsafe String(cString: name), isInterval ? number(NFTNL_SET_KEY_TYPE) : 0)
  }

  static func elements(_ message: [UInt8]) -> [(key: [UInt8], isEnd: Bool)] {
    let set = unsafe allocated(nftnl_set_alloc())
    defer { unsafe nftnl_set_free(set) }
    guard unsafe message.withHeader({ unsafe nftnl_set_elems_nlmsg_parse($0, set) }) == 0,
      let iterator = unsafe nftnl_set_elems_iter_create(set)
    else { return [] }
    defer { unsafe nftnl_set_elems_iter_destroy(iterator) }
    var result: [(key: [UInt8], isEnd: Bool)] = []
    while let element = unsafe nftnl_set_elems_iter_next(iterator) {
      var length: UInt32 = 0
      guard
        let key = unsafe nftnl_set_elem_get(
          element, UInt16(NFTNL_SET_ELEM_KEY), &length)
      else { continue }
      let flags =
        unsafe nftnl_set_elem_is_set(element, UInt16(NFTNL_SET_ELEM_FLAGS))
        ? unsafe nftnl_set_elem_get_u32(element, UInt16(NFTNL_SET_ELEM_FLAGS)) : 0
      result.append(
        (
          unsafe Array(UnsafeRawBufferPointer(start: key, count: Int(length))),
          flags & UInt32(NFT_SET_ELEM_INTERVAL_END.rawValue) != 0
        ))
    }
    return result
  }

  static func rule(
    _ message: [UInt8], sets: [String: SetReference]
  ) -> (chain: String, expressions: [Expression])? {
    let rule = unsafe allocated(nftnl_rule_alloc())
    defer { unsafe nftnl_rule_free(rule) }
    guard unsafe message.withHeader({ unsafe nftnl_rule_nlmsg_parse($0, rule) }) == 0,
      let table = unsafe nftnl_rule_get_str(rule, UInt16(NFTNL_RULE_TABLE.rawValue)),
      unsafe String(cString: table) == Table.name,
      let chain = unsafe nftnl_rule_get_str(rule, UInt16(NFTNL_RULE_CHAIN.rawValue)),
      let iterator = unsafe nftnl_expr_iter_create(rule)
    else { return nil }
    defer { unsafe nftnl_expr_iter_destroy(iterator) }
    var expressions: [Expression] = []
    while let expression = unsafe nftnl_expr_iter_next(iterator) {
      expressions.append(unsafe Expression(expression, sets: sets))
    }
    return (unsafe String(cString: chain), expressions)
  }

  /// A request for the table itself, or for the list of its chains, rules or sets.
  static func request(
    _ kind: Kind, _ flags: UInt16, _ sequence: UInt32
  ) -> [UInt8] {
    unsafe netlinkMessage(maximumBytes: 4096) { unsafe write(kind, $0, flags, sequence) }
  }

  private static func write(
    _ kind: Kind, _ buffer: UnsafeMutablePointer<CChar>, _ flags: UInt16, _ sequence: UInt32
  ) {
    let type: nf_tables_msg_types
    switch kind {
    case .table: type = NFT_MSG_GETTABLE
    case .chains: type = NFT_MSG_GETCHAIN
    case .rules: type = NFT_MSG_GETRULE
    case .sets: type = NFT_MSG_GETSET
    case .elements: type = NFT_MSG_GETSETELEM
    }
    let header = unsafe nftnl_nlmsg_build_hdr(
      buffer, UInt16(type.rawValue), UInt16(NFPROTO_INET), flags, sequence)
    switch kind {
    case .table, .sets:
      // NFTA_TABLE_NAME and NFTA_SET_TABLE are both 1 (linux/netfilter/nf_tables.h).
      unsafe mnl_attr_put_strz(header, UInt16(NFTA_TABLE_NAME.rawValue), Table.name)
    case .chains: unsafe mnl_attr_put_strz(header, UInt16(NFTA_CHAIN_TABLE.rawValue), Table.name)
    case .rules: unsafe mnl_attr_put_strz(header, UInt16(NFTA_RULE_TABLE.rawValue), Table.name)
    case .elements(let set):
      unsafe mnl_attr_put_strz(
        header, UInt16(NFTA_SET_ELEM_LIST_TABLE.rawValue), Table.name)
      unsafe mnl_attr_put_strz(header, UInt16(NFTA_SET_ELEM_LIST_SET.rawValue), set)
    }
  }

  enum Kind {
    case table, chains, rules, sets
    /// The elements of this set.
    case elements(String)
  }
}

extension SetReference {
  /// From the elements of a set with this type of key, in any order.
  init(type: UInt32, elements: [(key: [UInt8], isEnd: Bool)], name: String) {
    let bits: Int
    switch type {
    case ElementType.port: bits = 16
    case ElementType.address4: bits = 32
    case ElementType.address6: bits = 128
    default:
      self = .unknown(name)
      return
    }
    let last = UInt128.max >> UInt128(128 - bits)
    var sorted: [(value: UInt128, isEnd: Bool)] = []
    for (key, isEnd) in elements where key.count == bits / 8 {
      sorted.append((key.reduce(UInt128(0)) { $0 << 8 | UInt128($1) }, isEnd))
    }
    // Where one range ends and the next begins at one value, the end comes first.
    sorted.sort { ($0.value, $0.isEnd ? 0 : 1) < ($1.value, $1.isEnd ? 0 : 1) }
    var ranges: [ClosedRange<UInt128>] = []
    for (index, element) in sorted.enumerated() where !element.isEnd {
      let end = sorted.dropFirst(index + 1).first.map { $0.value - 1 } ?? last
      guard end >= element.value else { continue }
      ranges.append(element.value...end)
    }
    switch type {
    case ElementType.port:
      self = .ports(
        PortSet(
          ranges.map {
            UInt16(truncatingIfNeeded: $0.lowerBound)...UInt16(truncatingIfNeeded: $0.upperBound)
          }))
    case ElementType.address4: self = .addresses(AddressSet(.v4, ranges: ranges))
    default: self = .addresses(AddressSet(.v6, ranges: ranges))
    }
  }
}

extension Expression {
  /// Reads what the kernel lists.
  fileprivate init(_ object: OpaquePointer, sets: [String: SetReference]) {
    func isSet(_ attribute: Int) -> Bool { unsafe nftnl_expr_is_set(object, UInt16(attribute)) }
    func number(_ attribute: Int) -> UInt32 {
      isSet(attribute) ? unsafe nftnl_expr_get_u32(object, UInt16(attribute)) : 0
    }
    func data(_ attribute: Int) -> [UInt8] {
      var length: UInt32 = 0
      guard let bytes = unsafe nftnl_expr_get(object, UInt16(attribute), &length) else { return [] }
      return unsafe Array(UnsafeRawBufferPointer(start: bytes, count: Int(length)))
    }
    let name =
      unsafe nftnl_expr_get_str(object, UInt16(NFTNL_EXPR_NAME))
      .map { unsafe String(cString: $0) } ?? ""
    switch name {
    case "meta" where isSet(NFTNL_EXPR_META_DREG): self = .meta(number(NFTNL_EXPR_META_KEY))
    case "payload" where isSet(NFTNL_EXPR_PAYLOAD_DREG):
      self = .payload(
        base: number(NFTNL_EXPR_PAYLOAD_BASE), offset: number(NFTNL_EXPR_PAYLOAD_OFFSET),
        length: number(NFTNL_EXPR_PAYLOAD_LEN))
    case "ct" where isSet(NFTNL_EXPR_CT_DREG):
      let direction =
        isSet(NFTNL_EXPR_CT_DIR)
        ? unsafe nftnl_expr_get_u8(object, UInt16(NFTNL_EXPR_CT_DIR)) : nil
      self = .connection(number(NFTNL_EXPR_CT_KEY), direction: direction)
    case "ct" where number(NFTNL_EXPR_CT_KEY) == UInt32(NFT_CT_MARK.rawValue):
      self = .setConnectionMark
    case "fib" where number(NFTNL_EXPR_FIB_RESULT) == UInt32(NFT_FIB_RESULT_ADDRTYPE.rawValue):
      self = .addressType(flags: number(NFTNL_EXPR_FIB_FLAGS))
    case "bitwise" where isSet(NFTNL_EXPR_BITWISE_MASK):
      self = .bitwise(mask: data(NFTNL_EXPR_BITWISE_MASK), xor: data(NFTNL_EXPR_BITWISE_XOR))
    case "cmp" where number(NFTNL_EXPR_CMP_OP) <= UInt32(NFT_CMP_NEQ.rawValue):
      self = .compare(
        data(NFTNL_EXPR_CMP_DATA),
        negated: number(NFTNL_EXPR_CMP_OP) == UInt32(NFT_CMP_NEQ.rawValue))
    case "lookup":
      let set =
        unsafe nftnl_expr_get_str(object, UInt16(NFTNL_EXPR_LOOKUP_SET))
        .map { unsafe String(cString: $0) } ?? ""
      self = .lookup(
        sets[set] ?? .unknown(set),
        negated: number(NFTNL_EXPR_LOOKUP_FLAGS) & UInt32(NFT_LOOKUP_F_INV.rawValue) != 0)
    case "immediate" where isSet(NFTNL_EXPR_IMM_VERDICT):
      self = .verdict(Int32(bitPattern: number(NFTNL_EXPR_IMM_VERDICT)))
    case "immediate": self = .load(data(NFTNL_EXPR_IMM_DATA))
    case "redir": self = .redirect
    default: self = .unknown(name)
    }
  }
}
