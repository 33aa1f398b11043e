import Identity
import Testing

/// The numbers are those of the requirements in the SPIFFE standards, SPIFFE-ID §2.
@Suite struct SPIFFEIDTests {
  private func refusal(_ text: String) -> SPIFFEIDError? {
    do throws(SPIFFEIDError) {
      _ = try SPIFFEID(text)
      return nil
    } catch {
      return error
    }
  }

  @Test func anIDHasATrustDomainAndAPath() throws {
    let id = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web")
    #expect(id.trustDomain.name == "demo.mesh")
    #expect(id.path == "/ns/shop/sa/web")
    #expect(id.description == "spiffe://demo.mesh/ns/shop/sa/web")
  }

  // 1. Scheme, query, fragment (§2).
  @Test(arguments: ["", "spiffe", "spiffe:", "spiffe:/a", "https://demo.mesh/web", "demo.mesh/web"])
  func theSchemeIsSPIFFE(text: String) {
    #expect(refusal(text) == .notSPIFFEScheme)
  }

  @Test(arguments: ["SPIFFE://demo.mesh/web", "Spiffe://demo.mesh/web", " spiffe://demo.mesh/web"])
  func theSchemeIsNotNormalised(text: String) {
    #expect(refusal(text) == .notSPIFFEScheme)
  }

  @Test func aQueryOrFragmentIsRefused() {
    #expect(refusal("spiffe://demo.mesh/web") == nil)
    #expect(refusal("spiffe://demo.mesh/web?x=1") == .invalidPathCharacter)
    #expect(refusal("spiffe://demo.mesh/web#x") == .invalidPathCharacter)
    #expect(refusal("spiffe://demo.mesh?x=1") == .invalidTrustDomain)
    #expect(refusal("spiffe://demo.mesh#x") == .invalidTrustDomain)
  }

  // 2. Trust domain (§2.1, §2.3).
  @Test func aTrustDomainIsNotEmpty() {
    #expect(refusal("spiffe://") == .emptyTrustDomain)
    #expect(refusal("spiffe:///web") == .emptyTrustDomain)
  }

  @Test(arguments: [
    "Demo.mesh", "user@demo.mesh", "demo.mesh:443", "demo%2emesh", "demo mesh", "[::1]", "dém.mesh",
    "demo.mesh\0", "*.mesh", "demo,mesh",
  ])
  func aTrustDomainHasNoOtherCharacters(name: String) {
    #expect(refusal("spiffe://\(name)/web") == .invalidTrustDomain)
    #expect(throws: SPIFFEIDError.invalidTrustDomain) { try TrustDomain(name) }
  }

  @Test func aTrustDomainMayUseEveryAllowedCharacter() throws {
    let name = "abcdefghijklmnopqrstuvwxyz0123456789.-_"
    #expect(try SPIFFEID("spiffe://\(name)/web").trustDomain.name == name)
  }

  @Test func aTrustDomainHasAtMost255Bytes() throws {
    let name = String(repeating: "a", count: 255)
    #expect(try SPIFFEID("spiffe://\(name)/web").trustDomain.name == name)
    #expect(refusal("spiffe://\(name)a/web") == .trustDomainTooLong)
  }

  // 3. Path (§2.2): reject, never normalise.
  @Test(arguments: ["//", "/a//b", "//a", "/a//"])
  func anEmptySegmentIsRefused(path: String) {
    let reason = refusal("spiffe://demo.mesh" + path)
    #expect(reason == .emptyPathSegment || reason == .trailingSlash)
  }

  @Test(arguments: ["/.", "/..", "/a/./b", "/a/../b", "/a/..", "/./a"])
  func aDotSegmentIsRefused(path: String) {
    #expect(refusal("spiffe://demo.mesh" + path) == .dotPathSegment)
  }

  @Test(arguments: ["/", "/a/"])
  func aTrailingSlashIsRefused(path: String) {
    #expect(refusal("spiffe://demo.mesh" + path) == .trailingSlash)
  }

  @Test(arguments: [
    "/a%2fb", "/%61", "/a b", "/é", "/e\u{301}", "/a:b", "/a@b", "/a;b", "/a\\b", "/a\0", "/a\n",
    "/a*", "/~a", "/a+b",
  ])
  func aPathHasNoOtherCharacters(path: String) {
    #expect(refusal("spiffe://demo.mesh" + path) == .invalidPathCharacter)
  }

  @Test(arguments: ["/...", "/.a", "/a.", "/a..b", "/-", "/_", "/ns/Shop/sa/WEB-1_2.x"])
  func ordinarySegmentsAreAccepted(path: String) throws {
    #expect(try SPIFFEID("spiffe://demo.mesh" + path).path == path)
  }

  @Test func pathsAreComparedByCase() throws {
    #expect(try SPIFFEID("spiffe://demo.mesh/web") != SPIFFEID("spiffe://demo.mesh/Web"))
  }

  // 4. Length (§2.3).
  @Test func anIDOf2048BytesIsAccepted() throws {
    let prefix = "spiffe://demo.mesh/"
    let longest = prefix + String(repeating: "a", count: 2048 - prefix.utf8.count)
    #expect(try SPIFFEID(longest).description == longest)
    #expect(refusal(longest + "a") == .tooLong)
  }

  // 5. No special handling (§2.1).
  @Test(arguments: ["127.0.0.1", "256.1.1.1", "localhost", "a..b", ".", "-", "example.com."])
  func trustDomainsThatLookLikeHostsAreJustNames(name: String) throws {
    #expect(try TrustDomain(name).name == name)
    #expect(try SPIFFEID("spiffe://\(name)/web").trustDomain == TrustDomain(name))
  }

  // 7. A workload's ID has a path, a trust domain's has none; both are IDs.
  @Test func anIDWithoutAPathNamesATrustDomain() throws {
    let id = try SPIFFEID("spiffe://demo.mesh")
    #expect(id.path.isEmpty)
    #expect(id.description == "spiffe://demo.mesh")
    #expect(try id != SPIFFEID("spiffe://demo.mesh/web"))
  }

  @Test func idsOfOtherTrustDomainsAreOthers() throws {
    #expect(try SPIFFEID("spiffe://a.mesh/web") != SPIFFEID("spiffe://b.mesh/web"))
    #expect(try TrustDomain("a.mesh") < TrustDomain("b.mesh"))
  }
}
