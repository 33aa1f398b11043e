import Configuration
import Foundation
import Identity
import Net
import TLS
import TestSupport
import Testing

@testable import Control

private func sourced(
  _ domain: String, _ origin: BundleOrigin, _ file: String?, document: SPIFFEBundle? = nil
) throws -> SourcedBundle {
  let domain = try TrustDomain(domain)
  return SourcedBundle(
    trustDomain: domain, origin: origin, bundle: try file.map { try TrustBundle(domain, pem: $0) },
    confirmedSeconds: 1, document: document)
}

@Suite struct `What the sources have given` {
  let demo: String
  let other: String

  init() throws {
    demo = try Trusted.demo.get().bundle
    other = try Trusted.impostor.get().bundle
  }

  private func origin(_ inputs: IdentityInputs, of domain: String = "demo.mesh") -> BundleOrigin? {
    inputs.bundles.first { $0.trustDomain.name == domain }?.origin
  }

  @Test func `is one bundle for each trust domain, the configured one first`() throws {
    var inputs = IdentityInputs()
    inputs.delivered = [try sourced("demo.mesh", .workloadAPI, demo)]
    #expect(origin(inputs) == .workloadAPI)
    inputs.accompanying = [try sourced("demo.mesh", .embeddedCA, other)]
    #expect(origin(inputs) == .embeddedCA)
    inputs.configured = [try sourced("demo.mesh", .pem, demo)]
    #expect(origin(inputs) == .pem)
    #expect(inputs.bundles.count == 1)
    #expect(inputs.bundles[0].bundle?.count == 1, "never merged")
  }

  @Test func `is distrust where the configured bundle is empty, whatever an agent delivers`() throws
  {
    var inputs = IdentityInputs()
    inputs.configured = [try sourced("demo.mesh", .jwks, nil)]
    inputs.delivered = [try sourced("demo.mesh", .workloadAPI, demo)]
    #expect(inputs.bundles.count == 1)
    #expect(inputs.bundle(of: try TrustDomain("demo.mesh")) == nil)
  }

  @Test func `takes an endpoint's answer for its file, and keeps the file's lists`() throws {
    let domain = try TrustDomain("demo.mesh")
    let lists = try RevocationList.load(try Trusted.demo.get().revoke([]))
    var file = try sourced("demo.mesh", .pem, demo)
    file.revocationLists = lists
    var inputs = IdentityInputs()
    inputs.configured = [file]
    inputs.fetched[domain] = try sourced("demo.mesh", .federation, demo)
    #expect(origin(inputs) == .federation)
    #expect(inputs.bundle(of: domain)?.revocationLists.count == 1)
  }

  @Test func `forgets an endpoint's answer when the file becomes another one`() throws {
    let polled = try settings(federation: true)
    let domain = try TrustDomain("demo.mesh")
    let before = [try sourced("demo.mesh", .pem, demo)]
    var inputs = IdentityInputs()
    inputs.configured = before
    inputs.fetched[domain] = try sourced("demo.mesh", .federation, other)
    inputs.keepFetched(from: before, to: [try sourced("demo.mesh", .pem, demo)], polled)
    #expect(inputs.fetched[domain] != nil, "the same certificates")
    inputs.keepFetched(from: before, to: [try sourced("demo.mesh", .pem, other)], polled)
    #expect(inputs.fetched[domain] == nil)
  }

  @Test func `forgets an endpoint's answer when there is no endpoint any more`() throws {
    let domain = try TrustDomain("demo.mesh")
    let file = [try sourced("demo.mesh", .pem, demo)]
    var inputs = IdentityInputs()
    inputs.configured = file
    inputs.fetched[domain] = try sourced("demo.mesh", .federation, other)
    inputs.keepFetched(from: file, to: file, try settings(federation: false))
    #expect(inputs.fetched.isEmpty)
    #expect(origin(inputs) == .pem)
  }

  @Test func `is confirmed by an endpoint that answers what is in use`() throws {
    let domain = try TrustDomain("demo.mesh")
    let document = try SPIFFEBundle(jwks: Array(try Trusted.jwks([demo], sequence: 1).utf8))
    let newer = try SPIFFEBundle(jwks: Array(try Trusted.jwks([demo], sequence: 2).utf8))
    var inputs = IdentityInputs()
    inputs.configured = [try sourced("demo.mesh", .jwks, demo, document: document)]
    let isFile = [inputs.confirm(document, of: domain), inputs.confirm(newer, of: domain)]
    #expect(isFile == [true, false])
    #expect(try #require(inputs.configured[0].confirmedSeconds) > 1)
    inputs.fetched[domain] = try sourced("demo.mesh", .federation, demo, document: newer)
    let isAnswer = [inputs.confirm(newer, of: domain), inputs.confirm(document, of: domain)]
    #expect(isAnswer == [true, false], "the file is not in use any more")
    #expect(try #require(inputs.fetched[domain]?.confirmedSeconds) > 1)
  }

