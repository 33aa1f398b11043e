import Foundation
import Identity
import TLS
import Testing

@Suite struct CertificateAuthorityTests {
  /// A directory of the test's own, removed with it.
  final class Directory {
    let path: String

    init() throws {
      path = NSTemporaryDirectory() + "culvert-ca-\(UUID().uuidString)"
      try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    func file(_ name: String) -> String { path + "/" + name }

    func mode(_ name: String) throws -> Int {
      let attributes = try FileManager.default.attributesOfItem(atPath: file(name))
      return try #require(attributes[.posixPermissions] as? Int)
    }
  }

  private func openssl(_ arguments: String...) throws -> (status: Int32, output: String) {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "/usr/bin/openssl")
    process.arguments = arguments
    let pipe = Pipe()
    process.standardOutput = pipe
    process.standardError = pipe
    try process.run()
    let data = pipe.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return (process.terminationStatus, String(decoding: data, as: UTF8.self))
  }

  private func make(
    _ directory: Directory, lifetimeSeconds: Int64 = CertificateAuthority.defaultSVIDLifetimeSeconds
  ) throws {
    let authority = try CertificateAuthority.create(
      directory: directory.file("ca"), trustDomain: TrustDomain("demo.mesh"))
    try authority.issue(
      SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web"), lifetimeSeconds: lifetimeSeconds,
      certificate: directory.file("svid.pem"), privateKey: directory.file("svid.key"))
  }

  @Test func keysAreReadableByTheirOwnerOnly() throws {
    let directory = try Directory()
    try make(directory)
    #expect(try directory.mode("ca") == 0o700)
    #expect(try directory.mode("ca/ca.key") == 0o600)
    #expect(try directory.mode("ca/ca.pem") == 0o644)
    #expect(try directory.mode("svid.key") == 0o600)
    #expect(try directory.mode("svid.pem") == 0o644)
    let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
    #expect(names.sorted() == ["ca", "svid.key", "svid.pem"])
  }

  @Test func opensslAcceptsWhatItSigns() throws {
    let directory = try Directory()
    try make(directory)
    let verdict = try openssl(
      "verify", "-x509_strict", "-CAfile", directory.file("ca/ca.pem"), directory.file("svid.pem"))
    #expect(verdict.status == 0, "\(verdict.output)")
    let text = try openssl("x509", "-in", directory.file("svid.pem"), "-noout", "-text").output
    #expect(text.contains("X509v3 Subject Alternative Name: critical"))
    #expect(text.contains("URI:spiffe://demo.mesh/ns/shop/sa/web"))
    #expect(text.contains("NIST CURVE: P-256"))
  }

  @Test func theProxyLoadsWhatItSigns() throws {
    let directory = try Directory()
    try make(directory)
    let material = try IdentityMaterial.load(
      certificate: directory.file("svid.pem"), privateKey: directory.file("svid.key"),
      bundles: [(try TrustDomain("demo.mesh"), directory.file("ca/ca.pem"))])
    #expect(material.id.description == "spiffe://demo.mesh/ns/shop/sa/web")
    let lifetime = material.notAfterSeconds - material.notBeforeSeconds
    #expect(lifetime == 86_400 + 60)
  }

  @Test func anSVIDNeverOutlivesItsCA() throws {
    let directory = try Directory()
    try make(directory, lifetimeSeconds: CertificateAuthority.lifetimeSeconds + 86_400)
    func end(_ name: String) throws -> String {
      try openssl("x509", "-in", directory.file(name), "-noout", "-enddate").output
    }
    #expect(try end("svid.pem") == end("ca/ca.pem"))
  }

