import Configuration
import DataPlane
import Foundation
import Identity
import TLS
import TestSupport
import Testing

@testable import Control

/// A workload of demo.mesh that believes demo.mesh and partner.example, as files.
final class Workload {
  let directory: TemporaryDirectory
  let authority: Authority
  let own: Credential

  init(revoked: [Credential] = []) throws {
    directory = try TemporaryDirectory()
    authority = try Trusted.demo.get()
    own = try authority.issue(LeafRequest("spiffe://demo.mesh/ns/shop/sa/web"))
    let list = try authority.revoke(revoked)
    try """
    workload:
      identity: { files: { certificate: "\(own.certificate)", privateKey: "\(own.privateKey)" } }
      trustBundles:
        - { trustDomain: demo.mesh, pem: "\(authority.bundle)", crl: "\(list)" }
        - { trustDomain: partner.example, pem: "\(try Trusted.partner.get().bundle)" }

    """.write(toFile: configuration, atomically: true, encoding: .utf8)
  }

  var configuration: String { directory.file("web.yaml") }

  /// What a proxy with this configuration would answer.
  func report() throws -> IdentityReport {
    let manager = try IdentityManager(try Settings.load(path: configuration), mark: 0, now: 0)
    return IdentityReport(manager, PeerRegistry())
  }

  func proxy() throws -> FakeProxy {
    try FakeProxy(.answers(try encoded(AdminResponse(identity: report()))))
  }
}

@Suite struct `culvert identity show` {
  private static func withoutIdentity() throws -> IdentityReport {
    let directory = try TemporaryDirectory()
    let yaml =
      #"workload: { identity: { workloadAPI: { socket: "unix://\#(directory.file("none"))" } } }"#
    let settings = try Settings.parse(yaml: Array(yaml.utf8), file: "c", directory: "/")
    let manager = try IdentityManager(settings, mark: 0, now: 0)
    return IdentityReport(manager, PeerRegistry())
  }

  @Test func `shows the SVID and every bundle`() throws {
    let proxy = try Workload().proxy()
    let outcome = try Tool.run("identity", "show", "--admin-socket", proxy.path)
    #expect(proxy.finish().contains("\"identity\""))
    #expect(outcome.status == 0)
    #expect(outcome.error == "")
    let lines = outcome.output.split(separator: "\n").map(String.init)
    #expect(lines.count == 6, "\(outcome.output)")
    try #require(lines.count == 6)
    #expect(lines[0] == "identity  spiffe://demo.mesh/ns/shop/sa/web")
    #expect(
      lines[1].wholeMatch(of: #/expires   \S+Z, in (1 d|23 h 5\d min)/#) != nil, "\(lines[1])")
    #expect(lines[2] == "source    files, ready; SVID 1, trust 1")
    #expect(lines[3].hasPrefix("bundle    demo.mesh: 1 authority from pem, 1 revocation list"))
    #expect(lines[4].hasPrefix("bundle    partner.example: 1 authority from pem, confirmed "))
    #expect(lines[5] == "verified  0 peers remembered")
  }

  @Test func `prints one JSON object with --json, and nothing secret`() throws {
    let workload = try Workload()
    let proxy = try workload.proxy()
    let outcome = try Tool.run("identity", "show", "--json", "--admin-socket", proxy.path)
    _ = proxy.finish()
    #expect(outcome.status == 0)
    #expect(outcome.output.count { $0 == "\n" } == 1)
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    #expect(Set(object.keys) == ["identity", "chain", "bundles", "trusted", "verifiedPeers"])
    #expect((object["chain"] as? [String])?.count == 1)
    let trusted = try #require(object["trusted"] as? [[String: Any]])
    #expect(trusted.map { $0["trustDomain"] as? String } == ["demo.mesh", "partner.example"])
    #expect((trusted[0]["revocationLists"] as? [String])?.count == 1)
    let key = try Trusted.text(workload.own.privateKey).split(separator: "\n")[1]
    #expect(!outcome.output.contains(key))
  }

  @Test func `prints the own certificates with --pem`() throws {
    let workload = try Workload()
    let proxy = try workload.proxy()
    let outcome = try Tool.run("identity", "show", "--pem", "--admin-socket", proxy.path)
    _ = proxy.finish()
    #expect(outcome.status == 0)
    #expect(outcome.output == (try Trusted.text(workload.own.certificate)))
  }

  @Test func `fails if there is no identity`() throws {
    for flag in ["--json", "--pem", "--admin-socket"] {
      let proxy = try FakeProxy(
        .answers(try encoded(AdminResponse(identity: Self.withoutIdentity()))))
      let outcome =
        flag == "--admin-socket"
        ? try Tool.run("identity", "show", flag, proxy.path)
        : try Tool.run("identity", "show", flag, "--admin-socket", proxy.path)
      _ = proxy.finish()
      #expect(outcome.status == 1)
      #expect(outcome.error == "")
      if flag == "--pem" { #expect(outcome.output == "") }
      if flag == "--admin-socket" {
        #expect(outcome.output.hasPrefix("identity  none (awaited)\n"), "\(outcome.output)")
        #expect(
          outcome.output.contains(
            "workload_api, FetchX509SVID connecting, awaited; SVID 0, trust 0"))
      }
    }
  }

  @Test func `says in one line that nobody listens`() throws {
    let path = try TemporaryDirectory().file("admin.sock")
    let outcome = try Tool.run("identity", "show", "--admin-socket", path)
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(outcome.error.hasPrefix("culvert: \(path): no culvert-proxy answers here"))
    #expect(outcome.error.count { $0 == "\n" } == 1)
  }

  @Test func `says that the answer holds no identity`() throws {
    let proxy = try FakeProxy(.answers(try encoded(AdminResponse(status: .sample()))))
    let outcome = try Tool.run("identity", "show", "--admin-socket", proxy.path)
    _ = proxy.finish()
    #expect(outcome.status == 1)
    #expect(outcome.error == "culvert: \(proxy.path): the answer holds no identity\n")
  }

  @Test func `does not take two forms at once`() throws {
    #expect(try Tool.run("identity", "show", "--json", "--pem").status == 64)
  }
}

@Suite struct `culvert identity verify` {
  /// Everyone who is refused, with the word for it.
  enum Peer: String, CaseIterable, Sendable {
    case accepted
    case wrongDomain = "untrusted_chain"
    case unknownDomain = "unknown_trust_domain"
    case expired = "certificate_expired"
    case notYetValid = "certificate_not_yet_valid"
    case revoked = "certificate_revoked"
    case leafIsCA = "leaf_is_ca"
    case twoNames = "multiple_uri_sans"
    case noName = "no_uri_san"
    case unexpected = "unexpected_identity"

