internal import CNetfilter
internal import Net

// libnftnl's objects, written from values; NFTListing.swift reads them back. Their attributes are
// numbers of many anonymous C enumerations; none of them appears outside these two files.

/// nf_tables identifies the type of a set's elements by numbers that nft alone defines
/// (nftables `enum datatypes`); they make its listing readable.
enum ElementType {
  static let address4: UInt32 = 7
  static let address6: UInt32 = 8
  static let port: UInt32 = 13
}

/// Elements per message: a nested attribute holds at most 64 KiB.
private let elementsPerMessageMaximum = 500

extension SetReference {
  /// Half-open ranges as the kernel stores them: where each begins, and where it has ended unless
  /// it reaches the last value.
  fileprivate var elements: [(key: [UInt8], isEnd: Bool)] {
    switch self {
    case .ports(let ports):
      ports.ranges.flatMap { range in
        Self.elements(
          UInt128(range.lowerBound), UInt128(range.upperBound), bits: 16)
      }
    case .addresses(let set):
      set.ranges.flatMap { Self.elements($0.lowerBound, $0.upperBound, bits: set.family.bitCount) }
    case .unknown: []
    }
  }

  private static func elements(
    _ low: UInt128, _ high: UInt128, bits: Int
  ) -> [(key: [UInt8], isEnd: Bool)] {
    func key(_ value: UInt128) -> [UInt8] {
      stride(from: bits - 8, through: 0, by: -8).map {
        UInt8(truncatingIfNeeded: value >> UInt128($0))
      }
    }
    let start = (key: key(low), isEnd: false)
    let isLast = high == UInt128.max >> UInt128(128 - bits)
    return isLast ? [start] : [start, (key: key(high + 1), isEnd: true)]
  }

  fileprivate var elementType: (type: UInt32, bytes: UInt32) {
    switch self {
    case .ports: (ElementType.port, 2)
    case .addresses(let set):
      set.family == .v4 ? (ElementType.address4, 4) : (ElementType.address6, 16)
    case .unknown: (0, 0)
    }
  }
}

/// Writes one message of a batch into a buffer.
enum NFTMessage {
  case addTable
  case deleteTable
  case addChain(Chain)
  /// The set of the number-th lookup in the batch.
  case addSet(SetReference, number: UInt32)
  case addElements(ArraySlice<(key: [UInt8], isEnd: Bool)>, of: SetReference, number: UInt32)
  /// The sets its lookups use are numbered from `firstSet` on.
  case addRule([Expression], chain: String, firstSet: UInt32)

  /// The messages that make a table, in an order the kernel accepts.
  static func messages(_ table: Table) -> [NFTMessage] {
    var messages: [NFTMessage] = [.addTable]
    messages += table.chains.map { .addChain($0) }
    var nextSet: UInt32 = 1
    for chain in table.chains {
      for rule in chain.rules {
        let expressions = Expression.list(rule)
        let firstSet = nextSet
        for case .lookup(let set, _) in expressions {
          messages.append(.addSet(set, number: nextSet))
          var rest = set.elements[...]
          while !rest.isEmpty {
            messages.append(
              .addElements(rest.prefix(elementsPerMessageMaximum), of: set, number: nextSet))
            rest = rest.dropFirst(elementsPerMessageMaximum)
          }
          nextSet += 1
        }
        messages.append(.addRule(expressions, chain: chain.name, firstSet: firstSet))
      }
    }
    return messages
  }

  /// For an error: what the kernel refused.
  var description: String {
    switch self {
    case .addTable, .deleteTable: "the table inet \(Table.name)"
    case .addChain(let chain): "the chain \(chain.name) (\(chain.kind) at \(chain.hook))"
    case .addSet, .addElements: "a set of ports or addresses"
    case .addRule(let expressions, let chain, _):
      "a rule of the chain \(chain)"
        + (Rule(expressions).map { rule in
          let text = rule.description
          return text.utf8.count <= 80 ? ": \(text)" : ""
        } ?? "")
    }
  }

  /// The message, and the marks of the batch around all of them.
  func bytes(sequence: UInt32) -> [UInt8] {
    unsafe netlinkMessage(maximumBytes: 128 * 1024) { unsafe write($0, sequence: sequence) }
  }

