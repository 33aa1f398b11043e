import Foundation
import Identity
import Testing

@testable import TLS

/// A bundle as others read it: SPIFFE Trust Domain and Bundle §4, RFC 7517, RFC 7518 §6.
@Suite struct JWKSTests {
  private struct Document: Decodable {
    struct Key: Decodable {
      let kty: String
      let use: String
      let crv: String?
      let x: String?
      let y: String?
      let n: String?
      let e: String?
      let x5c: [String]
      let kid: String?
    }
    let keys: [Key]
    let sequence: UInt64?
    let refreshHint: Int?

    enum CodingKeys: String, CodingKey {
      case keys
      case sequence = "spiffe_sequence"
      case refreshHint = "spiffe_refresh_hint"
    }
  }

  private func authority(_ key: Recipe.KeyKind) -> TestCertificate {
    TestCertificate(Recipe.authority("demo.mesh").with { $0.key = key })
  }

  private func bytes(_ base64url: String?) -> [UInt8]? {
    guard let base64url else { return nil }
    let text = base64url.replacing("-", with: "+").replacing("_", with: "/")
    return Base64.decode(text + String(repeating: "=", count: (4 - text.utf8.count % 4) % 4))
  }

  @Test func eachAuthorityIsAKeyWithItsParameters() throws {
    let authorities = [authority(.p256), authority(.p384), authority(.rsa)]
    let text = try TrustBundle("demo.mesh", authorities).jwks(
      sequence: .max, refreshHintSeconds: 300)
    let document = try JSONDecoder().decode(Document.self, from: Data(text))
    #expect(document.sequence == .max)
    #expect(document.refreshHint == 300)
    #expect(document.keys.map(\.kty) == ["EC", "EC", "RSA"])
    #expect(document.keys.map(\.crv) == ["P-256", "P-384", nil])
    #expect(document.keys.allSatisfy { $0.use == "x509-svid" && $0.kid == nil })
    for (key, size) in zip(document.keys, [32, 48]) {
      #expect(bytes(key.x)?.count == size)
      #expect(bytes(key.y)?.count == size)
    }
    #expect(bytes(document.keys[2].n)?.count == 256)
    #expect(document.keys[2].e == "AQAB")
    for (key, authority) in zip(document.keys, authorities) {
      #expect(key.x5c.map(Base64.decode) == [authority.certificate.der])
      // The public key in the certificate ends with the same numbers.
      let point = (bytes(key.x) ?? []) + (bytes(key.y) ?? [])
      #expect(authority.certificate.der.contains(bytes(key.n) ?? point))
    }
  }

  @Test func whatIsWrittenIsRead() throws {
    let authorities = [authority(.p256), authority(.rsa)]
    let text = try TrustBundle("demo.mesh", authorities).jwks(
      sequence: nil, refreshHintSeconds: nil)
    #expect(
      try SPIFFEBundle(jwks: text)
        == SPIFFEBundle(
          sequence: nil, refreshHintSeconds: nil,
          x509Authorities: authorities.map(\.certificate.der)))
  }
}
