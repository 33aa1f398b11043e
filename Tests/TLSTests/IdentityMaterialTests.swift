import Foundation
import Identity
import Testing

@testable import TLS

/// Files of one test, in a directory of their own.
final class Files {
  let directory: String

  init() throws {
    let url = FileManager.default.temporaryDirectory.appending(
      path: "culvert-tls-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    directory = url.path
  }

  deinit { try? FileManager.default.removeItem(atPath: directory) }

  func path(_ name: String) -> String { "\(directory)/\(name)" }

  @discardableResult
  func write(_ name: String, _ text: String, mode: Int = 0o600) throws -> String {
    try Data(text.utf8).write(to: URL(filePath: path(name)))
    try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path(name))
    return path(name)
  }
}

/// An identity as files, of which a test spoils one.
final class IdentityFiles {
  let files: Files
  let root = TestCertificate(.authority("demo.mesh"))
  let leaf: TestCertificate
  let certificate: String
  let key: String
  let bundle: String

  init(_ recipe: Recipe = Recipe()) throws {
    files = try Files()
    leaf = TestCertificate(recipe, issuer: root)
    certificate = try files.write("svid.pem", leaf.pem, mode: 0o644)
    key = try files.write("svid.key", leaf.keyPEM)
    bundle = try files.write("bundle.pem", root.pem, mode: 0o644)
  }

  func load(_ more: [(trustDomain: TrustDomain, pem: String)] = []) throws(IdentityError)
    -> IdentityMaterial
  {
    try IdentityMaterial.load(
      certificate: certificate, privateKey: key,
      bundles: [(trustDomain: try! TrustDomain("demo.mesh"), pem: bundle)] + more)
  }

  /// Loading fails in that file, and the text says this.
  func refuses(
    _ file: String, _ text: String, location: SourceLocation = #_sourceLocation
  ) {
    let error = #expect(throws: IdentityError.self, sourceLocation: location) { try load() }
    guard let error else { return }
    #expect(error.file == file, sourceLocation: location)
    #expect(error.reason.contains(text), "\(error)", sourceLocation: location)
    #expect(error.description.hasPrefix("\(file): "), sourceLocation: location)
    #expect(!error.description.contains("\n"), sourceLocation: location)
  }

  /// It loads; after the change it does not.
  func refuses(
    _ file: String, _ text: String, location: SourceLocation = #_sourceLocation,
    after change: () throws -> Void
  ) throws {
    let id = try load().id
    #expect(id == .web, sourceLocation: location)
    try change()
    refuses(file, text, location: location)
  }
}

@Suite struct IdentityMaterialTests {
  let it: IdentityFiles

  init() throws { it = try IdentityFiles() }

  private static func block(_ text: String) -> String {
    "-----BEGIN CERTIFICATE-----\n\(text)\n-----END CERTIFICATE-----\n"
  }

  @Test func `an identity is read from its files`() throws {
    let identity = try it.load()
    #expect(identity.id == .web)
    #expect(identity.bundles.map(\.trustDomain.name) == ["demo.mesh"])
    #expect(identity.bundles[0].count == 1)
    let now = Int64(Date().timeIntervalSince1970)
    #expect(abs(identity.notBeforeSeconds - (now - 60)) < 60)
    #expect(abs(identity.notAfterSeconds - (now + 3600)) < 60)
    let pair = try Pair(client: identity, server: identity).connect()
    #expect(pair.bothEstablished)
  }

  @Test func `text around the PEM blocks is allowed, as openssl writes it`() throws {
    try it.files.write("svid.pem", "Certificate:\n    Data: …\n" + it.leaf.pem + "\nend\n")
    #expect(try it.load().id == .web)
  }

  @Test(arguments: [0o640, 0o620, 0o604, 0o602, 0o610, 0o666])
  func `a key file that others than its owner may touch is refused`(mode: Int) throws {
    try it.refuses(it.key, "run chmod 600 on it") {
      try it.files.write("svid.key", it.leaf.keyPEM, mode: mode)
    }
  }

