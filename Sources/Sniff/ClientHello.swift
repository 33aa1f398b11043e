/// What a TLS ClientHello says that matters before anything is decrypted.
///
/// Texts in it come from an unauthenticated client: bytes that are not printable ASCII, and the
/// backslash, are shown as `\xNN`, so that they can go into a log line as they are.
package struct ClientHello: Hashable, Sendable {
  /// The largest hello that is read, TLS record headers included. Post-quantum key shares take
  /// about 2 KiB; nothing ordinary comes near it.
  package static let maximumBytes = 65_536
  /// How many names of `alpn` and numbers of `versions` are kept.
  package static let maximumListed = 16

  /// The host name of the server_name extension (RFC 6066 §3), ASCII letters in lower case.
  package let serverName: String?
  /// The application protocols offered (RFC 7301), in the client's order; GREASE included.
  package let alpn: [String]
  /// The TLS versions offered (RFC 8446 §4.2.1), for example 0x0304, without GREASE; the
  /// hello's own version if it lists none.
  package let versions: [UInt16]
  /// Whether a mesh protocol (`culvert/1` or `istio`) is among all the protocols offered.
  package let offersMesh: Bool
  /// How many bytes of the buffer the hello's records take; what follows is something else.
  package let recordBytes: Int

  package init(
    serverName: String?, alpn: [String], versions: [UInt16], offersMesh: Bool, recordBytes: Int
  ) {
    self.serverName = serverName
    self.alpn = alpn
    self.versions = versions
    self.offersMesh = offersMesh
    self.recordBytes = recordBytes
  }
}

extension ClientHello {
  /// Parses the body of a ClientHello message (RFC 8446 §4.1.2): `tls` or `malformed`.
  static func parse(_ bytes: RawSpan, _ range: Range<Int>, recordBytes: Int) -> Classification {
    do throws(Malformed) {
      let fields = try Fields(bytes, range)
      return .tls(
        ClientHello(
          serverName: fields.serverName, alpn: fields.alpn ?? [],
          versions: fields.versions ?? [fields.legacyVersion], offersMesh: fields.offersMesh,
          recordBytes: recordBytes))
    } catch {
      return .malformed
    }
  }
}

private struct Malformed: Error {}

/// The hello's fields as they are read.
private struct Fields {
  var legacyVersion: UInt16
  var hasServerNameList = false
  var serverName: String?
  var alpn: [String]?
  var versions: [UInt16]?
  var offersMesh = false

  init(_ bytes: RawSpan, _ range: Range<Int>) throws(Malformed) {
    var body = Cursor(range)
    legacyVersion = try body.readUInt16(bytes)
    guard legacyVersion >> 8 == 3 else { throw Malformed() }
    _ = try body.read(32)  // random
    let sessionID = try body.readVector8(bytes)
    guard sessionID.remaining <= 32 else { throw Malformed() }
    let cipherSuites = try body.readVector16(bytes)
    guard cipherSuites.remaining >= 2, cipherSuites.remaining % 2 == 0 else { throw Malformed() }
    let compressionMethods = try body.readVector8(bytes)
    guard !compressionMethods.isEmpty else { throw Malformed() }
    // Before TLS 1.3 a hello may end here.
    if body.isEmpty { return }
    var extensions = try body.readVector16(bytes)
    guard body.isEmpty else { throw Malformed() }
    while !extensions.isEmpty {
      let type = try extensions.readUInt16(bytes)
      var content = try extensions.readVector16(bytes)
      // Others, GREASE and ECH among them, are the server's business.
      switch type {
      case 0: try readServerName(bytes, &content)
      case 16: try readALPN(bytes, &content)
      case 43: try readVersions(bytes, &content)
      default: break
      }
    }
  }

  /// ServerNameList (RFC 6066 §3). A second name of the same type is forbidden there: two readers
  /// could choose differently.
  private mutating func readServerName(
    _ bytes: RawSpan, _ content: inout Cursor
  ) throws(Malformed) {
    guard !hasServerNameList else { throw Malformed() }
    hasServerNameList = true
    var list = try content.readVector16(bytes)
    guard content.isEmpty, !list.isEmpty else { throw Malformed() }
    while !list.isEmpty {
      let type = try list.readUInt8(bytes)
      let name = try list.readVector16(bytes)
      guard type == 0 else { continue }
      guard serverName == nil, (1...255).contains(name.remaining), !name.contains(0, in: bytes)
      else { throw Malformed() }
      serverName = name.text(bytes, lowercased: true)
    }
  }

