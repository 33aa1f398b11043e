import Configuration
import DataPlane
import Foundation
import Identity
import Net
import TLS
import TestSupport
import Testing

@testable import Control

@Suite struct `The identity manager` {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func settings(_ workload: String) throws -> Settings {
    let yaml = "workload:\n" + workload
    return try Settings.parse(
      yaml: Array(yaml.utf8), file: "c.yaml", directory: directory.path)
  }

  private func word(_ manager: IdentityManager) -> String { manager.word }

  // MARK: The embedded CA

  private func embedded(lifetimeSeconds: Int) throws -> IdentityManager {
    _ = try CertificateAuthority.create(
      directory: directory.file("ca"), trustDomain: try TrustDomain("own.mesh"))
    return try IdentityManager(
      settings(
        "  identity: { embeddedCA: { directory: ca, id: \"spiffe://own.mesh/a\","
          + " lifetimeSeconds: \(lifetimeSeconds) } }\n"), mark: 0, now: 0)
  }

  /// What it gives begins a minute in the past, which is all of the shortest life.
  @Test(arguments: [60, 100, 3600])
  func `renews what the embedded CA gave at half of its life, and not before`(life: Int) throws {
    let manager = try embedded(lifetimeSeconds: life)
    #expect(word(manager) == "ready")
    let half = Int64(life) * 500
    for now in Int64(0)..<5 { manager.advance(now: now) }
    #expect(manager.rotations == 0)
    let wait = manager.waitMilliseconds(now: 5)
    #expect(wait > min(half, 60_000) - 3000 && wait <= min(half, 60_000), "\(wait)")
  }