  static func begin(sequence: UInt32) -> [UInt8] {
    unsafe netlinkMessage(maximumBytes: 256) { _ = unsafe nftnl_batch_begin($0, sequence) }
  }

  static func end(sequence: UInt32) -> [UInt8] {
    unsafe netlinkMessage(maximumBytes: 256) { _ = unsafe nftnl_batch_end($0, sequence) }
  }

  private func write(_ buffer: UnsafeMutablePointer<CChar>, sequence: UInt32) {
    let type: nf_tables_msg_types
    var flags = NLM_F_CREATE
    switch self {
    case .addTable: type = NFT_MSG_NEWTABLE
    case .deleteTable: (type, flags) = (NFT_MSG_DELTABLE, 0)
    case .addChain: type = NFT_MSG_NEWCHAIN
    case .addSet: type = NFT_MSG_NEWSET
    case .addElements: type = NFT_MSG_NEWSETELEM
    case .addRule: (type, flags) = (NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND)
    }
    guard
      let header = unsafe nftnl_nlmsg_build_hdr(
        buffer, UInt16(type.rawValue), UInt16(NFPROTO_INET), UInt16(flags | NLM_F_ACK), sequence)
    else { preconditionFailure("nftnl_nlmsg_build_hdr never fails") }
    switch self {
    case .addTable: unsafe Self.table(header, comment: true)
    case .deleteTable: unsafe Self.table(header, comment: false)
    case .addChain(let chain): unsafe Self.chain(header, chain)
    case .addSet(let set, let number): unsafe Self.set(header, set, number, elements: nil)
    case .addElements(let elements, let set, let number):
      unsafe Self.set(header, set, number, elements: elements)
    case .addRule(let expressions, let chain, let firstSet):
      unsafe Self.rule(header, expressions, chain, firstSet)
    }
  }

  private static func table(_ header: UnsafeMutablePointer<nlmsghdr>, comment: Bool) {
    let table = unsafe allocated(nftnl_table_alloc())
    defer { unsafe nftnl_table_free(table) }
    unsafe nftnl_table_set_str(table, UInt16(NFTNL_TABLE_NAME.rawValue), Table.name)
    if comment {
      // Type 0 (NFTNL_UDATA_TABLE_COMMENT), length, text with its final zero.
      let text = Array(Table.comment.utf8) + [0]
      let data = [0, UInt8(text.count)] + text
      _ = unsafe nftnl_table_set_data(
        table, UInt16(NFTNL_TABLE_USERDATA.rawValue), data, UInt32(data.count))
    }
    unsafe nftnl_table_nlmsg_build_payload(header, table)
  }

  private static func chain(_ header: UnsafeMutablePointer<nlmsghdr>, _ value: Chain) {
    let chain = unsafe allocated(nftnl_chain_alloc())
    defer { unsafe nftnl_chain_free(chain) }
    unsafe nftnl_chain_set_str(chain, UInt16(NFTNL_CHAIN_TABLE.rawValue), Table.name)
    unsafe nftnl_chain_set_str(chain, UInt16(NFTNL_CHAIN_NAME.rawValue), value.name)
    unsafe nftnl_chain_set_str(chain, UInt16(NFTNL_CHAIN_TYPE.rawValue), value.kind.rawValue)
    unsafe nftnl_chain_set_u32(
      chain, UInt16(NFTNL_CHAIN_HOOKNUM.rawValue), value.hook.number)
    unsafe nftnl_chain_set_s32(chain, UInt16(NFTNL_CHAIN_PRIO.rawValue), value.kind.priority)
    unsafe nftnl_chain_set_u32(chain, UInt16(NFTNL_CHAIN_POLICY.rawValue), UInt32(NF_ACCEPT))
    unsafe nftnl_chain_nlmsg_build_payload(header, chain)
  }