  /// ProtocolNameList (RFC 7301 §3.1).
  private mutating func readALPN(_ bytes: RawSpan, _ content: inout Cursor) throws(Malformed) {
    guard alpn == nil else { throw Malformed() }
    var list = try content.readVector16(bytes)
    guard content.isEmpty, !list.isEmpty else { throw Malformed() }
    var names: [String] = []
    while !list.isEmpty {
      let name = try list.readVector8(bytes)
      guard !name.isEmpty else { throw Malformed() }
      offersMesh =
        offersMesh || name.equals("culvert/1", in: bytes)
        || name.equals("istio", in: bytes)
      if names.count < ClientHello.maximumListed { names.append(name.text(bytes)) }
    }
    alpn = names
  }

  /// SupportedVersions (RFC 8446 §4.2.1).
  private mutating func readVersions(_ bytes: RawSpan, _ content: inout Cursor) throws(Malformed) {
    guard versions == nil else { throw Malformed() }
    var list = try content.readVector8(bytes)
    guard content.isEmpty, !list.isEmpty else { throw Malformed() }
    var numbers: [UInt16] = []
    while !list.isEmpty {
      let version = try list.readUInt16(bytes)
      // GREASE (RFC 8701): 0x0a0a, 0x1a1a … 0xfafa.
      let isGrease = version & 0x0f0f == 0x0a0a && version >> 8 == version & 0xff
      if !isGrease, numbers.count < ClientHello.maximumListed { numbers.append(version) }
    }
    versions = numbers
  }
}

/// A range of the hello that is being read front to back.
private struct Cursor {
  private var offset: Int
  private let end: Int

  init(_ range: Range<Int>) {
    offset = range.lowerBound
    end = range.upperBound
  }

  var remaining: Int { end - offset }
  var isEmpty: Bool { remaining == 0 }

  mutating func read(_ count: Int) throws(Malformed) -> Cursor {
    guard count <= remaining else { throw Malformed() }
    defer { offset += count }
    return Cursor(offset..<offset + count)
  }

  mutating func readUInt8(_ bytes: RawSpan) throws(Malformed) -> UInt8 {
    bytes.byte(at: try read(1).offset)
  }

  mutating func readUInt16(_ bytes: RawSpan) throws(Malformed) -> UInt16 {
    let field = try read(2)
    return UInt16(bytes.byte(at: field.offset)) << 8 | UInt16(bytes.byte(at: field.offset + 1))
  }

  /// A vector with a length of one byte (RFC 8446 §3.4).
  mutating func readVector8(_ bytes: RawSpan) throws(Malformed) -> Cursor {
    try read(Int(try readUInt8(bytes)))
  }

  /// A vector with a length of two bytes.
  mutating func readVector16(_ bytes: RawSpan) throws(Malformed) -> Cursor {
    try read(Int(try readUInt16(bytes)))
  }

  func equals(_ text: StaticString, in bytes: RawSpan) -> Bool {
    guard remaining == text.utf8CodeUnitCount else { return false }
    return (0..<remaining).allSatisfy { index in
      // The index is below the text's length.
      unsafe bytes.byte(at: offset + index) == text.utf8Start[index]
    }
  }

  func contains(_ byte: UInt8, in bytes: RawSpan) -> Bool {
    for index in offset..<end where bytes.byte(at: index) == byte { return true }
    return false
  }

  /// The rest as printable ASCII.
  func text(_ bytes: RawSpan, lowercased: Bool = false) -> String {
    var text = ""
    text.reserveCapacity(remaining)
    for index in offset..<end {
      let byte = bytes.byte(at: index)
      switch byte {
      case UInt8(ascii: "A")...UInt8(ascii: "Z") where lowercased:
        text.unicodeScalars.append(Unicode.Scalar(byte | 0x20))
      case 0x20...0x7e where byte != UInt8(ascii: "\\"):
        text.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        text += "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
      }
    }
    return text
  }
}