  @Test func `keeps what it has if the embedded CA is of another trust domain`() throws {
    _ = try CertificateAuthority.create(
      directory: directory.file("ca"), trustDomain: try TrustDomain("other.mesh"))
    let error = #expect(throws: LoadError.self) {
      try IdentityManager(
        settings("  identity: { embeddedCA: { directory: ca, id: \"spiffe://own.mesh/a\" } }\n"),
        mark: 0, now: 0)
    }
    #expect(error?.description.contains("own.mesh") == true, "\(error?.description ?? "")")
  }

  // MARK: Waiting

  private func awaiting(_ milliseconds: Int) throws -> Settings {
    try settings(
      "  identity: { workloadAPI: { socket: \"unix://\(directory.file("none"))\" },"
        + " startupDeadlineMilliseconds: \(milliseconds) }\n")
  }

  @Test func `awaits an identity up to its deadline`() throws {
    let manager = try IdentityManager(awaiting(5000), mark: 0, now: 1000)
    manager.advance(now: 1000)
    #expect(word(manager) == "awaited")
    _ = manager.takeChange()
    manager.advance(now: 5999)
    #expect(word(manager) == "awaited")
    #expect(!manager.takeChange())
    manager.advance(now: 6000)
    #expect(word(manager) == "unavailable")
    #expect(manager.takeChange())
    #expect(manager.lastError?.contains("cannot_connect") == true)
  }

  @Test func `takes another deadline from a reload`() throws {
    let manager = try IdentityManager(awaiting(5000), mark: 0, now: 1000)
    try manager.reload(awaiting(9000), now: 2000)
    manager.advance(now: 6000)
    #expect(word(manager) == "awaited")
    manager.advance(now: 10_000)
    #expect(word(manager) == "unavailable")
  }

  @Test func `does not wait at all where nothing can come`() throws {
    let own = try Trusted.demo.get().issue(LeafRequest("spiffe://demo.mesh/web"))
    let partner = try Trusted.partner.get()
    let text = """
        identity: { files: { certificate: "\(own.certificate)", privateKey: "\(own.privateKey)" } }
        trustBundles: [ { trustDomain: partner.example, pem: "\(partner.bundle)" } ]

      """
    let error = #expect(throws: LoadError.self) {
      try IdentityManager(settings(text), mark: 0, now: 0)
    }
    #expect(error?.description.contains("unknown_trust_domain") == true)
    // An endpoint may know the own bundle.
    let polled = text.replacing(
      " } ]",
      with: " }, { trustDomain: demo.mesh, federation:"
        + " { url: \"https://127.0.0.1:1/\", profile: https_web } } ]")
    #expect(word(try IdentityManager(settings(polled), mark: 0, now: 0)) == "awaited")
  }

  // MARK: Bundles

  private func files(_ bundles: String) throws -> Settings {
    let own = try Trusted.demo.get().issue(LeafRequest("spiffe://demo.mesh/web"))
    return try settings(
      """
        identity: { files: { certificate: "\(own.certificate)", privateKey: "\(own.privateKey)" } }
        trustBundles: [ { trustDomain: demo.mesh, pem: "\(try Trusted.demo.get().bundle)" }, \(bundles) ]

      """)
  }

  private func trusted(_ manager: IdentityManager, _ domain: TrustDomain) -> [[UInt8]]? {
    manager.inForce?.material.bundles.first { $0.trustDomain == domain }?.certificatesDER
  }

  @Test func `lets an endpoint have no say once it is configured no more`() throws {
    let domain = try TrustDomain("partner.example")
    let file = try Trusted.partner.get().bundle
    let polled = try files(
      "{ trustDomain: partner.example, pem: \"\(file)\", federation:"
        + " { url: \"https://127.0.0.1:1/\", profile: https_web } }")
    let manager = try IdentityManager(polled, mark: 0, now: 0)
    let first = try #require(trusted(manager, domain))
    let another = try Authority(trustDomain: "partner.example")
    manager.take("the endpoint") { inputs throws(IdentityError) in
      inputs.fetched[domain] = SourcedBundle(
        trustDomain: domain, origin: .federation,
        bundle: try TrustBundle(domain, pem: another.bundle))
    }
    #expect(trusted(manager, domain) != first)
    try manager.reload(files("{ trustDomain: partner.example, pem: \"\(file)\" }"), now: 1)
    #expect(trusted(manager, domain) == first)
    #expect(manager.federations.isEmpty)
  }

  @Test func `does not take what would make its own certificate untrusted`() throws {
    let demo = try TrustDomain("demo.mesh")
    let manager = try IdentityManager(
      files("{ trustDomain: partner.example, pem: \"\(try Trusted.partner.get().bundle)\" }"),
      mark: 0, now: 0)
    let (before, epoch) = (trusted(manager, demo), manager.inForce?.material.trustEpoch)
    manager.take("the endpoint") { inputs throws(IdentityError) in
      inputs.fetched[demo] = SourcedBundle(trustDomain: demo, origin: .federation, bundle: nil)
    }
    #expect(manager.lastError?.hasPrefix("the endpoint: ") == true)
    #expect(trusted(manager, demo) == before)
    #expect(manager.inForce?.material.trustEpoch == epoch)
    #expect(word(manager) == "ready")
  }

  // MARK: Taken back

  @Test func `is without an identity once it was taken back, until there is one again`() throws {
    let manager = try IdentityManager(
      files("{ trustDomain: partner.example, pem: \"\(try Trusted.partner.get().bundle)\" }"),
      mark: 0, now: 0)
    let pair = try #require(manager.inputs.pair)
    let numbers = [manager.inForce?.material.svidEpoch, manager.inForce?.material.trustEpoch]
    #expect(numbers == [1, 1])
    manager.withdraw()
    #expect(word(manager) == "unavailable")
    #expect(manager.state.material == nil)
    manager.take("the agent") { $0.pair = pair }
    #expect(word(manager) == "ready")
    #expect(manager.inForce?.material.svidEpoch == 2, "no session of before is resumed")
    #expect(manager.inForce?.material.trustEpoch == 2)
  }
}
