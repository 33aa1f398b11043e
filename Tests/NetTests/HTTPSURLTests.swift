import Net
import Testing

/// SPIFFE Federation §5.2.1.1: https, no userinfo; and what else would make a URL ambiguous.
@Suite struct HTTPSURLTests {
  private func refusal(_ text: String) -> HTTPSURLError? {
    do throws(HTTPSURLError) {
      _ = try HTTPSURL(text)
      return nil
    } catch {
      return error
    }
  }

  @Test(arguments: [
    ("https://a.example", "a.example", 443, "/"), ("HTTPS://A.Example/B", "a.example", 443, "/B"),
    ("https://a.example:8443/b?c=d&e=/f?g", "a.example", 8443, "/b?c=d&e=/f?g"),
    ("https://a.example?x", "a.example", 443, "/?x"), ("https://127.0.0.1:1/", "127.0.0.1", 1, "/"),
    ("https://[2001:DB8::0:1]:65535/x", "[2001:db8::1]", 65535, "/x"),
    ("https://localhost/%7Euser//x/", "localhost", 443, "/%7Euser//x/"),
    ("https://a_b.example/@:!$&'()*+,;=", "a_b.example", 443, "/@:!$&'()*+,;="),
  ])
  func aURLHasHostPortAndPath(text: String, host: String, port: UInt16, path: String) throws {
    let url = try HTTPSURL(text)
    #expect(url.host == host)
    #expect(url.port == port)
    #expect(url.path == path)
    #expect(try HTTPSURL(url.description) == url)
  }

  @Test func theAuthorityLeavesOutTheDefaultPort() throws {
    #expect(try HTTPSURL("https://a.example:443/x").description == "https://a.example/x")
    #expect(try HTTPSURL("https://[::1]:8443/x").authority == "[::1]:8443")
    #expect(try HTTPSURL("https://[::1]/").address == .loopbackV6)
    #expect(try HTTPSURL("https://127.0.0.1/").address == .loopbackV4)
    #expect(try HTTPSURL("https://a.example/").address == nil)
  }

  @Test(arguments: [
    "", "https:", "https://", "http://a.example/", "a.example", "//a.example", "ftp://a",
  ])
  func `20: the scheme is HTTPS`(text: String) {
    #expect(refusal("https://a.example/") == nil)
    #expect(refusal(text) == .notHTTPS)
  }

  @Test(arguments: ["https://user@a.example/", "https://user:pw@a.example/", "https://@a.example/"])
  func `20: user info is refused`(text: String) {
    #expect(refusal(text) == .userInfo)
  }

  @Test(arguments: ["https://a.example/#x", "https://a.example#", "https://a.example/?x#y"])
  func aFragmentIsRefused(text: String) {
    #expect(refusal(text) == .fragment)
  }

  @Test(arguments: [
    "https://a.example/a b", "https://a.example/\r\nHost: b", "https://a.example/\0", "https://\t",
    "https://a.example/é", "https://ä.example/", "https://a.example\\b/",
    "https://a.example/\u{7f}",
    " https://a.example/", "https://a.example/ ", "https://a.example/\"",
  ])
  func onlyVisibleASCII(text: String) {
    #expect(refusal(text) == .invalidCharacter)
  }

  @Test(arguments: [
    "https:///x", "https://:443/", "https://a..example/", "https://.a/", "https://a.example./",
    "https://-a.example/", "https://a-.example/", "https://a%2eexample/", "https://127.1/",
    "https://2130706433/", "https://127.0.0.256/", "https://a.0x7f/", "https://[127.0.0.1]/",
    "https://[::1/", "https://[]/", "https://[::1%25lo]/", "https://a*b/",
    "https://\(String(repeating: "a", count: 64)).example/",
  ])
  func theHostIsANameOrAnAddress(text: String) {
    #expect(refusal(text) == .invalidHost)
  }

  @Test(arguments: [
    "https://a:/", "https://a:0/", "https://a:65536/", "https://a:+1/", "https://a:443443443/",
    "https://a:x/", "https://a:1:2/", "https://[::1]x/", "https://[::1]:/",
  ])
  func thePortIsANumber(text: String) {
    #expect(refusal(text) == .invalidPort)
  }

  @Test func theLengthHasABound() {
    let prefix = "https://a.example/"
    let path = String(repeating: "a", count: HTTPSURL.maximumBytes - prefix.utf8.count)
    #expect(refusal(prefix + path) == nil)
    #expect(refusal(prefix + path + "a") == .tooLong)
  }

  // The examples of RFC 3986 §5.4 that a Location can be.
  @Test(arguments: [
    ("g", "https://a/b/c/g"), ("./g", "https://a/b/c/g"), ("g/", "https://a/b/c/g/"),
    ("/g", "https://a/g"), ("//g", "https://g/"), ("?y", "https://a/b/c/d;p?y"),
    ("g?y", "https://a/b/c/g?y"), ("", "https://a/b/c/d;p?q"), (".", "https://a/b/c/"),
    ("./", "https://a/b/c/"), ("..", "https://a/b/"), ("../g", "https://a/b/g"),
    ("../..", "https://a/"), ("../../../../g", "https://a/g"), ("/./g", "https://a/g"),
    ("/../g", "https://a/g"), ("g.", "https://a/b/c/g."), ("..g", "https://a/b/c/..g"),
    ("./g/.", "https://a/b/c/g/"), ("g/../h", "https://a/b/c/h"),
    ("g?y/../x", "https://a/b/c/g?y/../x"),
    ("https://other.example:8443/x", "https://other.example:8443/x"),
  ])
  func aLocationIsResolved(location: String, target: String) throws {
    let base = try HTTPSURL("https://a/b/c/d;p?q")
    #expect(try base.resolve(location: location).description == target)
  }

  @Test(
    arguments: [
      ("http://a.example/", .notHTTPS), ("ftp:x", .notHTTPS), ("g:h", .notHTTPS),
      ("https://user@a.example/", .userInfo), ("//user@a.example/", .userInfo), ("/x#y", .fragment),
      ("/a b", .invalidCharacter), ("/a\r\nb", .invalidCharacter), ("//", .notHTTPS),
      ("///x", .invalidHost), ("//a:0/", .invalidPort),
      ("/" + String(repeating: "a", count: HTTPSURL.maximumBytes), .tooLong),
      (String(repeating: "a", count: HTTPSURL.maximumBytes), .tooLong),
    ] as [(String, HTTPSURLError)])
  func aLocationIsHeldToTheSameRules(location: String, error: HTTPSURLError) throws {
    let base = try HTTPSURL("https://a.example/b")
    #expect(throws: error) { try base.resolve(location: location) }
  }
}