  private static func set(
    _ header: UnsafeMutablePointer<nlmsghdr>, _ value: SetReference, _ number: UInt32,
    elements: ArraySlice<(key: [UInt8], isEnd: Bool)>?
  ) {
    let set = unsafe allocated(nftnl_set_alloc())
    defer { unsafe nftnl_set_free(set) }
    unsafe nftnl_set_set_str(set, UInt16(NFTNL_SET_TABLE.rawValue), Table.name)
    unsafe nftnl_set_set_str(set, UInt16(NFTNL_SET_NAME.rawValue), "__set%d")
    unsafe nftnl_set_set_u32(set, UInt16(NFTNL_SET_ID.rawValue), number)
    guard let elements else {
      let (type, bytes) = value.elementType
      let flags =
        NFT_SET_ANONYMOUS.rawValue | NFT_SET_CONSTANT.rawValue | NFT_SET_INTERVAL.rawValue
      unsafe nftnl_set_set_u32(set, UInt16(NFTNL_SET_FAMILY.rawValue), UInt32(NFPROTO_INET))
      unsafe nftnl_set_set_u32(set, UInt16(NFTNL_SET_FLAGS.rawValue), UInt32(flags))
      unsafe nftnl_set_set_u32(set, UInt16(NFTNL_SET_KEY_TYPE.rawValue), type)
      unsafe nftnl_set_set_u32(set, UInt16(NFTNL_SET_KEY_LEN.rawValue), bytes)
      // For nft's listing: type 0 (NFTNL_UDATA_SET_KEYBYTEORDER), length, big-endian = 2.
      let data: [UInt8] = [0, 4] + nativeBytes(2)
      _ = unsafe nftnl_set_set_data(
        set, UInt16(NFTNL_SET_USERDATA.rawValue), data, UInt32(data.count))
      unsafe nftnl_set_nlmsg_build_payload(header, set)
      return
    }
    for (key, isEnd) in elements {
      let element = unsafe allocated(nftnl_set_elem_alloc())
      _ = unsafe nftnl_set_elem_set(
        element, UInt16(NFTNL_SET_ELEM_KEY), key, UInt32(key.count))
      if isEnd {
        unsafe nftnl_set_elem_set_u32(
          element, UInt16(NFTNL_SET_ELEM_FLAGS),
          UInt32(NFT_SET_ELEM_INTERVAL_END.rawValue))
      }
      unsafe nftnl_set_elem_add(set, element)
    }
    unsafe nftnl_set_elems_nlmsg_build_payload(header, set)
  }

  private static func rule(
    _ header: UnsafeMutablePointer<nlmsghdr>, _ expressions: [Expression], _ chain: String,
    _ firstSet: UInt32
  ) {
    let rule = unsafe allocated(nftnl_rule_alloc())
    defer { unsafe nftnl_rule_free(rule) }
    unsafe nftnl_rule_set_str(rule, UInt16(NFTNL_RULE_TABLE.rawValue), Table.name)
    unsafe nftnl_rule_set_str(rule, UInt16(NFTNL_RULE_CHAIN.rawValue), chain)
    unsafe nftnl_rule_set_u32(rule, UInt16(NFTNL_RULE_FAMILY.rawValue), UInt32(NFPROTO_INET))
    var set = firstSet
    for expression in expressions {
      unsafe nftnl_rule_add_expr(rule, expression.object(set: set))
      if case .lookup = expression { set += 1 }
    }
    unsafe nftnl_rule_nlmsg_build_payload(header, rule)
  }
}

/// libnftnl fails to allocate only when memory is gone.
func allocated(_ object: OpaquePointer?) -> OpaquePointer {
  guard let object = unsafe object else { preconditionFailure("out of memory") }
  return unsafe object
}

private func nativeBytes(_ value: UInt32) -> [UInt8] {
  unsafe withUnsafeBytes(of: value) { unsafe Array($0) }
}

extension Hook {
  /// The kernel's number of the hook.
  var number: UInt32 {
    let hook =
      switch self {
      case .prerouting: NF_INET_PRE_ROUTING
      case .input: NF_INET_LOCAL_IN
      case .output: NF_INET_LOCAL_OUT
      case .postrouting: NF_INET_POST_ROUTING
      }
    return UInt32(hook.rawValue)
  }
}

extension Expression {
  private static let register = UInt32(NFT_REG_1.rawValue)

