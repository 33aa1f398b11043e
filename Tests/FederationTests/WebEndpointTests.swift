import Federation
import Foundation
import Identity
import Net
import TestSupport
import Testing

/// `https_web` (SPIFFE Federation §5.2.1), with Python's server and certificates made by openssl.
@Suite(.timeLimit(.minutes(2))) struct WebEndpointTests {
  private static let server = Result {
    try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
  }

  private func fetch(_ path: String) throws -> SPIFFEBundle {
    try BundleRequest.web(Self.server.get().url(path)).fetch()
  }

  private func refusal(_ path: String) throws -> BundleFetchError.Reason? {
    try BundleRequest.web(Self.server.get().url(path)).refusal?.reason
  }

  // 20. https_web (§5.2.1).
  @Test func `20: the bundle of a web endpoint is fetched`() throws {
    let endpoint = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
    let bundle = try BundleRequest.web(endpoint.url("/bundle?x=1")).fetch()
    #expect(bundle == (try partnerBundle()))
    #expect(bundle.sequence == 7)
    #expect(bundle.refreshHintSeconds == 600)
    #expect(bundle.x509Authorities.count == 1)
    #expect(
      try endpoint.requests() == [
        "/bundle?x=1 localhost:\(endpoint.port) localhost"
      ])
  }

  // 22. RFC 6125 (§5.2.1.4).
  @Test func `22: a certificate for another name is refused`() throws {
    let endpoint = try Self.server.get()
    #expect(try BundleRequest.web(endpoint.url("/bundle")).refusal == nil)
    let error = try BundleRequest.web(endpoint.url("/bundle", host: "127.0.0.1")).refusal
    #expect(error?.reason == .certificateRefused)
    #expect(error?.detail == "IP address mismatch")
    let other = try Endpoint(LeafRequest(dnsName: "other.example"), from: Identities.webPKI)
    #expect(
      try BundleRequest.web(other.url("/bundle")).refusal
        == BundleFetchError(.certificateRefused, "hostname mismatch"))
    #expect(try other.requests().isEmpty)
  }

  @Test func aCertificateForTheAddressIsAccepted() throws {
    var request = LeafRequest(dnsName: "other.example")
    request.ipAddresses = ["127.0.0.1"]
    let endpoint = try Endpoint(request, from: Identities.webPKI)
    #expect(try BundleRequest.web(endpoint.url("/bundle", host: "127.0.0.1")).refusal == nil)
    // No SNI for an address (RFC 6066 §3).
    #expect(
      try endpoint.requests() == ["/bundle 127.0.0.1:\(endpoint.port) None"])
    #expect(
      try BundleRequest.web(endpoint.url("/bundle")).refusal?.reason == .certificateRefused)
  }

  @Test func aCertificateThatHasExpiredIsRefused() throws {
    let request = LeafRequest(dnsName: "localhost").with {
      $0.notBeforeHours = -48
      $0.notAfterHours = -24
    }
    let endpoint = try Endpoint(request, from: Identities.webPKI)
    #expect(try Self.refusal(endpoint) == "certificate_refused: certificate has expired")
  }

  @Test func anAuthorityThatTheSystemDoesNotTrustIsRefused() throws {
    _ = Identities.webPKI
    let endpoint = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.partner)
    let refusal = try Self.refusal(endpoint)
    #expect(refusal?.hasPrefix("certificate_refused: ") == true)
    #expect(refusal?.contains("self-signed") == true || refusal?.contains("issuer") == true)
  }

  private static func refusal(_ endpoint: Endpoint) throws -> String? {
    try BundleRequest.web(endpoint.url("/bundle")).refusal?.description
  }

  // MARK: Redirects

  @Test(arguments: [301, 302, 303, 307, 308])
  func aRedirectIsFollowed(code: Int) throws {
    #expect(try fetch("/redirect?code=\(code)&to=/bundle") == partnerBundle())
    let absolute = try Self.server.get().url("/chunked")
    #expect(try fetch("/redirect?code=\(code)&to=\(absolute)") == partnerBundle())
  }

  // 22. Redirects are not persisted (§5.2.1.4).
  @Test func `22: the next fetch begins at the configured URL`() throws {
    let endpoint = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
    let request = BundleRequest.web(try endpoint.url("/redirect?code=301&to=/bundle"))
    for _ in 0..<2 { #expect(request.refusal == nil) }
    let paths = try endpoint.requests().map { $0.split(separator: " ")[0] }
    let once = ["/redirect?code=301&to=/bundle", "/bundle"]
    #expect(paths.map(String.init) == once + once)
  }

  @Test(arguments: ["300", "304", "305", "306", "310", "404", "500", "201", "204", "101"])
  func anyOtherStatusIsRefused(code: String) throws {
    #expect(try refusal("/bundle") == nil)
    #expect(try refusal("/status?code=\(code)") == .httpStatus)
  }

  @Test(arguments: [
    "http://localhost/", "ftp://localhost/", "https://user@localhost/", "/bundle%23x",
    "https://local%20host/", "https://localhost:0/",
  ])
  func aRedirectIsHeldToTheRules(target: String) throws {
    #expect(try refusal("/redirect?to=/bundle") == nil)
    #expect(try refusal("/redirect?to=\(target)") == .redirectRefused)
  }

  @Test func aRedirectHasOneTarget() throws {
    #expect(try refusal("/redirect-twice") == .redirectRefused)
    #expect(try refusal("/redirect-nowhere") == .redirectRefused)
  }

  @Test func theServerARedirectLeadsToMustProveItself() throws {
    let wrong = try Endpoint(LeafRequest(dnsName: "other.example"), from: Identities.webPKI)
    let right = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
    #expect(try refusal("/redirect?to=\(right.url("/bundle"))") == nil)
    #expect(try refusal("/redirect?to=\(wrong.url("/bundle"))") == .certificateRefused)
    #expect(try wrong.requests().isEmpty)
  }

  @Test func redirectsHaveABound() throws {
    #expect(try refusal("/hops?left=\(BundleRequest.maximumRedirects - 1)") == nil)
    #expect(try refusal("/hops?left=\(BundleRequest.maximumRedirects)") == .tooManyRedirects)
    #expect(try refusal("/hops?left=1000000") == .tooManyRedirects)
  }

  // MARK: Responses

  @Test(arguments: ["/chunked", "/until-close", "/interim"])
  func everyKindOfBodyIsRead(path: String) throws {
    #expect(try fetch(path) == partnerBundle())
  }

  @Test(
    arguments: [
      ("/truncated-length", .malformedResponse), ("/truncated-chunks", .malformedResponse),
      ("/cut", .tlsFailed), ("/giant-length", .bodyTooLarge), ("/giant-chunks", .bodyTooLarge),
      ("/giant-header", .malformedResponse), ("/endless-interim", .malformedResponse),
      ("/garbage", .malformedResponse), ("/both-lengths", .malformedResponse),
      ("/not-a-bundle", .malformedBundle),
    ] as [(String, BundleFetchError.Reason)])
  func aBadResponseIsRefused(path: String, reason: BundleFetchError.Reason) throws {
    #expect(try refusal("/bundle") == nil)
    #expect(try refusal(path) == reason)
  }

  @Test(arguments: ["/slow", "/silent"])
  func oneDeadlineIsForEverything(path: String) throws {
    let url = try Self.server.get().url(path)
    let start = ContinuousClock.now
    let error = BundleRequest.web(url, timeoutMilliseconds: 500).refusal
    let elapsed = ContinuousClock.now - start
    #expect(error?.reason == .timedOut)
    #expect(elapsed >= .milliseconds(490))
    // A byte comes every 20 ms; each would have put off a deadline of its own.
    #expect(elapsed < .seconds(10))
  }

  @Test func aServerWithoutTLSIsRefused() throws {
    let endpoint = try Endpoint(
      LeafRequest(dnsName: "localhost"), from: Identities.webPKI, plain: true)
    #expect(try BundleRequest.web(endpoint.url("/bundle")).refusal?.reason == .tlsFailed)
  }

  @Test func nobodyListensOrHasTheName() throws {
    let listener = try Socket.listener(on: SocketAddress(.loopbackV4, port: 0), backlog: 1)
    let port = try Socket.localAddress(listener.number).port
    _ = consume listener  // Closed, so that the port is one where nobody listens.
    let url = try HTTPSURL("https://127.0.0.1:\(port)/")
    #expect(BundleRequest.web(url).refusal?.reason == .connectFailed)
    let nobody = try HTTPSURL("https://nobody.invalid/")
    #expect(BundleRequest.web(nobody).refusal?.reason == .dnsFailed)
  }

  @Test(.enabled(if: geteuid() == 0, "SO_MARK needs CAP_NET_ADMIN"))
  func theSocketIsMarked() throws {
    let endpoint = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
    let poller = try BundlePoller()
    poller.start(
      BundleRequest(
        url: try endpoint.url("/silent"), profile: .httpsWeb, endpointBundle: nil,
        mark: Mark.proxy, timeoutMilliseconds: 20_000), tag: 0)
    try endpoint.program.waitForOutput(containing: "request /silent")
    let sockets = try Program.check([
      "ss", "--tcp", "--numeric", "--extended", "--no-header", "dport = :\(endpoint.port)",
    ])
    #expect(sockets.contains("fwmark:0xc17"), "\(sockets)")
    endpoint.program.kill()
  }
}
