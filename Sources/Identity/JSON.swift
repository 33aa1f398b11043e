/// A JSON value (RFC 8259), read strictly; a number stays text, so that none is rounded.
enum JSON: Hashable {
  case null
  case bool(Bool)
  case number(String)
  case string(String)
  case array([JSON])
  case object([String: JSON])

  /// Why a text is not taken; `byte` is where in it.
  struct Failure: Error, Equatable {
    enum Reason { case malformed, duplicateName, tooDeep, tooManyValues }
    let reason: Reason
    let byte: Int
  }

  /// Reads one value and nothing else.
  ///
  /// Foundation's JSONDecoder is no help with hostile text: it lets the last of two members with
  /// one name win (RFC 8259 §4 leaves that open), and it accepts trailing commas, a byte order
  /// mark, UTF-16 and `1.0` for an integer.
  init(_ text: [UInt8]) throws(Failure) {
    var reader = JSONReader(text)
    self = try reader.document()
  }
}

/// Reads one text; each function begins at the first byte of what it is named for.
private struct JSONReader {
  /// Values inside of values. A bundle needs 4, a map of bundles 6.
  static let maximumDepth = 16
  /// Values in one text: bounds the memory that it can take.
  static let maximumValues = 65_536

  private let text: [UInt8]
  private var place = 0
  private var valueCount = 0

  init(_ text: [UInt8]) { self.text = text }

  mutating func document() throws(JSON.Failure) -> JSON {
    skipSpace()
    let value = try value(depth: 0)
    skipSpace()
    guard place == text.count else { throw failure() }
    return value
  }

  private var next: UInt8? { place < text.count ? text[place] : nil }

  private func failure(_ reason: JSON.Failure.Reason = .malformed) -> JSON.Failure {
    JSON.Failure(reason: reason, byte: place)
  }

  private mutating func skipSpace() {
    while let byte = next, byte == 0x20 || byte == 0x09 || byte == 0x0a || byte == 0x0d {
      place += 1
    }
  }

  /// Takes a byte if it comes next.
  private mutating func take(_ byte: Unicode.Scalar) -> Bool {
    guard next == UInt8(ascii: byte) else { return false }
    place += 1
    return true
  }

  private mutating func value(depth: Int) throws(JSON.Failure) -> JSON {
    guard depth < Self.maximumDepth else { throw failure(.tooDeep) }
    valueCount += 1
    guard valueCount <= Self.maximumValues else { throw failure(.tooManyValues) }
    switch next {
    case UInt8(ascii: "{"): return try object(depth: depth)
    case UInt8(ascii: "["): return try array(depth: depth)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try literal("true", .bool(true))
    case UInt8(ascii: "f"): return try literal("false", .bool(false))
    case UInt8(ascii: "n"): return try literal("null", .null)
    default: return .number(try number())
    }
  }

  private mutating func literal(_ word: String, _ value: JSON) throws(JSON.Failure) -> JSON {
    guard text[place...].starts(with: word.utf8) else { throw failure() }
    place += word.utf8.count
    return value
  }

  private mutating func object(depth: Int) throws(JSON.Failure) -> JSON {
    place += 1
    var members: [String: JSON] = [:]
    skipSpace()
    if take("}") { return .object(members) }
    repeat {
      skipSpace()
      let start = place
      let name = try string()
      // As decoded: `"us\u0065"` is a second `"use"`.
      guard members[name] == nil else {
        throw JSON.Failure(reason: .duplicateName, byte: start)
      }
      skipSpace()
      guard take(":") else { throw failure() }
      skipSpace()
      members[name] = try value(depth: depth + 1)
      skipSpace()
    } while take(",")
    guard take("}") else { throw failure() }
    return .object(members)
  }

  private mutating func array(depth: Int) throws(JSON.Failure) -> JSON {
    place += 1
    var elements: [JSON] = []
    skipSpace()
    if take("]") { return .array(elements) }
    repeat {
      skipSpace()
      elements.append(try value(depth: depth + 1))
      skipSpace()
    } while take(",")
    guard take("]") else { throw failure() }
    return .array(elements)
  }

  // MARK: Numbers (RFC 8259 §6)

  private mutating func number() throws(JSON.Failure) -> String {
    let start = place
    _ = take("-")
    if !take("0") { try digits() }
    if take(".") { try digits() }
    if take("e") || take("E") {
      if !take("+") { _ = take("-") }
      try digits()
    }
    return String(decoding: text[start..<place], as: UTF8.self)
  }

  /// At least one.
  private mutating func digits() throws(JSON.Failure) {
    let start = place
    while let byte = next, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { place += 1 }
    guard place > start else { throw failure() }
  }

  // MARK: Strings (RFC 8259 §7)

  private mutating func string() throws(JSON.Failure) -> String {
    let start = place
    guard take("\"") else { throw failure() }
    var bytes: [UInt8] = []
    while let byte = next, byte != UInt8(ascii: "\"") {
      guard byte >= 0x20 else { throw failure() }
      place += 1
      if byte == UInt8(ascii: "\\") {
        bytes += try escape()
      } else {
        bytes.append(byte)
      }
    }
    guard take("\"") else { throw failure() }
    guard let string = String(validating: bytes, as: UTF8.self) else {
      throw JSON.Failure(reason: .malformed, byte: start)
    }
    return string
  }

  /// What follows a backslash, as UTF-8.
  private mutating func escape() throws(JSON.Failure) -> [UInt8] {
    guard let byte = next else { throw failure() }
    place += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return [byte]
    case UInt8(ascii: "b"): return [0x08]
    case UInt8(ascii: "f"): return [0x0c]
    case UInt8(ascii: "n"): return [0x0a]
    case UInt8(ascii: "r"): return [0x0d]
    case UInt8(ascii: "t"): return [0x09]
    case UInt8(ascii: "u"): return Array(String(Character(try scalar())).utf8)
    default: throw failure()
    }
  }

  /// One code point, from one escape or from a surrogate pair; half a pair is not text.
  private mutating func scalar() throws(JSON.Failure) -> Unicode.Scalar {
    let high = try unit()
    if let scalar = Unicode.Scalar(high) { return scalar }
    guard high < 0xdc00, take("\\"), take("u") else { throw failure() }
    let low = try unit()
    guard (0xdc00...0xdfff).contains(low),
      let scalar = Unicode.Scalar(0x10000 + (high - 0xd800) << 10 + (low - 0xdc00))
    else { throw failure() }
    return scalar
  }

  private mutating func unit() throws(JSON.Failure) -> UInt32 {
    guard text.count - place >= 4 else { throw failure() }
    var value: UInt32 = 0
    for byte in text[place..<place + 4] {
      guard let digit = Character(Unicode.Scalar(byte)).hexDigitValue else { throw failure() }
      value = value << 4 | UInt32(digit)
    }
    place += 4
    return value
  }
}

extension JSON {
  /// The number, if it is written as an unsigned integer: no sign, fraction or exponent.
  func integer<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
    guard case .number(let text) = self,
      text.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) })
    else { return nil }
    return Value(text)
  }
}
