import Configuration
import Foundation
import Identity
import TLS
import TestSupport
import Testing

@testable import Control

/// Certificates that the `openssl` program made; once for all tests here.
enum Trusted {
  static let demo = Result { try Authority(trustDomain: "demo.mesh") }
  /// Another CA that bears the same name.
  static let impostor = Result { try Authority(trustDomain: "demo.mesh") }
  static let partner = Result { try Authority(trustDomain: "partner.example") }

  static func domain(_ name: String) throws -> TrustDomain { try TrustDomain(name) }

  /// A SPIFFE bundle of PEM files.
  static func jwks(_ files: [String], sequence: Int? = nil) throws -> String {
    let keys = try files.map { file in
      let der = try text(file).split(separator: "\n").filter { !$0.hasPrefix("-----") }.joined()
      return #"{"kty":"EC","use":"x509-svid","x5c":["\#(der)"]}"#
    }
    let count = sequence.map { #","spiffe_sequence":\#($0)"# } ?? ""
    return #"{"keys":[\#(keys.joined(separator: ","))]\#(count)}"#
  }

  static func text(_ file: String) throws -> String {
    try String(contentsOfFile: file, encoding: .utf8)
  }
}

@Suite struct `The bundles in files` {
  let directory: TemporaryDirectory
  let demo: Authority
  let partner: Authority

  init() throws {
    directory = try TemporaryDirectory()
    demo = try Trusted.demo.get()
    partner = try Trusted.partner.get()
  }

  @discardableResult
  private func write(_ text: String, to name: String) throws -> String {
    let file = directory.file(name)
    try FileManager.default.createDirectory(
      at: URL(filePath: file).deletingLastPathComponent(), withIntermediateDirectories: true)
    try text.write(toFile: file, atomically: true, encoding: .utf8)
    return file
  }

  private func load(_ sources: TrustBundleSource...) throws -> [SourcedBundle] {
    try BundleFiles.load(sources)
  }

  private func complaint(_ sources: TrustBundleSource...) -> String? {
    do throws(LoadError) {
      _ = try BundleFiles.load(sources)
      return nil
    } catch {
      return error.description
    }
  }

  private func pem(_ authority: Authority, crl: String? = nil) throws -> TrustBundleSource {
    .domain(
      DomainBundle(
        trustDomain: try Trusted.domain(authority.trustDomain), file: .pem(authority.bundle),
        revocationLists: crl))
  }

  // MARK: One trust domain

  @Test func `come from PEM and JWKS`() throws {
    let file = try write(
      Trusted.jwks([partner.bundle, partner.bundle], sequence: 7), to: "partner.json")
    let domain = try Trusted.domain("partner.example")
    let loaded = try load(pem(demo), .domain(DomainBundle(trustDomain: domain, file: .jwks(file))))
    #expect(loaded.map(\.trustDomain.name) == ["demo.mesh", "partner.example"])
    #expect(loaded.map(\.origin) == [.pem, .jwks])
    #expect(loaded.map { $0.bundle?.count } == [1, 2])
    #expect(loaded.map(\.sequence) == [nil, 7])
    #expect(loaded.allSatisfy { $0.confirmedSeconds != nil })
  }

  @Test func `distrust a trust domain whose JWKS is empty`() throws {
    let file = try write(Trusted.jwks([]), to: "partner.json")
    let domain = try Trusted.domain("partner.example")
    let loaded = try load(.domain(DomainBundle(trustDomain: domain, file: .jwks(file))))
    #expect(loaded.map(\.trustDomain) == [domain])
    #expect(loaded[0].bundle == nil)
    #expect(loaded[0].confirmedSeconds != nil, "that is what its source says")
  }

  @Test func `have a place for what only an endpoint knows`() throws {
    let domain = try Trusted.domain("partner.example")
    let loaded = try load(.domain(DomainBundle(trustDomain: domain)))
    #expect(loaded.map(\.origin) == [.federation])
    #expect(loaded[0].bundle == nil)
    #expect(loaded[0].confirmedSeconds == nil)
  }

  @Test func `are refused with the file that is wrong`() throws {
    let domain = try Trusted.domain("partner.example")
    for (text, reason) in [
      ("{", "malformed_json"), ("{}", "keys_missing"), (#"{"keys":[1]}"#, "key_not_an_object"),
      (#"{"keys":[{"kty":"EC","use":"x509-svid","x5c":["AAAA"]}]}"#, "no certificate"),
    ] {
      let file = try write(text, to: "bad.json")
      let said = complaint(.domain(DomainBundle(trustDomain: domain, file: .jwks(file))))
      #expect(
        said?.hasPrefix("\(file): ") == true && said?.contains(reason) == true, "\(said ?? "")")
    }
    let gone = directory.file("gone.json")
    #expect(
      complaint(.domain(DomainBundle(trustDomain: domain, file: .jwks(gone))))
        == "\(gone): cannot be read: No such file or directory")
    // Another trust domain's CA.
    let said = complaint(.domain(DomainBundle(trustDomain: domain, file: .pem(demo.bundle))))
    #expect(said?.contains("belongs to spiffe://demo.mesh, not to partner.example") == true)
  }

  // MARK: Revocation lists

  @Test func `carry the lists of their CA`() throws {
    let revoked = try demo.issue(LeafRequest("spiffe://demo.mesh/gone"))
    let loaded = try load(pem(demo, crl: demo.revoke([revoked])))
    #expect(loaded[0].bundle?.revocationLists.count == 1)
    #expect(loaded[0].revocationLists.count == 1, "kept for what an endpoint answers")
  }