    func credential() throws -> Credential {
      let demo = try Trusted.demo.get()
      let web = LeafRequest("spiffe://demo.mesh/ns/shop/sa/db")
      return switch self {
      case .accepted, .unexpected, .revoked: try demo.issue(web)
      // The CA of one trust domain signs an ID of another that has a bundle.
      case .wrongDomain: try demo.issue(LeafRequest("spiffe://partner.example/a"))
      case .unknownDomain: try demo.issue(LeafRequest("spiffe://stranger.example/a"))
      case .expired:
        try demo.issue(
          web.with {
            $0.notBeforeHours = -48
            $0.notAfterHours = -24
          })
      case .notYetValid: try demo.issue(web.with { $0.notBeforeHours = 12 })
      case .leafIsCA: try demo.issue(web.with { $0.isCA = true })
      case .twoNames: try demo.issue(web.with { $0.uris.append("spiffe://demo.mesh/b") })
      case .noName: try demo.issue(LeafRequest(dnsName: "db.demo.mesh"))
      }
    }
  }

  private func options(_ peer: Peer) -> [String] {
    peer == .unexpected ? ["--expect", "spiffe://demo.mesh/ns/shop/sa/cache"] : []
  }

  private func check(_ peer: Peer, _ outcome: Outcome) {
    #expect(outcome.error == "")
    #expect(outcome.output.count { $0 == "\n" } == 1)
    if peer == .accepted {
      #expect(outcome.status == 0)
      #expect(outcome.output == "accepted: spiffe://demo.mesh/ns/shop/sa/db\n")
    } else {
      #expect(outcome.status == 1)
      #expect(outcome.output.hasPrefix("refused: \(peer.rawValue)"), "\(outcome.output)")
    }
  }

  @Test(arguments: Peer.allCases) func `says it by a configuration`(peer: Peer) throws {
    let credential = try peer.credential()
    let workload = try Workload(revoked: peer == .revoked ? [credential] : [])
    check(
      peer,
      try Tool.run(
        ["identity", "verify", "--config", workload.configuration] + options(peer)
          + [credential.certificate]))
  }

  @Test(arguments: Peer.allCases) func `says it by a running proxy`(peer: Peer) throws {
    let credential = try peer.credential()
    let workload = try Workload(revoked: peer == .revoked ? [credential] : [])
    let proxy = try workload.proxy()
    check(
      peer,
      try Tool.run(
        ["identity", "verify", "--admin-socket", proxy.path] + options(peer)
          + [credential.certificate]))
    _ = proxy.finish()
  }

  @Test func `takes one of several that are expected`() throws {
    let workload = try Workload()
    let peer = try Peer.accepted.credential().certificate
    let outcome = try Tool.run(
      "identity", "verify", "--config", workload.configuration, "--expect",
      "spiffe://demo.mesh/other", "--expect", "spiffe://demo.mesh/ns/shop/sa/db", peer)
    #expect(outcome.status == 0)
  }