  @Test func anExpiredCAIssuesNothing() throws {
    for (ends, isAlive) in [(3600, true), (-10, false)] {
      let directory = try Directory()
      let root = TestCertificate(
        .authority("demo.mesh").with { ($0.begins, $0.ends) = (-7200, ends) })
      let ca = directory.file("ca")
      try FileManager.default.createDirectory(atPath: ca, withIntermediateDirectories: false)
      try root.pem.write(toFile: ca + "/ca.pem", atomically: true, encoding: .utf8)
      try root.keyPEM.write(toFile: ca + "/ca.key", atomically: true, encoding: .utf8)
      try FileManager.default.setAttributes(
        [.posixPermissions: 0o600], ofItemAtPath: ca + "/ca.key")
      let authority = try CertificateAuthority.load(directory: ca)
      func issue() throws {
        try authority.issue(
          SPIFFEID("spiffe://demo.mesh/web"), certificate: directory.file("svid.pem"),
          privateKey: directory.file("svid.key"))
      }
      if isAlive {
        try issue()
      } else {
        let error = #expect(throws: IdentityError.self) { try issue() }
        #expect(error?.reason.hasPrefix("has expired") == true)
        #expect(!FileManager.default.fileExists(atPath: directory.file("svid.key")))
      }
    }
  }

  @Test func itVouchesForLeavesOnly() throws {
    let directory = try Directory()
    try make(directory)
    let text = try openssl("x509", "-in", directory.file("ca/ca.pem"), "-noout", "-text").output
    #expect(text.contains("CA:TRUE, pathlen:0"))
    #expect(text.contains("URI:spiffe://demo.mesh\n"))
  }

  @Test func aCAIsNeverReplaced() throws {
    let directory = try Directory()
    try make(directory)
    let before = try Data(contentsOf: URL(fileURLWithPath: directory.file("ca/ca.key")))
    let error = #expect(throws: IdentityError.self) {
      try CertificateAuthority.create(
        directory: directory.file("ca"), trustDomain: TrustDomain("other.mesh"))
    }
    #expect(error?.reason.hasPrefix("exists already") == true)
    #expect(try Data(contentsOf: URL(fileURLWithPath: directory.file("ca/ca.key"))) == before)
  }

  @Test func issuingAgainReplacesThePair() throws {
    let directory = try Directory()
    try make(directory)
    let before = try Data(contentsOf: URL(fileURLWithPath: directory.file("svid.key")))
    let authority = try CertificateAuthority.load(directory: directory.file("ca"))
    try authority.issue(
      SPIFFEID("spiffe://demo.mesh/ns/shop/sa/web"), certificate: directory.file("svid.pem"),
      privateKey: directory.file("svid.key"))
    #expect(try Data(contentsOf: URL(fileURLWithPath: directory.file("svid.key"))) != before)
    _ = try IdentityMaterial.load(
      certificate: directory.file("svid.pem"), privateKey: directory.file("svid.key"),
      bundles: [(try TrustDomain("demo.mesh"), directory.file("ca/ca.pem"))])
  }

  @Test(arguments: ["spiffe://other.mesh/a", "spiffe://demo.mesh"])
  func itSignsForWorkloadsOfItsOwnTrustDomainOnly(id: String) throws {
    let directory = try Directory()
    try make(directory)
    let authority = try CertificateAuthority.load(directory: directory.file("ca"))
    #expect(throws: IdentityError.self) {
      try authority.issue(
        SPIFFEID(id), certificate: directory.file("x.pem"), privateKey: directory.file("x.key"))
    }
    #expect(!FileManager.default.fileExists(atPath: directory.file("x.key")))
  }

  @Test func aKeyOthersCanReadIsNotUsed() throws {
    let directory = try Directory()
    try make(directory)
    try FileManager.default.setAttributes(
      [.posixPermissions: 0o640], ofItemAtPath: directory.file("ca/ca.key"))
    #expect(throws: IdentityError.self) {
      try CertificateAuthority.load(directory: directory.file("ca"))
    }
  }

  @Test func theBundleIsTheCertificate() throws {
    let directory = try Directory()
    try make(directory)
    let authority = try CertificateAuthority.load(directory: directory.file("ca"))
    let file = try String(contentsOfFile: directory.file("ca/ca.pem"), encoding: .utf8)
    #expect(try authority.bundle() == file)
    try authority.writeBundle(to: directory.file("bundle.pem"))
    #expect(try String(contentsOfFile: directory.file("bundle.pem"), encoding: .utf8) == file)
  }
}
