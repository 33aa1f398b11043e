internal import CYAML

/// Reads the part of YAML a configuration needs: mappings with distinct text keys, lists and scalars. Anchors, aliases and tags are refused: a value stands where it is written.
///
/// libyaml scans; what is kept of its events is this tree, bounded in size and depth.
@safe struct YAMLReader: ~Copyable {
  static let maximumBytes = 1 << 20
  static let maximumDepth = 16
  /// Keys count as well. A peer entry takes 5.
  static let maximumNodes = 100_000

  /// At a fixed address, because the parser points into itself; owned by this value.
  private let parser: UnsafeMutablePointer<yaml_parser_t>
  private let bytes: UnsafeBufferPointer<UInt8>
  private var nodeCount = 0

  /// The root of the only document.
  static func read(_ bytes: [UInt8]) throws(Problem) -> YAMLNode {
    try read(bytes) { reader throws(Problem) in try reader.readDocument() }
  }

  /// The roots of all documents; empty documents are left out. The limits hold for all together.
  static func readAll(_ bytes: [UInt8]) throws(Problem) -> [YAMLNode] {
    try read(bytes) { reader throws(Problem) in try reader.readDocuments() }
  }

  private static func read<Result>(
    _ bytes: [UInt8], _ body: (inout YAMLReader) throws(Problem) -> Result
  ) throws(Problem) -> Result {
    guard bytes.count <= maximumBytes else {
      throw Problem(.start, "the file is larger than \(maximumBytes) bytes")
    }
    return try unsafe bytes.withUnsafeBufferPointer { buffer throws(Problem) -> Result in
      // The reader does not outlive this closure, nor the bytes.
      var reader = unsafe YAMLReader(buffer)
      return try body(&reader)
    }
  }

  private init(_ bytes: UnsafeBufferPointer<UInt8>) {
    unsafe self.bytes = unsafe bytes
    unsafe parser = .allocate(capacity: 1)
    // It fails only if malloc does.
    let isInitialised = unsafe yaml_parser_initialize(parser) == 1
    precondition(isInitialised, "out of memory")
    unsafe yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING)
    unsafe yaml_parser_set_input_string(parser, bytes.baseAddress, bytes.count)
  }

  deinit {
    unsafe yaml_parser_delete(parser)
    unsafe parser.deallocate()
  }

  private mutating func readDocument() throws(Problem) -> YAMLNode {
    _ = try next()  // the stream's start
    let start = try next()
    guard case .documentStart = start.kind else { throw Problem(.start, "the file is empty") }
    let root = try readNode(try next(), depth: 1)
    _ = try next()  // the document's end
    let end = try next()
    guard case .streamEnd = end.kind else {
      throw Problem(end.mark, "a second YAML document; there must be one")
    }
    return root
  }

  private mutating func readDocuments() throws(Problem) -> [YAMLNode] {
    _ = try next()  // the stream's start
    var roots: [YAMLNode] = []
    while case .documentStart = try next().kind {
      let root = try readNode(try next(), depth: 1)
      if !root.isNothing { roots.append(root) }
      _ = try next()  // the document's end
    }
    return roots
  }

  private mutating func readNode(_ event: Event, depth: Int) throws(Problem) -> YAMLNode {
    nodeCount += 1
    guard nodeCount <= Self.maximumNodes else {
      throw Problem(event.mark, "more than \(Self.maximumNodes) values")
    }
    guard depth <= Self.maximumDepth else {
      throw Problem(event.mark, "nested deeper than \(Self.maximumDepth) levels")
    }
    switch event.kind {
    case .scalar(let text, let isPlain):
      return YAMLNode(mark: event.mark, content: .scalar(text, isPlain: isPlain))
    case .sequenceStart:
      return YAMLNode(mark: event.mark, content: .sequence(try readItems(depth: depth)))
    case .mappingStart:
      return YAMLNode(mark: event.mark, content: .mapping(try readEntries(depth: depth)))
    case .streamStart, .streamEnd, .documentStart, .documentEnd, .end:
      // libyaml's grammar puts a node here.
      preconditionFailure("not a node")
    }
  }

  private mutating func readItems(depth: Int) throws(Problem) -> [YAMLNode] {
    var items: [YAMLNode] = []
    while true {
      let event = try next()
      if case .end = event.kind { return items }
      items.append(try readNode(event, depth: depth + 1))
    }
  }

  private mutating func readEntries(depth: Int) throws(Problem) -> [YAMLEntry] {
    var entries: [YAMLEntry] = []
    var lines: [String: Int] = [:]
    while true {
      let event = try next()
      if case .end = event.kind { return entries }
      let node = try readNode(event, depth: depth + 1)
      guard case .scalar(let key, _) = node.content else {
        throw Problem(event.mark, "a key must be a text, found \(node.summary)")
      }
      if let line = lines.updateValue(event.mark.line, forKey: key) {
        throw Problem(
          event.mark, "\(YAMLNode.quote(key)) is given twice, first on line \(line)")
      }
      let value = try readNode(try next(), depth: depth + 1)
      entries.append(YAMLEntry(key: key, keyMark: event.mark, value: value))
    }
  }
}

