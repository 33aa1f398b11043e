internal import CLinux
internal import Net

/// The program that writes the option and looks for it (BPF_PROG_TYPE_SOCK_OPS, linux/bpf.h).
///
/// The kernel runs it for every TCP socket of the cgroup and below. It acts only in one network
/// namespace, and only on sockets whose mark says that they announce; it changes bit 17 of that
/// mark and nothing else. A SYN-ACK is written before there is a socket whose mark could be read:
/// that it is one of ours follows from the listener's callback flag, which the kernel asks first.
struct AnnouncementProgram {
  // Kept over calls.
  private static let context = BPFAssembler.Register.r6
  private static let event = BPFAssembler.Register.r7
  private static let mark = BPFAssembler.Register.r8
  private static let found = BPFAssembler.Register.r9

  /// Where the option is built and read: the lowest 8 bytes of the stack.
  private static let optionOffset: Int16 = -8
  private static let versionOffset: Int16 = -4

  // linux/bpf.h: BPF_WRITE_HDR_TCP_SYNACK_COOKIE, BPF_LOAD_HDR_OPT_TCP_SYN; tcp(7): TH_SYN, TH_ACK.
  private static let cookieAnswer: Int32 = 2
  private static let inSYN: Int32 = 1
  private static let flagSYN: Int32 = 0x02
  private static let flagACK: Int32 = 0x10

  private static let writesOptions = Int32(BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)

  private var code = BPFAssembler()
  private let begin: BPFAssembler.Label
  private let outgoing: BPFAssembler.Label
  private let answer: BPFAssembler.Label
  private let search: BPFAssembler.Label
  private let write: BPFAssembler.Label
  private let setFlags: BPFAssembler.Label
  private let done: BPFAssembler.Label

  /// `struct bpf_insn` each.
  ///
  /// - Parameters:
  ///   - mark: the low 16 bits of the sockets' mark.
  ///   - namespace: the network namespace's cookie (SO_NETNS_COOKIE).
  static func instructions(mark: UInt16, namespace: UInt64) -> [UInt64] {
    var program = AnnouncementProgram()
    program.leaveOthersAlone(mark: mark, namespace: namespace)
    program.dispatch()
    program.beginHandshake()
    program.chooseSegment()
    program.searchOption()
    program.setMark()
    program.writeOption()
    return program.code.assembled()
  }

  private init() {
    begin = code.makeLabel()
    outgoing = code.makeLabel()
    answer = code.makeLabel()
    search = code.makeLabel()
    write = code.makeLabel()
    setFlags = code.makeLabel()
    done = code.makeLabel()
  }

  private mutating func leaveOthersAlone(mark: UInt16, namespace: UInt64) {
    let ours = code.makeLabel()
    code.apply(.move, Self.context, .r1)
    code.load(.word, Self.event, from: Self.context, culvert_sock_ops_op)
    for event in [
      BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB, BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB,
      BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_HDR_OPT_LEN_CB,
    ] {
      code.jump(if: Self.event, .equal, Int32(event), to: ours)
    }
    code.jump(
      if: Self.event, .notEqual, Int32(BPF_SOCK_OPS_WRITE_HDR_OPT_CB), to: done)
    code.place(ours)
    code.apply(.move, .r1, Self.context)
    code.call(BPF_FUNC_get_netns_cookie)
    code.move(.r1, wide: namespace)
    code.jump(if: .r0, .notEqual, .r1, to: done)
    code.load(.doubleWord, Self.mark, from: Self.context, culvert_sock_ops_socket)
    code.jump(if: Self.mark, .equal, 0, to: answer)
    code.load(.word, Self.mark, from: Self.mark, culvert_bpf_sock_mark)
    code.apply(.move, .r1, Self.mark)
    code.apply(.and, .r1, Int32(Mark.mask | Mark.announce))
    code.jump(if: .r1, .notEqual, Int32(UInt32(mark) | Mark.announce), to: done)
  }

  /// Leads each event of a socket of ours to its place.
  private mutating func dispatch() {
    for (event, label) in [
      (BPF_SOCK_OPS_TCP_CONNECT_CB, begin), (BPF_SOCK_OPS_TCP_LISTEN_CB, begin),
      (BPF_SOCK_OPS_HDR_OPT_LEN_CB, outgoing), (BPF_SOCK_OPS_WRITE_HDR_OPT_CB, outgoing),
    ] {
      code.jump(if: Self.event, .equal, Int32(event), to: label)
    }
    // Established: the answer is in the segment at hand, the SYN in what the listener kept.
    code.apply(.move, Self.found, 0)
    code.jump(
      if: Self.event, .equal, Int32(BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB), to: search)
    code.apply(.move, Self.found, Self.inSYN)
    code.jump(to: search)
  }

  /// Has the kernel ask again when it writes headers. Accepted sockets inherit the flag.
  private mutating func beginHandshake() {
    code.place(begin)
    code.load(.word, .r2, from: Self.context, culvert_sock_ops_flags)
    code.apply(.or, .r2, Self.writesOptions)
    code.jump(to: setFlags)
  }