  @Test func `the key of another certificate is refused`() throws {
    try it.refuses(it.key, "is not the key of the certificate in \(it.certificate)") {
      try it.files.write("svid.key", TestCertificate(Recipe()).keyPEM)
    }
  }

  @Test func `an encrypted key is refused, and nothing is asked on the terminal`() throws {
    try it.refuses(it.key, "is encrypted: decrypt it") {
      try it.files.write("svid.key", it.leaf.encryptedKeyPEM(password: "secret"))
    }
  }

  @Test(arguments: [
    "", "nonsense", "-----BEGIN PRIVATE KEY-----\n%%%\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
  ])
  func `a key file that holds no key is refused`(text: String) throws {
    try it.refuses(it.key, text.isEmpty ? "is empty" : "holds no usable PEM private key") {
      try it.files.write("svid.key", text)
    }
  }

  @Test func `a certificate file that is garbage is refused`() throws {
    let name = "svid.pem"
    try it.refuses(it.certificate, "is empty") { try it.files.write(name, "") }
    for (text, reason) in [
      ("nonsense\u{0}\n", "holds no PEM certificate"),
      (Self.block("%%%"), "PEM block 1 is damaged"),
      (Self.block("AAAA"), "PEM block 1 is no certificate"),
      (it.leaf.pem + Self.block("AAAA"), "PEM block 2 is no certificate"),
      (it.leaf.pem + it.root.pem.dropLast(40), "PEM block 2 is damaged"),
      (it.leaf.keyPEM + it.leaf.pem, "PEM block 1 is a PRIVATE KEY; only certificates"),
    ] {
      try it.files.write(name, text)
      it.refuses(it.certificate, reason)
    }
  }

  @Test func `bytes behind a certificate in its PEM block are refused`() throws {
    let der = it.leaf.certificate.der + [0]
    try it.refuses(it.certificate, "PEM block 1 holds more than a certificate") {
      try it.files.write(
        "svid.pem",
        "-----BEGIN CERTIFICATE-----\n"
          + Data(der).base64EncodedString(options: .lineLength64Characters)
          + "\n-----END CERTIFICATE-----\n")
    }
  }

  @Test func `every prefix of a certificate file is refused or whole, and never traps`() throws {
    let text = it.leaf.pem
    for count in stride(from: 0, to: text.count, by: 7) {
      try it.files.write("svid.pem", String(text.prefix(count)))
      #expect(throws: IdentityError.self) { try it.load() }
    }
    try it.files.write("svid.pem", text)
    #expect(try it.load().id == .web)
  }

  @Test func `a bundle without a certificate is refused`() throws {
    try it.refuses(it.bundle, "is empty") { try it.files.write("bundle.pem", "") }
    try it.files.write("bundle.pem", "# to be done\n")
    it.refuses(it.bundle, "holds no PEM certificate")
  }

  @Test func `a bundle that is not of its trust domain, or holds a leaf, is refused`() throws {
    try it.refuses(it.bundle, "certificate 2 is not a CA certificate") {
      try it.files.write("bundle.pem", it.root.pem + it.leaf.pem)
    }
    let other = TestCertificate(.authority("other.mesh"))
    try it.files.write("bundle.pem", it.root.pem + other.pem)
    it.refuses(it.bundle, "certificate 2 belongs to spiffe://other.mesh, not to demo.mesh")
    let named = TestCertificate(
      Recipe.authority("demo.mesh").with { $0.names = "URI:\(SPIFFEID.db)" })
    try it.files.write("bundle.pem", named.pem)
    it.refuses(it.bundle, "certificate 1 is no signing certificate")
    let two = TestCertificate(
      Recipe.authority("demo.mesh").with { $0.names = "URI:spiffe://demo.mesh,URI:spiffe://x" })
    try it.files.write("bundle.pem", two.pem)
    it.refuses(it.bundle, "multiple_uri_sans")
  }

