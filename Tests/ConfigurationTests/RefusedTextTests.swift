import Configuration
import Testing

@Suite struct RefusedTexts {
  @Test(arguments: [
    ("", "1:1: the file is empty"), ("\n# nothing\n", "1:1: the file is empty"),
    ("---\n", "2:1: expected a mapping, found nothing"),
    ("hello", "1:1: expected a mapping, found \"hello\""),
    ("[]", "1:1: expected a mapping, found a list"),
    ("workload: {}\nworkload: {}\n", "2:1: \"workload\" is given twice, first on line 1"),
    ("a: &x 1\n", "1:4: anchors are not supported; write the value out"),
    ("a: &x [1]\n", "1:4: anchors are not supported; write the value out"),
    ("a: &x {}\n", "1:4: anchors are not supported; write the value out"),
    ("a: *x\n", "1:4: aliases are not supported; write the value out"),
    ("a: !!str 1\n", "1:4: tags are not supported"), ("a: !x {}\n", "1:4: tags are not supported"),
    ("a: ! b\n", "1:4: tags are not supported"),
    ("[a]: 1\n", "1:1: a key must be a text, found a list"),
    ("? {a: 1}\n: 2\n", "1:3: a key must be a text, found a mapping"),
    ("a: 1\n---\nb: 2\n", "2:1: a second YAML document; there must be one"),
    ("a: 1\n\tb: 2\n", "2:1: YAML must be indented with spaces, found a tab"),
    ("a:\n\tb: 2\n", "2:1: YAML must be indented with spaces, found a tab"),
    (
      "a: [1\n",
      "2:1: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence"
    ),
    (
      "a: \"b\n",
      "2:1: not valid YAML: found unexpected end of stream while scanning a quoted scalar"
    ),
    (
      "a: [::1]\n",
      "1:5: not valid YAML: did not find expected node content while parsing a flow node; an address"
        + " that begins with :: must be quoted"
    ),
    ("a: b: c\n", "1:5: not valid YAML: mapping values are not allowed in this context"),
    ("a: 1\nb\n", "3:1: not valid YAML: could not find expected ':' while scanning a simple key"),
  ])
  func whatIsNoConfigurationIsSaidWithItsPlace(text: String, complaint: String) {
    #expect(Sample.complaint(text) == "c.yaml:" + complaint)
  }

  @Test(
    arguments: [
      ([97, 58, 32, 0, 10], "1:4: not valid UTF-8 text: control characters are not allowed"),
      ([97, 58, 10, 32, 7], "2:2: not valid UTF-8 text: control characters are not allowed"),
      (
        [35, 0xc3, 0xa9, 10, 0xc3, 0xa9, 0xff],
        "2:2: not valid UTF-8 text: invalid leading UTF-8 octet"
      ),
      ([97, 0xc3], "1:2: not valid UTF-8 text: incomplete UTF-8 octet sequence"),
      // UTF-16 with its byte order mark.
      ([0xff, 0xfe, 97, 0], "1:1: not valid UTF-8 text: invalid leading UTF-8 octet"),
    ] as [([UInt8], String)])
  func bytesThatAreNoTextAreRefused(bytes: [UInt8], complaint: String) {
    #expect(Sample.complaint(bytes) == "c.yaml:" + complaint)
  }

  @Test func depthIsBounded() {
    let open = String(repeating: "[", count: 5000)
    #expect(Sample.complaint(open) == "c.yaml:1:17: nested deeper than 16 levels")
  }

  @Test func theNumberOfValuesIsBounded() {
    let list = String(repeating: "a,", count: 100_000)
    #expect(Sample.complaint("a: [\(list)]")?.hasSuffix(": more than 100000 values") == true)
  }

  @Test func theSizeIsBounded() {
    let padding = String(repeating: "#", count: Settings.maximumFileBytes - Sample.least.utf8.count)
    #expect(Sample.complaint(Sample.least + padding) == nil)
    #expect(
      Sample.complaint(Sample.least + padding + "#")
        == "c.yaml:1:1: the file is larger than 1048576 bytes")
  }

  @Test func aMessageIsOneBoundedLine() throws {
    let long = String(repeating: "x\\n", count: 5000)
    let complaint = try #require(Sample.complaint(Sample.least + "workers: \"\(long)\""))
    #expect(complaint.utf8.count < 300)
    #expect(!complaint.contains("\n"))
  }

  @Test func everyTruncationIsAValueOrAnError() {
    let bytes = Array(Sample.text.utf8)
    for count in 0..<bytes.count {
      let complaint = Sample.complaint(Array(bytes[..<count]))
      if let complaint { #expect(complaint.hasPrefix("c.yaml:") && !complaint.contains("\n")) }
    }
    #expect(Sample.complaint(bytes) == nil)
  }

  @Test func truncationsWithinTheRequiredPartAreErrors() throws {
    let bytes = Array(Sample.least.utf8)
    // The closing bracket is the last byte that matters.
    let end = try #require(bytes.lastIndex(of: UInt8(ascii: "]")))
    for count in 0...end { #expect(Sample.complaint(Array(bytes[..<count])) != nil) }
    #expect(Sample.complaint(Array(bytes[...end])) == nil)
  }

  @Test func everyOverwrittenByteIsAValueOrAnError() {
    let bytes = Array(Sample.text.utf8)
    for replacement in Array("\0\t\n\"'{}[]:-,#&*!|>%@`?\u{7f}".utf8) + [0x80, 0xff] {
      for index in stride(from: Int(replacement) % 7, to: bytes.count, by: 7) {
        var changed = bytes
        changed[index] = replacement
        _ = Sample.complaint(changed)
      }
    }
  }
}