  /// Lets pass a connecting socket's SYN, and the SYN-ACK to a SYN with the option. A listener that
  /// answers by cookie forgets the SYN, so it must not say that it has seen it.
  private mutating func chooseSegment() {
    code.place(outgoing)
    code.load(.word, .r1, from: Self.context, culvert_sock_ops_tcp_flags)
    code.apply(.and, .r1, Self.flagSYN | Self.flagACK)
    code.jump(if: .r1, .notEqual, Self.flagSYN, to: done)
    code.jump(to: write)
    code.place(answer)
    code.load(.word, .r1, from: Self.context, culvert_sock_ops_argument)
    code.jump(if: .r1, .equal, Self.cookieAnswer, to: done)
    code.apply(.move, Self.found, Self.inSYN)
  }

  /// Looks where `found` says, and then says there whether the option was found.
  private mutating func searchOption() {
    let judged = code.makeLabel()
    code.place(search)
    code.store(.word, value: Self.word(AnnouncementOption.pattern), to: .r10, Self.optionOffset)
    code.store(.word, value: 0, to: .r10, Self.versionOffset)
    passOption()
    code.apply(.move, .r4, Self.found)
    code.call(BPF_FUNC_load_hdr_opt)
    code.apply(.move, Self.found, 0)
    code.jump(if: .r0, .notEqual, Int32(AnnouncementOption.byteCount), to: judged)
    code.load(.byte, .r1, from: .r10, Self.versionOffset)
    code.jump(if: .r1, .equal, 0, to: judged)
    code.apply(.move, Self.found, 1)
    code.place(judged)
  }

  /// At the end of a handshake: bit 17 says what was found, and the flag goes, so that later
  /// segments cost nothing. While a SYN-ACK is made: goes on to write it, or not.
  private mutating func setMark() {
    let isSet = code.makeLabel()
    let unfinished = code.makeLabel()
    code.jump(
      if: Self.event, .atLeast, Int32(BPF_SOCK_OPS_HDR_OPT_LEN_CB), to: unfinished)
    code.apply(.and, Self.mark, Int32(bitPattern: ~Mark.announced))
    code.jump(if: Self.found, .equal, 0, to: isSet)
    code.apply(.or, Self.mark, Int32(Mark.announced))
    code.place(isSet)
    code.store(.word, Self.mark, to: .r10, Self.optionOffset)
    code.apply(.move, .r1, Self.context)
    code.apply(.move, .r2, SOL_SOCKET)
    code.apply(.move, .r3, SO_MARK)
    code.apply(.move, .r4, .r10)
    code.apply(.add, .r4, Int32(Self.optionOffset))
    code.apply(.move, .r5, Int32(MemoryLayout<UInt32>.size))
    code.call(BPF_FUNC_setsockopt)
    code.load(.word, .r2, from: Self.context, culvert_sock_ops_flags)
    code.apply(.and, .r2, ~Self.writesOptions)
    code.place(setFlags)
    code.apply(.move, .r1, Self.context)
    code.call(BPF_FUNC_sock_ops_cb_flags_set)
    code.jump(to: done)
    code.place(unfinished)
    code.jump(if: Self.found, .equal, 0, to: done)
  }

  /// First asked for room, then for the option itself.
  private mutating func writeOption() {
    let store = code.makeLabel()
    code.place(write)
    code.jump(
      if: Self.event, .equal, Int32(BPF_SOCK_OPS_WRITE_HDR_OPT_CB), to: store)
    code.apply(.move, .r1, Self.context)
    code.apply(.move, .r2, Int32(AnnouncementOption.byteCount))
    code.apply(.move, .r3, 0)
    code.call(BPF_FUNC_reserve_hdr_opt)
    code.jump(to: done)
    code.place(store)
    let bytes = AnnouncementOption.header(length: AnnouncementOption.byteCount)
    code.store(.word, value: Self.word(bytes), to: .r10, Self.optionOffset)
    code.store(
      .byte, value: Int32(AnnouncementOption.version), to: .r10, Self.versionOffset)
    passOption()
    code.apply(.move, .r4, 0)
    code.call(BPF_FUNC_store_hdr_opt)
    code.place(done)
    // 1 lets the kernel's own defaults, and other programs' replies, stand.
    code.apply(.move, .r0, 1)
    code.exit()
  }

  /// The first three arguments of the calls that take an option.
  private mutating func passOption() {
    code.apply(.move, .r1, Self.context)
    code.apply(.move, .r2, .r10)
    code.apply(.add, .r2, Int32(Self.optionOffset))
    code.apply(.move, .r3, Int32(AnnouncementOption.byteCount))
  }

  /// Four bytes as the number that is stored as them.
  private static func word(_ bytes: [UInt8]) -> Int32 {
    Int32(bitPattern: bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) })
  }
}