  /// A libnftnl expression; the rule it is added to frees it.
  fileprivate func object(set: UInt32) -> OpaquePointer {
    let object = unsafe allocated(nftnl_expr_alloc(kernelName))
    func number(_ attribute: Int, _ value: UInt32) {
      unsafe nftnl_expr_set_u32(object, UInt16(attribute), value)
    }
    func data(_ attribute: Int, _ bytes: [UInt8]) {
      _ = unsafe nftnl_expr_set(object, UInt16(attribute), bytes, UInt32(bytes.count))
    }
    let register = Self.register
    switch self {
    case .meta(let key):
      number(NFTNL_EXPR_META_KEY, key)
      number(NFTNL_EXPR_META_DREG, register)
    case .payload(let base, let offset, let length):
      number(NFTNL_EXPR_PAYLOAD_DREG, register)
      number(NFTNL_EXPR_PAYLOAD_BASE, base)
      number(NFTNL_EXPR_PAYLOAD_OFFSET, offset)
      number(NFTNL_EXPR_PAYLOAD_LEN, length)
    case .connection(let key, let direction):
      number(NFTNL_EXPR_CT_KEY, key)
      number(NFTNL_EXPR_CT_DREG, register)
      if let direction { unsafe nftnl_expr_set_u8(object, UInt16(NFTNL_EXPR_CT_DIR), direction) }
    case .addressType(let flags):
      number(NFTNL_EXPR_FIB_DREG, register)
      number(NFTNL_EXPR_FIB_RESULT, UInt32(NFT_FIB_RESULT_ADDRTYPE.rawValue))
      number(NFTNL_EXPR_FIB_FLAGS, flags)
    case .bitwise(let mask, let xor):
      number(NFTNL_EXPR_BITWISE_SREG, register)
      number(NFTNL_EXPR_BITWISE_DREG, register)
      number(NFTNL_EXPR_BITWISE_LEN, UInt32(mask.count))
      data(NFTNL_EXPR_BITWISE_MASK, mask)
      data(NFTNL_EXPR_BITWISE_XOR, xor)
    case .compare(let bytes, let negated):
      number(NFTNL_EXPR_CMP_SREG, register)
      number(NFTNL_EXPR_CMP_OP, UInt32((negated ? NFT_CMP_NEQ : NFT_CMP_EQ).rawValue))
      data(NFTNL_EXPR_CMP_DATA, bytes)
    case .lookup(_, let negated):
      number(NFTNL_EXPR_LOOKUP_SREG, register)
      _ = unsafe nftnl_expr_set_str(object, UInt16(NFTNL_EXPR_LOOKUP_SET), "__set%d")
      number(NFTNL_EXPR_LOOKUP_SET_ID, set)
      if negated { number(NFTNL_EXPR_LOOKUP_FLAGS, UInt32(NFT_LOOKUP_F_INV.rawValue)) }
    case .load(let bytes):
      number(NFTNL_EXPR_IMM_DREG, register)
      data(NFTNL_EXPR_IMM_DATA, bytes)
    case .verdict(let verdict):
      number(NFTNL_EXPR_IMM_DREG, UInt32(NFT_REG_VERDICT.rawValue))
      number(NFTNL_EXPR_IMM_VERDICT, UInt32(bitPattern: verdict))
    case .redirect:
      number(NFTNL_EXPR_REDIR_REG_PROTO_MIN, register)
      number(NFTNL_EXPR_REDIR_REG_PROTO_MAX, register)
    case .setConnectionMark:
      number(NFTNL_EXPR_CT_KEY, UInt32(NFT_CT_MARK.rawValue))
      number(NFTNL_EXPR_CT_SREG, register)
    case .unknown: break
    }
    return unsafe object
  }

  private var kernelName: String {
    switch self {
    case .meta: "meta"
    case .payload: "payload"
    case .connection, .setConnectionMark: "ct"
    case .addressType: "fib"
    case .bitwise: "bitwise"
    case .compare: "cmp"
    case .lookup: "lookup"
    case .load, .verdict: "immediate"
    case .redirect: "redir"
    case .unknown(let name): name
    }
  }
}