extension YAMLReader {
  private struct Event {
    enum Kind {
      case streamStart, streamEnd, documentStart, documentEnd
      case scalar(String, isPlain: Bool)
      case sequenceStart, mappingStart
      /// Of a sequence or mapping.
      case end
    }

    let kind: Kind
    let mark: YAMLMark
  }

  private mutating func next() throws(Problem) -> Event {
    var event = unsafe yaml_event_t()
    guard unsafe yaml_parser_parse(parser, &event) == 1 else { throw syntaxProblem() }
    defer { unsafe yaml_event_delete(&event) }
    let mark = unsafe Self.mark(event.start_mark)
    return Event(kind: unsafe try Self.kind(event, mark), mark: mark)
  }

  /// What an event says; its texts are copied.
  private static func kind(
    _ event: yaml_event_t, _ mark: YAMLMark
  ) throws(Problem) -> Event.Kind {
    switch unsafe event.type {
    case YAML_STREAM_START_EVENT: return .streamStart
    case YAML_STREAM_END_EVENT: return .streamEnd
    case YAML_DOCUMENT_START_EVENT: return .documentStart
    case YAML_DOCUMENT_END_EVENT: return .documentEnd
    case YAML_SEQUENCE_END_EVENT, YAML_MAPPING_END_EVENT: return .end
    case YAML_SEQUENCE_START_EVENT:
      let start = unsafe event.data.sequence_start
      try unsafe refuse(anchor: start.anchor, tag: start.tag, mark)
      return .sequenceStart
    case YAML_MAPPING_START_EVENT:
      let start = unsafe event.data.mapping_start
      try unsafe refuse(anchor: start.anchor, tag: start.tag, mark)
      return .mappingStart
    case YAML_SCALAR_EVENT:
      let scalar = unsafe event.data.scalar
      try unsafe refuse(anchor: scalar.anchor, tag: scalar.tag, mark)
      // libyaml's value has `length` bytes, whatever they are.
      let value = unsafe UnsafeBufferPointer(start: scalar.value, count: scalar.length)
      return unsafe .scalar(
        String(decoding: value, as: UTF8.self), isPlain: scalar.style == YAML_PLAIN_SCALAR_STYLE)
    default:
      throw Problem(mark, "aliases are not supported; write the value out")
    }
  }

  private static func refuse(
    anchor: UnsafeMutablePointer<yaml_char_t>?, tag: UnsafeMutablePointer<yaml_char_t>?,
    _ mark: YAMLMark
  ) throws(Problem) {
    if unsafe anchor != nil {
      throw Problem(mark, "anchors are not supported; write the value out")
    }
    if unsafe tag != nil { throw Problem(mark, "tags are not supported") }
  }

  /// What libyaml did not understand.
  private func syntaxProblem() -> Problem {
    let state = unsafe parser.pointee
    let reason = unsafe state.problem.map { unsafe String(cString: $0) } ?? "cannot be read"
    if unsafe state.error == YAML_READER_ERROR {
      // The reader knows the offset of the offending byte only.
      return Problem(unsafe mark(ofByte: state.problem_offset), "not valid UTF-8 text: \(reason)")
    }
    let mark = unsafe Self.mark(state.problem_mark)
    let line = text(ofLine: mark.line)
    if line.prefix(while: { $0 == " " || $0 == "\t" }).contains("\t") {
      return Problem(mark, "YAML must be indented with spaces, found a tab")
    }
    let context = unsafe state.context.map { unsafe " \(String(cString: $0))" } ?? ""
    // libyaml takes the first colon of an unquoted ::/0 for a separator.
    let hint =
      line.contains("[::") || line.contains(" ::") || line.contains(",::")
      ? "; an address that begins with :: must be quoted" : ""
    return Problem(mark, "not valid YAML: \(reason)\(context)\(hint)")
  }

  private static func mark(_ mark: yaml_mark_t) -> YAMLMark {
    YAMLMark(line: mark.line + 1, column: mark.column + 1)
  }

  private func mark(ofByte offset: Int) -> YAMLMark {
    let before = unsafe bytes.prefix(offset)
    let newline = UInt8(ascii: "\n")
    let line = unsafe before.count { $0 == newline } + 1
    let lineStart = unsafe before.lastIndex(of: newline).map { $0 + 1 } ?? 0
    // Continuation bytes of UTF-8 are not columns of their own.
    let column = unsafe before[lineStart...].count { $0 & 0xc0 != 0x80 } + 1
    return YAMLMark(line: line, column: column)
  }

  private func text(ofLine line: Int) -> String {
    let lines = unsafe bytes.split(
      separator: UInt8(ascii: "\n"), maxSplits: line, omittingEmptySubsequences: false)
    guard unsafe lines.indices.contains(line - 1) else { return "" }
    return unsafe String(decoding: lines[line - 1], as: UTF8.self)
  }
}
