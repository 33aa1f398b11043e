internal import CLinux

#if _endian(big)
  #error("the kernel packs registers the other way round on big-endian machines")
#endif

/// Puts together a program for the kernel's virtual machine (RFC 9669), one instruction a call.
struct BPFAssembler {
  /// r1 to r5 hold arguments and are lost in a call, r0 its result; r6 to r9 are kept; r10 is the
  /// end of the stack and cannot be written.
  enum Register: UInt8 {
    case r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10
  }

  enum Width {
    case byte, word, doubleWord

    fileprivate var code: Int32 {
      switch self {
      case .byte: BPF_B
      case .word: BPF_W
      case .doubleWord: BPF_DW
      }
    }
  }

  enum Condition {
    case equal, notEqual, atLeast

    fileprivate var code: Int32 {
      switch self {
      case .equal: BPF_JEQ
      case .notEqual: BPF_JNE
      case .atLeast: BPF_JGE
      }
    }
  }

  enum Operation {
    case move, add, and, or

    fileprivate var code: Int32 {
      switch self {
      case .move: BPF_MOV
      case .add: BPF_ADD
      case .and: BPF_AND
      case .or: BPF_OR
      }
    }
  }

  /// A place in the program, which jumps may name before it is reached.
  struct Label {
    fileprivate let index: Int
  }

  /// `struct bpf_insn` each, as one number. Jumps have no target yet.
  private var code: [UInt64] = []
  /// Where each label is.
  private var places: [Int?] = []
  private var jumps: [(place: Int, label: Label)] = []

  mutating func makeLabel() -> Label {
    places.append(nil)
    return Label(index: places.count - 1)
  }

  /// What follows is where the label's jumps lead.
  mutating func place(_ label: Label) { places[label.index] = code.count }

  /// The value is sign-extended to 64 bits.
  mutating func apply(_ operation: Operation, _ target: Register, _ value: Int32) {
    append(BPF_ALU64 | operation.code | BPF_K, target, value: value)
  }

  mutating func apply(_ operation: Operation, _ target: Register, _ source: Register) {
    append(BPF_ALU64 | operation.code | BPF_X, target, source)
  }

  /// A constant of 64 bits: two instructions long.
  mutating func move(_ target: Register, wide value: UInt64) {
    append(BPF_LD | BPF_IMM | BPF_DW, target, value: Int32(truncatingIfNeeded: value))
    append(0, .r0, value: Int32(truncatingIfNeeded: value >> 32))
  }

  mutating func load(_ width: Width, _ target: Register, from base: Register, _ offset: Int16) {
    append(BPF_LDX | width.code | BPF_MEM, target, base, offset: offset)
  }

  mutating func store(_ width: Width, _ source: Register, to base: Register, _ offset: Int16) {
    append(BPF_STX | width.code | BPF_MEM, base, source, offset: offset)
  }

  mutating func store(_ width: Width, value: Int32, to base: Register, _ offset: Int16) {
    append(BPF_ST | width.code | BPF_MEM, base, offset: offset, value: value)
  }

  mutating func jump(to label: Label) {
    jumps.append((code.count, label))
    append(BPF_JMP | BPF_JA, .r0)
  }

  mutating func jump(
    if left: Register, _ condition: Condition, _ right: Int32, to label: Label
  ) {
    jumps.append((code.count, label))
    append(BPF_JMP | condition.code | BPF_K, left, value: right)
  }

  mutating func jump(
    if left: Register, _ condition: Condition, _ right: Register, to label: Label
  ) {
    jumps.append((code.count, label))
    append(BPF_JMP | condition.code | BPF_X, left, right)
  }

  mutating func call(_ function: bpf_func_id) {
    append(BPF_JMP | BPF_CALL, .r0, value: Int32(bitPattern: function.rawValue))
  }

  mutating func exit() { append(BPF_JMP | BPF_EXIT, .r0) }

  /// The program with every jump led to its label.
  func assembled() -> [UInt64] {
    var code = code
    for (place, label) in jumps {
      guard let target = places[label.index], let offset = Int16(exactly: target - place - 1)
      else { preconditionFailure("a jump leads nowhere") }
      code[place] |= Self.field(offset)
    }
    return code
  }

  private mutating func append(
    _ operation: Int32, _ target: Register, _ source: Register = .r0, offset: Int16 = 0,
    value: Int32 = 0
  ) {
    let registers = UInt64(target.rawValue) << 8 | UInt64(source.rawValue) << 12
    code.append(
      UInt64(UInt8(operation)) | registers | Self.field(offset)
        | UInt64(UInt32(bitPattern: value)) << 32)
  }

  private static func field(_ offset: Int16) -> UInt64 { UInt64(UInt16(bitPattern: offset)) << 16 }
}
