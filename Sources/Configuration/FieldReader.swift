internal import Net

/// The value of one field, with the name by which messages call it.
package struct Field {
  /// Dotted from the root: `outbound.rules[0].to`; empty for the root itself.
  package let path: String
  package let node: YAMLNode

  package init(path: String, node: YAMLNode) {
    self.path = path
    self.node = node
  }

  package var mark: YAMLMark { node.mark }

  package func problem(_ message: String) -> Problem {
    Problem(mark, path.isEmpty ? message : "\(path): \(message)")
  }

  package func expected(_ what: String) -> Problem {
    problem("expected \(what), found \(node.summary)")
  }
}

// MARK: - Lists and mappings

extension Field {
  /// The fields of a mapping that may hold `known` keys only.
  package func fields(_ known: [String]) throws(Problem) -> [String: Field] {
    var fields: [String: Field] = [:]
    for (key, mark, value) in try entries() {
      guard known.contains(key) else {
        let hint = known.first { Self.isOneEditAway(key, $0) }
        throw Problem(
          mark,
          "unknown field \(YAMLNode.quote(path.isEmpty ? key : "\(path).\(key)"))"
            + (hint.map { "; did you mean \"\($0)\"?" } ?? ""))
      }
      fields[key] = value
    }
    return fields
  }

  /// The entries of a mapping whose keys are data.
  package func entries() throws(Problem) -> [(key: String, mark: YAMLMark, value: Field)] {
    guard case .mapping(let entries) = node.content else { throw expected("a mapping") }
    return entries.map { entry in
      let path = path.isEmpty ? entry.key : "\(path).\(entry.key)"
      return (entry.key, entry.keyMark, Field(path: path, node: entry.value))
    }
  }

  package func items() throws(Problem) -> [Field] {
    guard case .sequence(let items) = node.content else { throw expected("a list") }
    return items.enumerated().map { Field(path: "\(path)[\($0.offset)]", node: $0.element) }
  }

  /// A list in which leaving everything out would say something else than it seems to.
  package func nonEmptyItems() throws(Problem) -> [Field] {
    let items = try items()
    guard !items.isEmpty else { throw problem("must not be empty") }
    return items
  }

  /// One character inserted, removed or replaced, or two neighbours swapped, whatever the case.
  static func isOneEditAway(_ left: String, _ right: String) -> Bool {
    let left = Array(left.lowercased().unicodeScalars)
    let right = Array(right.lowercased().unicodeScalars)
    guard abs(left.count - right.count) <= 1 else { return false }
    let prefix = zip(left, right).prefix { $0 == $1 }.count
    let suffix = zip(left.dropFirst(prefix).reversed(), right.dropFirst(prefix).reversed())
      .prefix { $0 == $1 }.count
    let restOfLeft = left.dropFirst(prefix).dropLast(suffix)
    let restOfRight = right.dropFirst(prefix).dropLast(suffix)
    if restOfLeft.count <= 1, restOfRight.count <= 1 { return true }
    return restOfLeft.count == 2 && restOfLeft.elementsEqual(restOfRight.reversed())
  }
}

extension [String: Field] {
  /// A field that must be there; `owner` is the mapping it is missing from.
  package func required(_ key: String, in owner: Field) throws(Problem) -> Field {
    guard let field = self[key] else { throw owner.problem("missing field \"\(key)\"") }
    return field
  }
}

// MARK: - Scalars

extension Field {
  /// A text: quoted, or plain and not null, a boolean or a number.
  package func text() throws(Problem) -> String {
    guard case .scalar(let text, let isPlain) = node.content,
      !(isPlain && YAMLNode.isCoreSchemaValue(text))
    else { throw expected("a text") }
    guard !text.isEmpty else { throw problem("must not be empty") }
    guard text.utf8.allSatisfy({ $0 >= 0x20 && $0 != 0x7f }) else {
      throw problem("must not hold control characters")
    }
    return text
  }

  /// A plain decimal integer without sign or leading zeros.
  func integer(_ range: ClosedRange<Int>) throws(Problem) -> Int {
    guard case .scalar(let text, isPlain: true) = node.content,
      let value = Self.decimal(text[...]), range.contains(value)
    else { throw expected("an integer from \(range.lowerBound) to \(range.upperBound)") }
    return value
  }

  /// Plain `true` or `false`.
  func boolean() throws(Problem) -> Bool {
    switch node.content {
    case .scalar("true", isPlain: true): return true
    case .scalar("false", isPlain: true): return false
    default: throw expected("true or false")
    }
  }

  func choice<Value: RawRepresentable<String> & CaseIterable>(
    _ type: Value.Type
  ) throws(Problem) -> Value {
    guard case .scalar(let text, _) = node.content, let value = Value(rawValue: text) else {
      let words = Value.allCases.map(\.rawValue)
      throw expected(words.dropLast().joined(separator: ", ") + " or " + (words.last ?? ""))
    }
    return value
  }

  func port() throws(Problem) -> UInt16 { UInt16(try integer(1...65535)) }

  /// A port, or a range of ports as `LOW-HIGH`.
  func portRange() throws(Problem) -> ClosedRange<UInt16> {
    guard case .scalar(let text, let isPlain) = node.content else { throw notPorts() }
    let bounds = text.split(separator: "-", maxSplits: 1, omittingEmptySubsequences: false)
      .map { Self.decimal($0).flatMap(UInt16.init(exactly:)) ?? 0 }
    // A single port is a number and therefore not quoted.
    guard bounds.count == 2 || isPlain, let low = bounds.first, let high = bounds.last,
      low > 0, low <= high
    else { throw notPorts() }
    return low...high
  }

  private func notPorts() -> Problem {
    expected("a port from 1 to 65535 or a range such as 8000-8099")
  }

  func ports() throws(Problem) -> PortSet {
    var ranges: [ClosedRange<UInt16>] = []
    for item in try items() { ranges.append(try item.portRange()) }
    return PortSet(ranges)
  }

  func cidr() throws(Problem) -> CIDR {
    let text = try text()
    if let cidr = CIDR(text) { return cidr }
    throw problem(
      "\(YAMLNode.quote(text)) is not an address or a range ADDRESS/LENGTH without bits set"
        + " beyond its length")
  }

  func cidrs() throws(Problem) -> [CIDR] {
    var cidrs: [CIDR] = []
    for item in try items() { cidrs.append(try item.cidr()) }
    return cidrs
  }

  package static func decimal(_ text: Substring) -> Int? {
    guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }),
      text.utf8.count == 1 || text.utf8.first != UInt8(ascii: "0")
    else { return nil }
    return Int(text)
  }
}
