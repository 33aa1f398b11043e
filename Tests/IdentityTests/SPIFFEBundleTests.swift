import Identity
import Testing

/// The numbers are those of the requirements in the SPIFFE standards: Trust Domain and Bundle §4,
/// §5.1 and X509-SVID §6.
@Suite struct SPIFFEBundleTests {
  /// A JWK that is taken, with one member changed, added or (nil) left out.
  static func key(_ changes: [String: String?] = [:], der: [UInt8] = [0x30, 0x00]) -> String {
    var members: [String: String?] = [
      "kty": #""EC""#, "use": #""x509-svid""#, "x5c": #"["\#(Base64.encode(der))"]"#,
    ]
    members.merge(changes) { $1 }
    let texts = members.compactMap { name, value in value.map { #""\#(name)":\#($0)"# } }
    return "{" + texts.sorted().joined(separator: ",") + "}"
  }

  static func document(_ keys: String..., more: String = "") -> String {
    #"{"keys":[\#(keys.joined(separator: ","))]\#(more)}"#
  }

  func bundle(_ text: String) throws -> SPIFFEBundle { try SPIFFEBundle(jwks: Array(text.utf8)) }

  func refusal(_ text: String) -> SPIFFEBundleError.Reason? { refusal(Array(text.utf8)) }

  func refusal(_ document: [UInt8]) -> SPIFFEBundleError.Reason? {
    do throws(SPIFFEBundleError) {
      _ = try SPIFFEBundle(jwks: document)
      return nil
    } catch {
      return error.reason
    }
  }

  @Test func aBundleHasASequenceAHintAndAuthoritiesInOrder() throws {
    let text = Self.document(
      Self.key(der: [1]), Self.key(["kty": #""RSA""#], der: [2]), Self.key(der: [3]),
      more: #","spiffe_sequence":7,"spiffe_refresh_hint":600,"other":{"a":[1,-2.5e3,null,true]}"#)
    let bundle = try bundle(text)
    #expect(
      bundle
        == SPIFFEBundle(
          sequence: 7, refreshHintSeconds: 600, x509Authorities: [[1], [2], [3]], ignoredKeys: 0))
  }

  // 14. Unknown type, unknown or missing use (TB §4.2).
  @Test(
    arguments: [
      ["kty": #""oct""#], ["kty": #""ec""#], ["kty": nil], ["kty": "1"], ["use": #""X509-SVID""#],
      ["use": #""x509-SVID""#], ["use": #""sig""#], ["use": nil], ["use": #"["x509-svid"]"#],
      // Of an unknown kind, so nothing else about it matters.
      ["use": #""wit-svid""#, "x5c": #""!""#],
    ] as [[String: String?]])
  func `14: a key of unknown type or use is ignored`(changes: [String: String?]) throws {
    #expect(try bundle(Self.document(Self.key(der: [1]))).x509Authorities == [[1]])
    let bundle = try bundle(Self.document(Self.key(changes, der: [1]), Self.key(der: [2])))
    #expect(bundle.x509Authorities == [[2]])
    #expect(bundle.ignoredKeys == 1)
  }

  @Test func aJWTKeyIsKnownAndNotOurs() throws {
    let bundle = try bundle(
      Self.document(Self.key(["use": #""jwt-svid""#, "x5c": nil]), Self.key(der: [2])))
    #expect(bundle.x509Authorities == [[2]])
    #expect(bundle.ignoredKeys == 0)
  }

  // 15. x5c (X509-SVID §6.2).
  @Test(arguments: [nil, "[]"] as [String?])
  func `15: an x509-svid key without a certificate is ignored`(x5c: String?) throws {
    #expect(try bundle(Self.document(Self.key(der: [1]))).x509Authorities == [[1]])
    let bundle = try bundle(Self.document(Self.key(["x5c": x5c]), Self.key(der: [2])))
    #expect(bundle.x509Authorities == [[2]])
    #expect(bundle.ignoredKeys == 1)
  }

  @Test(arguments: [#"["AQ==","Ag=="]"#, #"["AQ==","!"]"#, #"["AQ==",5]"#])
  func `15: only the first certificate of a key is used`(x5c: String) throws {
    #expect(try bundle(Self.document(Self.key(["x5c": x5c]))).x509Authorities == [[1]])
  }

  @Test(arguments: [
    #"["AQ"]"#, #"["AQ=="#, #"["_-8="]"#, #"["AR=="]"#, #"["A==="]"#, #"["===="]"#, #"["AQ==\n"]"#,
    #"[" AQ=="]"#, #"[""]"#, "[5]", "[null]", #"[["AQ=="]]"#, #""AQ==""#, "{}", "null",
  ])
  func aCertificateThatCannotBeReadRefusesTheDocument(x5c: String) {
    #expect(refusal(Self.document(Self.key(["x5c": #"["AQ=="]"#]))) == nil)
    let reason = refusal(Self.document(Self.key(der: [2]), Self.key(["x5c": x5c])))
    #expect(reason == (x5c.hasSuffix("=") ? .malformedJSON : .invalidX5C))
  }

  // 16. No usable key (TB §4.1.3): not an error, but nobody is trusted.
  @Test(arguments: [[], [key(["use": #""sig""#])], [key(["x5c": "[]"])], [key(["kty": nil])]])
  func `16: without a usable key there is no authority`(keys: [String]) throws {
    #expect(try bundle(Self.document(Self.key())).x509Authorities.count == 1)
    #expect(
      try bundle(#"{"keys":[\#(keys.joined())]}"#).x509Authorities.isEmpty)
  }

  @Test(arguments: ["{}", #"{"keys":null}"#, #"{"keys":{}}"#, #"{"keys":"a"}"#, #"{"Keys":[]}"#])
  func keysMustBeThere(text: String) {
    #expect(refusal(#"{"keys":[]}"#) == nil)
    #expect(refusal(text) == .keysMissing)
  }

  // 17. Sequence (TB §4.1.1).
  @Test(arguments: [("0", 0), ("9007199254740993", 1 << 53 + 1), ("18446744073709551615", .max)])
  func `17: a sequence has 64 bits`(text: String, value: UInt64) throws {
    #expect(try bundle(Self.document(more: ",\"spiffe_sequence\":\(text)")).sequence == value)
  }

  @Test(arguments: [
    "-1", "-0", "1.0", "1.5", "1e3", "18446744073709551616", "1e400", #""1""#, "null", "true",
    "[1]",
    String(repeating: "9", count: 10_000),
  ])
  func anythingElseIsNoSequence(text: String) throws {
    #expect(try bundle(Self.document()).sequence == nil)
    #expect(refusal(Self.document(more: ",\"spiffe_sequence\":\(text)")) == .invalidSequence)
  }

  @Test(arguments: ["0", "-1", "1.0", "9223372036854775808", #""300""#, "null"])
  func aRefreshHintIsAPositiveInteger(text: String) throws {
    let good = try bundle(Self.document(more: #","spiffe_refresh_hint":1"#))
    #expect(good.refreshHintSeconds == 1)
    #expect(refusal(Self.document(more: ",\"spiffe_refresh_hint\":\(text)")) == .invalidRefreshHint)
  }

  @Test(arguments: ["null", "5", #""x509-svid""#, "[]"])
  func aKeyIsAnObject(text: String) {
    #expect(refusal(Self.document(text)) == .keyNotAnObject)
  }

  // MARK: Hostile documents

  @Test(arguments: [
    #"{"keys":[],"keys":[]}"#, #"{"keys":[],"k\u0065ys":[]}"#, #"{"keys":[],"\u006beys":[]}"#,
    #"{"keys":[{"kty":"EC","use":"jwt-svid","us\u0065":"x509-svid"}]}"#,
    #"{"keys":[],"a":{"b":{"c":1,"c":1}}}"#, #"{"keys":[],"":1,"":2}"#,
    #"{"keys":[],"\ud83d\ude00":1,"😀":2}"#, #"{"keys":[{"a/b":1,"a\/b":1}]}"#,
  ])
  func aNameThatOccursTwiceIsRefused(text: String) {
    #expect(refusal(text) == .duplicateMember)
  }

  @Test func aNameMayOccurInTwoObjects() {
    #expect(
      refusal(Self.document(Self.key(), Self.key(), more: #","kty":1,"use":{"use":1}"#)) == nil)
  }

  @Test(arguments: [
    "", " ", "{", #"{"keys""#, #"{"keys":"#, #"{"keys":["#, #"{"keys":[]"#, #"{"keys":[],}"#,
    #"{"keys":[1,]}"#, #"{"keys":[]} x"#, #"{"keys":[]}{}"#, #"{'keys':[]}"#, #"{keys:[]}"#,
    #"{"keys":[]/**/}"#, #"{"keys":[],"a":01}"#, #"{"keys":[],"a":.5}"#, #"{"keys":[],"a":1.}"#,
    #"{"keys":[],"a":+1}"#, #"{"keys":[],"a":-}"#, #"{"keys":[],"a":1e}"#, #"{"keys":[],"a":NaN}"#,
    #"{"keys":[],"a":tru}"#, #"{"keys":[],"a":nul}"#, #"{"keys":[],"a":"\x"}"#,
    #"{"keys":[],"a":"\u12"}"#, #"{"keys":[],"a":"\u12g4"}"#, #"{"keys":[],"a":"\ud800"}"#,
    #"{"keys":[],"a":"\ud800\ud800"}"#, #"{"keys":[],"a":"\udc00"}"#, #"{"keys":[],"a":"\ud800x"}"#,
    "{\"keys\":[],\"a\":\"\n\"}", "{\"keys\":[],\"a\":\"\0\"}", "\u{feff}{\"keys\":[]}",
    #"{"keys":[],"a":"\"#, #"{"keys":[],"a":"\u"#,
  ])
  func whatIsNotJSONIsRefused(text: String) {
    #expect(refusal(#" {"keys" : [ ] , "a":"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00"} "#) == nil)
    #expect(refusal(text) == .malformedJSON)
  }

  @Test func whatIsNotUTF8IsRefused() {
    let text = #"{"keys":[],"a":"b"}"#
    #expect(refusal(Array(text.utf8)) == nil)
    #expect(refusal(text.utf8.map { $0 == UInt8(ascii: "b") ? 0xff : $0 }) == .malformedJSON)
    #expect(refusal(text.utf8.flatMap { [$0, 0] }) == .malformedJSON)
  }

  @Test(arguments: ["[]", "null", "5", #""keys""#])
  func aDocumentIsAnObject(text: String) {
    #expect(refusal(text) == .notAnObject)
  }

  @Test(arguments: [("[", "]"), (#"{"a":"#, "}")])
  func nestingHasABound(open: String, close: String) {
    func nested(_ depth: Int) -> String {
      let value =
        String(repeating: open, count: depth) + "1" + String(repeating: close, count: depth)
      return Self.document(more: ",\"b\":\(value)")
    }
    #expect(refusal(nested(14)) == nil)
    #expect(refusal(nested(15)) == .tooDeep)
    #expect(refusal(nested(1_000_000 / open.utf8.count)) == .tooDeep)
    #expect(refusal(String(repeating: open, count: 100_000)) == .tooDeep)
  }

  @Test func sizesHaveBounds() {
    func keys(_ count: Int) -> String {
      #"{"keys":[\#(repeatElement(Self.key(), count: count).joined(separator: ","))]}"#
    }
    #expect(refusal(keys(SPIFFEBundle.maximumKeys)) == nil)
    #expect(refusal(keys(SPIFFEBundle.maximumKeys + 1)) == .tooManyKeys)
    let document = Array(#"{"keys":[]}"#.utf8)
    let space = [UInt8](
      repeating: 0x20, count: SPIFFEBundle.maximumDocumentBytes - document.count)
    #expect(refusal(document + space) == nil)
    #expect(refusal(document + space + [0x20]) == .tooLarge)
    let zeros = repeatElement("0", count: 70_000).joined(separator: ",")
    #expect(refusal(#"{"keys":[],"a":[\#(zeros)]}"#) == .tooManyValues)
  }

  @Test func anErrorSaysWhere() {
    #expect(throws: SPIFFEBundleError.self) { try bundle(#"{"keys":[],"keys":[]}"#) }
    do throws(SPIFFEBundleError) {
      _ = try SPIFFEBundle(jwks: Array(#"{"keys":[],"keys":[]}"#.utf8))
    } catch {
      #expect(error.description == "duplicate_member: at byte 11")
    }
  }
}

@Suite struct SPIFFEBundleMapTests {
  private func refusal(_ text: String) -> SPIFFEBundleError? {
    do throws(SPIFFEBundleError) {
      _ = try SPIFFEBundleMap(document: Array(text.utf8))
      return nil
    } catch {
      return error
    }
  }

  private func map(_ domains: String) -> String { #"{"trust_domains":{\#(domains)}}"# }

  @Test func aMapKeepsTheBundlesApart() throws {
    let one = SPIFFEBundleTests.document(SPIFFEBundleTests.key(der: [1]))
    let two = SPIFFEBundleTests.document(
      SPIFFEBundleTests.key(der: [2]), more: #","spiffe_sequence":5"#)
    let text = map(#""one.example":\#(one),"two.example":\#(two)"#)
    let bundles = try SPIFFEBundleMap(document: Array(text.utf8)).bundles
    #expect(bundles.count == 2)
    #expect(try bundles[TrustDomain("one.example")]?.x509Authorities == [[1]])
    #expect(try bundles[TrustDomain("two.example")]?.x509Authorities == [[2]])
    #expect(try bundles[TrustDomain("two.example")]?.sequence == 5)
  }

  // 19. Duplicates are rejected, maps load atomically (TB §5.1).
  @Test(arguments: [#""a.example""#, #""\u0061.example""#, #""a\u002eexample""#])
  func `19: a trust domain that occurs twice is refused`(name: String) {
    let empty = #"{"keys":[]}"#
    #expect(refusal(map(#""a.example":\#(empty),"b.example":\#(empty)"#)) == nil)
    #expect(refusal(map(#""a.example":\#(empty),\#(name):\#(empty)"#))?.reason == .duplicateMember)
  }

  @Test func `19: one bad bundle refuses the whole map`() {
    let good = SPIFFEBundleTests.document(SPIFFEBundleTests.key())
    #expect(refusal(map(#""a.example":\#(good)"#)) == nil)
    let bad = SPIFFEBundleTests.document(SPIFFEBundleTests.key(["x5c": #"["!"]"#]))
    let error = refusal(map(#""a.example":\#(good),"b.example":\#(bad)"#))
    #expect(error?.description == "invalid_x5c: b.example, key 1")
    #expect(refusal(map(#""a.example":\#(good),"b.example":{}"#))?.reason == .keysMissing)
    #expect(refusal(map(#""a.example":\#(good),"b.example":[]"#))?.reason == .notAnObject)
  }

  @Test(arguments: [
    "", "A.example", "spiffe://a.example", "a.example/x", "a example", "a.example:1",
  ])
  func aTrustDomainMustBeOne(name: String) {
    #expect(refusal(map(#""a.example":{"keys":[]}"#)) == nil)
    #expect(refusal(map(#""\#(name)":{"keys":[]}"#))?.reason == .invalidTrustDomain)
  }

  @Test(arguments: ["{}", #"{"keys":[]}"#, #"{"trust_domains":[]}"#])
  func aMapHasTrustDomains(text: String) {
    #expect(refusal(map("")) == nil)
    #expect(refusal(text)?.reason == .trustDomainsMissing)
  }

  @Test func aMapHasABound() {
    func domains(_ count: Int) -> String {
      map((0..<count).map { #""d\#($0)":{"keys":[]}"# }.joined(separator: ","))
    }
    #expect(refusal(domains(SPIFFEBundleMap.maximumTrustDomains)) == nil)
    let reason = refusal(domains(SPIFFEBundleMap.maximumTrustDomains + 1))?.reason
    #expect(reason == .tooManyTrustDomains)
  }
}

@Suite struct Base64Tests {
  // RFC 4648 §10.
  @Test(arguments: [
    ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="),
    ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
  ])
  func theVectorsOfTheStandard(plain: String, encoded: String) {
    #expect(Base64.encode(Array(plain.utf8)) == encoded)
    #expect(Base64.decode(encoded) == Array(plain.utf8))
  }

  @Test func theAlphabetForURLsIsNotPadded() {
    #expect(Base64.encode([0xfb, 0xff]) == "+/8=")
    #expect(Base64.encodeURL([0xfb, 0xff]) == "-_8")
    #expect(Base64.decode("-_8=") == nil)
  }
}
