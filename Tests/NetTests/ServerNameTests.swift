import Net
import Testing

@Suite struct ServerNameTests {
  @Test(arguments: [
    ("a.example", ServerName.name("a.example")), ("A.Example", .name("a.example")),
    ("localhost", .name("localhost")), ("a_b-c.1x.example", .name("a_b-c.1x.example")),
    ("xn--e1afmkfd.example", .name("xn--e1afmkfd.example")), ("::1", .address(.loopbackV6)),
    ("127.0.0.1", .address(.loopbackV4)), ("::ffff:127.0.0.1", .address(.loopbackV4)),
  ])
  func isANameOrAnAddress(text: String, name: ServerName) throws {
    #expect(ServerName(text) == name)
    #expect(ServerName(name.description) == name)
  }

  @Test func theLongestNameHas253Bytes() {
    let labels = Array(repeating: String(repeating: "a", count: 63), count: 3)
    let longest = (labels + [String(repeating: "b", count: 61)]).joined(separator: ".")
    #expect(longest.utf8.count == ServerName.maximumBytes)
    #expect(ServerName(longest) == .name(longest))
    #expect(ServerName(longest + "b") == nil)
    #expect(ServerName(String(repeating: "a", count: 64)) == nil)
  }

  @Test(arguments: [
    "", ".", "a.", ".a", "a..b", "-a", "a-", "*.a", "a b", "a:1", "[::1]", "127.1", "0x7f.1", "1",
    "256.0.0.1", "a\0b", "a/b", "ä", "\u{212a}", "::1%lo",
  ])
  func everythingElseIsNeither(text: String) { #expect(ServerName(text) == nil) }
}