  @Test func `prints one JSON object with --json`() throws {
    let workload = try Workload()
    func object(_ peer: Peer) throws -> [String: Any] {
      let outcome = try Tool.run(
        "identity", "verify", "--json", "--config", workload.configuration,
        try peer.credential().certificate)
      #expect(outcome.status == (peer == .accepted ? 0 : 1))
      return try #require(
        try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    }
    let good = try object(.accepted)
    #expect(good["accepted"] as? Bool == true)
    #expect(good["id"] as? String == "spiffe://demo.mesh/ns/shop/sa/db")
    #expect(good["refusal"] == nil)
    let bad = try object(.unknownDomain)
    #expect(bad["accepted"] as? Bool == false)
    #expect(bad["id"] as? String == "spiffe://stranger.example/a")
    #expect(bad["refusal"] as? String == "unknown_trust_domain")
  }

  @Test func `says that nothing could be checked`() throws {
    let workload = try Workload()
    let peer = try Peer.accepted.credential()
    let gone = workload.directory.file("gone")
    for (arguments, words) in [
      (["--config", workload.configuration, gone], "\(gone): cannot be read: No such file"),
      (
        ["--config", workload.configuration, peer.privateKey],
        "PEM block 1 is a PRIVATE KEY; only certificates belong here"
      ),
      (["--config", workload.configuration, workload.configuration], "holds no PEM certificate"),
      (["--config", gone, peer.certificate], "\(gone): cannot be read"),
      (["--admin-socket", gone, peer.certificate], "\(gone): no culvert-proxy answers here"),
      (
        ["--config", workload.configuration, "--expect", "web", peer.certificate],
        "--expect: not a SPIFFE ID: scheme_not_spiffe"
      ),
    ] {
      let outcome = try Tool.run(["identity", "verify"] + arguments)
      #expect(outcome.status == 2, "\(arguments)")
      #expect(outcome.output == "")
      #expect(outcome.error.contains(words), "\(outcome.error)")
      #expect(outcome.error.hasPrefix("culvert: ") && outcome.error.count { $0 == "\n" } == 1)
    }
  }

  @Test func `takes bundles from one place`() throws {
    #expect(
      try Tool.run("identity", "verify", "--config", "a", "--admin-socket", "b", "c").status == 64)
  }

  /// Its bundle is nowhere but in its directory.
  @Test func `knows the bundle of an embedded CA`() throws {
    let directory = try TemporaryDirectory()
    let ca = directory.file("ca")
    let authority = try CertificateAuthority.create(
      directory: ca, trustDomain: try TrustDomain("own.mesh"))
    let id = try SPIFFEID("spiffe://own.mesh/web")
    try authority.issue(
      id, lifetimeSeconds: 600, certificate: directory.file("web.pem"),
      privateKey: directory.file("web.key"))
    try "workload: { identity: { embeddedCA: { directory: ca, id: \"\(id)\" } } }".write(
      toFile: directory.file("c.yaml"), atomically: true, encoding: .utf8)
    let outcome = try Tool.run(
      "identity", "verify", "--config", directory.file("c.yaml"), directory.file("web.pem"))
    #expect(outcome.output == "accepted: spiffe://own.mesh/web\n")
    #expect(outcome.status == 0)
  }
}

@Suite struct `culvert identity fetch` {
  @Test(arguments: [
    ("nowhere", "--socket: expected unix:///PATH or tcp://IP:PORT"),
    ("unix:///nonexistent/agent.sock", "cannot_connect: No such file or directory"),
    ("tcp://127.0.0.1:1", "cannot_connect: Connection refused"),
  ])
  func `says that there is no answer`(socket: String, words: String) throws {
    for flags in [[], ["--bundles"]] {
      let outcome = try Tool.run(["identity", "fetch", "--socket", socket] + flags)
      #expect(outcome.status == 2)
      #expect(outcome.output == "")
      #expect(outcome.error.contains(words), "\(outcome.error)")
      #expect(outcome.error.count { $0 == "\n" } == 1)
    }
  }

  @Test func `says that no socket is named`() throws {
    let outcome = try Tool.run(
      "identity", "fetch", through: ["env", "-u", "SPIFFE_ENDPOINT_SOCKET"])
    #expect(outcome.status == 2)
    #expect(
      outcome.error
        == "culvert: --socket is not set, and neither is SPIFFE_ENDPOINT_SOCKET\n")
  }

  @Test func `asks where SPIFFE_ENDPOINT_SOCKET says`() throws {
    let outcome = try Tool.run(
      "identity", "fetch", through: ["env", "SPIFFE_ENDPOINT_SOCKET=unix:///nonexistent/a.sock"])
    #expect(outcome.status == 2)
    #expect(outcome.error.contains("unix:///nonexistent/a.sock: cannot_connect"))
  }

  @Test func `waits no longer than it is told`() throws {
    let directory = try TemporaryDirectory()
    let listening = try Listening(directory.file("agent.sock"))
    let outcome = try Tool.run(
      "identity", "fetch", "--socket", "unix://" + directory.file("agent.sock"),
      "--timeout-milliseconds", "200")
    withExtendedLifetime(listening) {}
    #expect(outcome.status == 2)
    #expect(outcome.error.contains("no answer within 200 ms"), "\(outcome.error)")
    #expect(try Tool.run("identity", "fetch", "--timeout-milliseconds", "0").status == 64)
  }
}