  @Test func `refuse a list that another CA of the same name signed`() throws {
    let list = try Trusted.impostor.get().revoke([])
    let said = try complaint(pem(demo, crl: list))
    #expect(said?.hasPrefix("\(list): the list of ") == true, "\(said ?? "")")
    #expect(said?.hasSuffix("is not signed by demo.mesh's CA") == true)
  }

  @Test func `refuse a file that is no list`() throws {
    #expect(
      try complaint(pem(demo, crl: demo.bundle))?.hasPrefix("\(demo.bundle): ") == true)
  }

  // MARK: Several trust domains

  private func copy(_ file: String, to name: String) throws {
    try write(Trusted.text(file), to: name)
  }

  private var bundles: TrustBundleSource { .directory(directory.file("bundles.d")) }

  @Test func `of a directory are named after their trust domains`() throws {
    try copy(demo.bundle, to: "bundles.d/demo.mesh.pem")
    try copy(demo.revoke([]), to: "bundles.d/demo.mesh.crl")
    try write(Trusted.jwks([partner.bundle]), to: "bundles.d/partner.example.jwks")
    try write(Trusted.jwks([]), to: "bundles.d/empty.example.json")
    let loaded = try load(bundles)
    #expect(loaded.map(\.trustDomain.name) == ["demo.mesh", "empty.example", "partner.example"])
    #expect(loaded.map { $0.bundle?.count } == [1, nil, 1])
    #expect(loaded.map { $0.bundle?.revocationLists.count } == [1, nil, 0])
    #expect(loaded.allSatisfy { $0.origin == .directory })
  }

  @Test func `of a directory may be named as SPIRE's tools name them`() throws {
    try copy(demo.bundle, to: "bundles.d/demo.mesh.spiffe-trust-bundle.pem")
    #expect(try load(bundles).map(\.trustDomain.name) == ["demo.mesh"])
  }

  @Test func `of an empty directory are none`() throws {
    try FileManager.default.createDirectory(
      atPath: directory.file("bundles.d"), withIntermediateDirectories: false)
    #expect(try load(bundles).isEmpty)
  }

  @Test func `of a projected volume are its visible names`() throws {
    try copy(demo.bundle, to: "bundles.d/..2026/demo.mesh.pem")
    let manager = FileManager.default
    try manager.createSymbolicLink(
      atPath: directory.file("bundles.d/..data"), withDestinationPath: "..2026")
    try manager.createSymbolicLink(
      atPath: directory.file("bundles.d/demo.mesh.pem"),
      withDestinationPath: "..data/demo.mesh.pem")
    try write("half", to: "bundles.d/.partner.example.pem.swp")
    #expect(try load(bundles).map(\.trustDomain.name) == ["demo.mesh"])
    #expect(
      BundleFiles.watchedFiles(directory: directory.file("bundles.d"))
        == ["bundles.d/.", "bundles.d/demo.mesh.pem"].map(directory.file))
  }

  @Test(arguments: [
    ("README", "a directory of bundles holds TRUSTDOMAIN.pem, .jwks and .crl only"),
    ("Demo.mesh.pem", "is not named after a trust domain: invalid_trust_domain"),
    ("other.example.crl", "there is no bundle for other.example"),
    ("demo.mesh.jwks", "is a second bundle for demo.mesh"),
    ("demo.mesh.spiffe-trust-bundle.pem", "is a second bundle for demo.mesh"),
  ])
  func `of a directory are refused with one file that does not belong`(
    name: String, reason: String
  ) throws {
    try copy(demo.bundle, to: "bundles.d/demo.mesh.pem")
    if name.hasSuffix(".crl") {
      try copy(demo.revoke([]), to: "bundles.d/\(name)")
    } else if name.hasSuffix(".jwks") {
      try write(Trusted.jwks([demo.bundle]), to: "bundles.d/\(name)")
    } else {
      try copy(demo.bundle, to: "bundles.d/\(name)")
    }
    let said = complaint(bundles)
    #expect(said?.hasSuffix(": \(reason)") == true, "\(said ?? "")")
    #expect(said?.hasPrefix(directory.file("bundles.d/")) == true)
  }

  @Test func `of a map are all of it, or nothing`() throws {
    let good = try Trusted.jwks([partner.bundle], sequence: 3)
    let file = try write(
      #"{"trust_domains":{"partner.example":\#(good),"empty.example":{"keys":[]}}}"#, to: "map.json"
    )
    let loaded = try load(.bundleMap(file))
    #expect(loaded.map(\.trustDomain.name) == ["empty.example", "partner.example"])
    #expect(loaded.map { $0.bundle?.count } == [nil, 1])
    #expect(loaded.map(\.sequence) == [nil, 3])
    #expect(loaded.allSatisfy { $0.origin == .bundleMap })
    try write(#"{"trust_domains":{"partner.example":\#(good),"Bad":{"keys":[]}}}"#, to: "map.json")
    #expect(complaint(.bundleMap(file)) == "\(file): invalid_trust_domain")
  }

  @Test func `are refused if two sources name the same trust domain`() throws {
    try copy(demo.bundle, to: "bundles.d/demo.mesh.pem")
    #expect(
      try complaint(pem(demo), bundles) == "workload.trustBundles: a second bundle for demo.mesh")
    let map = try write(
      #"{"trust_domains":{"demo.mesh":\#(try Trusted.jwks([demo.bundle]))}}"#, to: "map.json")
    #expect(
      complaint(bundles, .bundleMap(map)) == "workload.trustBundles: a second bundle for demo.mesh")
  }
}