  @Test func `a second bundle for a trust domain is refused, not merged`() throws {
    let again = try it.files.write("again.pem", it.root.pem)
    let domain = try TrustDomain("demo.mesh")
    let error = #expect(throws: IdentityError.self) {
      try it.load([(trustDomain: domain, pem: again)])
    }
    #expect(error?.description == "\(again): is a second bundle for demo.mesh")
    let partner = TestCertificate(.authority("partner.mesh"))
    try it.files.write("again.pem", partner.pem)
    let other = try TrustDomain("partner.mesh")
    #expect(
      try it.load([(trustDomain: other, pem: again)]).bundles.map(\.trustDomain) == [domain, other])
  }

  @Test func `an own certificate out of date is refused, with the time it ended or begins`() throws
  {
    let expired = try IdentityFiles(Recipe().with { ($0.begins, $0.ends) = (-7200, -3600) })
    expired.refuses(expired.certificate, "certificate_expired: it ended at 20")
    let early = try IdentityFiles(Recipe().with { $0.begins = 3600 - 60 })
    early.refuses(early.certificate, "certificate_not_yet_valid: it begins at 20")
  }

  @Test func `an own certificate that its own bundle does not vouch for is refused`() throws {
    try it.refuses(it.certificate, "untrusted_chain") {
      try it.files.write("bundle.pem", TestCertificate(.authority("demo.mesh")).pem)
    }
    let stranger = try IdentityFiles(.leaf("URI:spiffe://stranger.mesh/web"))
    stranger.refuses(
      stranger.certificate,
      "unknown_trust_domain: no bundle for the trust domain of spiffe://stranger.mesh/web")
  }

  @Test func `an own certificate that peers would refuse is refused`() throws {
    for (recipe, word) in [
      (Recipe().with { $0.names = nil }, "no_uri_san"),
      (Recipe().with { $0.keyUsage = nil }, "key_usage_missing"),
      (Recipe().with { $0.keyUsage = "critical,keyAgreement" }, "digital_signature_missing"),
      (Recipe().with { $0.extendedKeyUsage = "clientAuth" }, "extended_key_usage_incomplete"),
      (Recipe.authority("demo.mesh"), "spiffe_id_without_path"),
    ] {
      let spoilt = try IdentityFiles(recipe)
      spoilt.refuses(spoilt.certificate, word)
    }
  }

  @Test func `what is not a regular file, missing or too large is refused, in any place`() throws {
    let limit = SecretFile.maximumBytes
    for (name, path) in [
      ("svid.pem", it.certificate), ("svid.key", it.key), ("bundle.pem", it.bundle),
    ] {
      let text = try String(contentsOfFile: path, encoding: .utf8)
      let filler = String(repeating: "\n", count: limit - text.utf8.count)
      try it.files.write(name, text + filler)
      #expect(try it.load().id == .web)
      try it.refuses(path, "is larger than \(limit) bytes") {
        try it.files.write(name, text + filler + "\n")
      }
      try FileManager.default.removeItem(atPath: path)
      it.refuses(path, "cannot be read: ")
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
      it.refuses(path, "is not a regular file")
      try FileManager.default.removeItem(atPath: path)
      unsafe #expect(mkfifo(path, 0o600) == 0)
      it.refuses(path, "is not a regular file")
      try FileManager.default.removeItem(atPath: path)
      try it.files.write(name, text)
    }
  }

  @Test func `a file with too many certificates, or too large ones, is refused`() throws {
    let most = IdentityMaterial.maximumChainCertificates
    let filler = String(repeating: it.root.pem, count: most - 1)
    try it.files.write("svid.pem", it.leaf.pem + filler)
    #expect(try it.load().id == .web)
    try it.refuses(it.certificate, "holds more than \(most) certificates") {
      try it.files.write("svid.pem", it.leaf.pem + filler + it.root.pem)
    }
    let dns = (0..<300).map { "DNS:\(String(repeating: "a", count: 60)).\($0)" }
    let wide = TestCertificate(
      .leaf(dns.joined(separator: ",") + ",URI:\(SPIFFEID.db)"), issuer: it.root)
    #expect(wide.certificate.der.count * 2 > IdentityMaterial.maximumChainBytes)
    try it.files.write("svid.pem", it.leaf.pem + wide.pem + wide.pem)
    it.refuses(it.certificate, "holds more than \(IdentityMaterial.maximumChainBytes) bytes")
  }
}