  private func settings(federation: Bool) throws -> Settings {
    let domain = DomainBundle(
      trustDomain: try TrustDomain("demo.mesh"), file: .pem(demo),
      federation: federation
        ? FederationEndpoint(url: try HTTPSURL("https://demo.mesh/bundle")) : nil)
    return Settings(
      identity: .files(IdentityFiles(certificate: "a", privateKey: "b")),
      trustBundles: [.domain(domain)])
  }
}

@Suite struct `An identity that is put together` {
  private let bundle: TrustBundle
  private let authority: Authority

  init() throws {
    authority = try Trusted.demo.get()
    bundle = try TrustBundle(try TrustDomain("demo.mesh"), pem: authority.bundle)
  }

  private func pair() throws -> KeyPair {
    let credential = try authority.issue(LeafRequest("spiffe://demo.mesh/web"))
    return try KeyPair(certificate: credential.certificate, privateKey: credential.privateKey)
  }

  private func next(
    _ pair: KeyPair, _ trust: [TrustBundle], after former: ComposedIdentity
  ) throws -> ComposedIdentity {
    try ComposedIdentity(
      pair, trust, after: former,
      epochs: .init(svid: former.material.svidEpoch, trust: former.material.trustEpoch))
  }

  @Test func `numbers what has changed, and nothing else`() throws {
    let (pair, another) = (try pair(), try pair())
    let partner = try TrustBundle(
      try TrustDomain("partner.example"), pem: try Trusted.partner.get().bundle)
    func numbers(_ identity: ComposedIdentity) -> [UInt64] {
      [identity.material.svidEpoch, identity.material.trustEpoch]
    }
    let first = try ComposedIdentity(pair, [bundle], after: nil, epochs: .init())
    #expect(numbers(first) == [1, 1])
    #expect(numbers(try next(pair, [bundle], after: first)) == [1, 1])
    let rotated = try next(another, [bundle], after: first)
    #expect(numbers(rotated) == [2, 1])
    let trusting = try next(another, [bundle, partner], after: rotated)
    #expect(numbers(trusting) == [2, 2])
    #expect(
      numbers(try next(another, [partner, bundle], after: trusting)) == [2, 2], "in another order")
    #expect(numbers(try next(pair, [bundle], after: trusting)) == [3, 3])
  }

  @Test func `has another trust with another revocation list`() throws {
    let pair = try pair()
    let first = try ComposedIdentity(pair, [bundle], after: nil, epochs: .init())
    var stricter = bundle
    for list in try RevocationList.load(try authority.revoke([])) { _ = stricter.add(list) }
    #expect(stricter.revocationLists.count == 1)
    let second = try next(pair, [stricter], after: first)
    #expect(second.material.svidEpoch == 1)
    #expect(second.material.trustEpoch == 2)
    #expect(try next(pair, [stricter], after: second).material.trustEpoch == 2)
  }

  @Test func `goes on with its numbers after it was taken back`() throws {
    let identity = try ComposedIdentity(
      pair(), [bundle], after: nil, epochs: .init(svid: 4, trust: 7))
    #expect(identity.material.svidEpoch == 5)
    #expect(identity.material.trustEpoch == 8)
  }

  @Test func `is refused if its own bundle is not there, or does not vouch for it`() throws {
    let pair = try pair()
    let impostor = try TrustBundle(
      try TrustDomain("demo.mesh"), pem: try Trusted.impostor.get().bundle)
    for (trust, word) in [([], "unknown_trust_domain"), ([impostor], "untrusted_chain")] {
      let error = #expect(throws: IdentityError.self) {
        try ComposedIdentity(pair, trust, after: nil, epochs: .init())
      }
      #expect(error?.reason.hasPrefix(word) == true, "\(error?.reason ?? "")")
    }
  }

  @Test func `takes a list that names itself, for the others it names`() throws {
    let credential = try authority.issue(LeafRequest("spiffe://demo.mesh/gone"))
    let pair = try KeyPair(
      certificate: credential.certificate, privateKey: credential.privateKey)
    var stricter = bundle
    for list in try RevocationList.load(try authority.revoke([credential])) {
      _ = stricter.add(list)
    }
    let composed = try ComposedIdentity(pair, [stricter], after: nil, epochs: .init())
    #expect(composed.material.bundles.first?.revocationLists.count == 1)
    // Whoever verifies it as a peer's refuses it.
    let verdict = try PeerVerdict(pem: credential.certificate, bundles: [stricter], expect: [])
    #expect(verdict.refusal == .certificateRevoked)
  }
}
