import Configuration
import Testing

/// Each text has a `▸` before the place at which it is refused.
@Suite struct RefusedWorkloads {
  private func expect(
    _ text: String, _ complaint: String, _ location: SourceLocation = #_sourceLocation
  ) throws {
    let before = try #require(text.split(separator: "▸", omittingEmptySubsequences: false).first)
    let lines = before.split(separator: "\n", omittingEmptySubsequences: false)
    let place = "\(lines.count):\((lines.last?.count ?? 0) + 1)"
    #expect(
      Sample.complaint(text.replacing("▸", with: "")) == "c.yaml:\(place): \(complaint)",
      sourceLocation: location)
  }

  private static func text(
    identity: String = "{ files: { certificate: a, privateKey: b } }",
    bundles: String = "[ { trustDomain: demo.mesh, pem: c } ]", _ more: String = ""
  ) -> String {
    "workload:\n  identity: \(identity)\n  trustBundles: \(bundles)\n" + more
  }

  private static let notAnEndpoint = "expected unix:///PATH or tcp://IP:PORT"

  @Test(arguments: [
    (
      "▸{ startupDeadlineMilliseconds: 5 }",
      ": needs one of \"files\", \"workloadAPI\" and \"embeddedCA\""
    ),
    (
      "{ files: { certificate: a, privateKey: b }, workloadAPI: ▸{} }",
      ".workloadAPI: an identity has one source, and there is workload.identity.files already"
    ),
    (
      "{ embeddedCA: ▸{ directory: a, id: \"spiffe://demo.mesh/a\" }, workloadAPI: {} }",
      ".embeddedCA: an identity has one source, and there is workload.identity.workloadAPI already"
    ),
    ("{ workloadAPI: ▸1 }", ".workloadAPI: expected a mapping, found \"1\""),
    ("{ workloadAPI: ▸}", ".workloadAPI: expected a mapping, found nothing"),
    ("{ workloadAPI: { socket: ▸5 } }", ".workloadAPI.socket: expected a text, found \"5\""),
    (
      "{ workloadAPI: { socket: ▸/run/a.sock } }",
      ".workloadAPI.socket: \"/run/a.sock\": \(notAnEndpoint)"
    ),
    (
      "{ workloadAPI: { socket: ▸\"unix://run/a.sock\" } }",
      ".workloadAPI.socket: \"unix://run/a.sock\": a unix: endpoint is unix:///PATH: no host, an"
        + " absolute path"
    ),
    (
      "{ workloadAPI: { socket: ▸\"tcp://localhost:80\" } }",
      ".workloadAPI.socket: \"tcp://localhost:80\": a tcp: endpoint is tcp://IP:PORT: an IP address"
        + " (IPv6 in brackets), no name, no path"
    ),
    ("{ workloadAPI: { hint: ▸7 } }", ".workloadAPI.hint: expected a text, found \"7\""),
    ("{ workloadAPI: { hint: ▸\"\" } }", ".workloadAPI.hint: must not be empty"),
    (
      "{ workloadAPI: { hint: ▸\"a\\tb\" } }", ".workloadAPI.hint: must not hold control characters"
    ),
    ("{ embeddedCA: ▸{ id: a } }", ".embeddedCA: missing field \"directory\""),
    ("{ embeddedCA: ▸{ directory: a } }", ".embeddedCA: missing field \"id\""),
    (
      "{ embeddedCA: { directory: a, id: ▸\"spiffe://demo.mesh\" } }",
      ".embeddedCA.id: \"spiffe://demo.mesh\" names a trust domain, not a workload: it has no path"
    ),
    (
      "{ embeddedCA: { directory: a, id: ▸web } }",
      ".embeddedCA.id: \"web\" is not a SPIFFE ID: scheme_not_spiffe"
    ),
    (
      "{ embeddedCA: { directory: ▸true, id: a } }",
      ".embeddedCA.directory: expected a text, found \"true\""
    ),
  ])
  func anIdentityThatCannotWorkIsRefused(identity: String, complaint: String) throws {
    try expect(Self.text(identity: identity), "workload.identity" + complaint)
  }

  @Test(arguments: [
    ("{ workloadAPI: { ▸sockt: a } }", "workload.identity.workloadAPI.sockt", "socket"),
    ("{ embeddedCA: { ▸directry: a } }", "workload.identity.embeddedCA.directry", "directory"),
    ("{ ▸workloadApi2: {} }", "workload.identity.workloadApi2", "workloadAPI"),
  ])
  func anUnknownFieldOfAnIdentityIsRefused(identity: String, field: String, meant: String) throws {
    try expect(
      Self.text(identity: identity), "unknown field \"\(field)\"; did you mean \"\(meant)\"?")
  }

  @Test(arguments: [
    ("lifetimeSeconds", 60, 31_536_000), ("startupDeadlineMilliseconds", 0, 600_000),
    ("refreshHintSeconds", 10, 86_400), ("port", 1, 65_535),
  ])
  func everyNumberHasItsRange(key: String, low: Int, high: Int) throws {
    func text(_ value: String) -> (text: String, path: String) {
      switch key {
      case "lifetimeSeconds":
        (
          Self.text(
            identity:
              "{ embeddedCA: { directory: a, id: \"spiffe://own.mesh/a\", \(key): ▸\(value) } }"
          ), "workload.identity.embeddedCA"
        )
      case "startupDeadlineMilliseconds":
        (Self.text(identity: "{ workloadAPI: {}, \(key): ▸\(value) }"), "workload.identity")
      case "port":
        (Self.text("  bundleEndpoint: { port: ▸\(value) }"), "workload.bundleEndpoint")
      default:
        (Self.text("  bundleEndpoint: { port: 1, \(key): ▸\(value) }"), "workload.bundleEndpoint")
      }
    }
    for value in [low, high] {
      #expect(Sample.complaint(text("\(value)").text.replacing("▸", with: "")) == nil)
    }
    for value in ["\(low - 1)", "\(high + 1)", "\"\(low)\"", "1.5", "soon"] {
      let (text, path) = text(value)
      let found = value.hasPrefix("\"") ? value : "\"\(value)\""
      try expect(
        text, "\(path).\(key): expected an integer from \(low) to \(high), found \(found)")
    }
  }

  @Test(arguments: [
    (
      "connectionLifetime: ▸forever",
      "connectionLifetime: expected unlimited or certificate, found \"forever\""
    ),
    ("bundleEndpoint: ▸8443", "bundleEndpoint: expected a mapping, found \"8443\""),
    ("bundleEndpoint: ▸{ address: 10.0.0.1 }", "bundleEndpoint: missing field \"port\""),
    (
      "bundleEndpoint: { address: ▸localhost, port: 1 }",
      "bundleEndpoint.address: \"localhost\" is not an IP address"
    ),
  ])
  func whatElseAWorkloadHasIsChecked(line: String, complaint: String) throws {
    try expect(Self.text("  \(line)"), "workload.\(complaint)")
  }

  // MARK: Trust bundles

  @Test(arguments: [
    ("▸[]", ": must not be empty"), ("▸{}", ": expected a list, found a mapping"),
    ("[ ▸demo.mesh ]", "[0]: expected a mapping, found \"demo.mesh\""),
    ("[ ▸{ pem: a } ]", "[0]: missing field \"trustDomain\""),
    ("[ ▸{ trustDomain: demo.mesh } ]", "[0]: needs \"pem\", \"jwks\" or \"federation\""),
    (
      "[ ▸{ trustDomain: demo.mesh, crl: a } ]", "[0]: needs \"pem\", \"jwks\" or \"federation\""
    ),
    ("[ { trustDomain: demo.mesh, pem: a, jwks: ▸b } ]", "[0].jwks: \"pem\" is given already"),
    ("[ { trustDomain: demo.mesh, jwks: ▸{} } ]", "[0].jwks: expected a text, found a mapping"),
    ("[ { trustDomain: demo.mesh, pem: a, crl: ▸[b] } ]", "[0].crl: expected a text, found a list"),
    (
      "[ ▸{ trustDomain: demo.mesh, directory: a } ]",
      "[0]: \"directory\" stands alone: it brings the trust domains with it"
    ),
    (
      "[ ▸{ bundleMap: a, crl: b } ]",
      "[0]: \"bundleMap\" stands alone: it brings the trust domains with it"
    ),
    (
      "[ ▸{ workloadAPI: {}, directory: a } ]",
      "[0]: \"directory\" stands alone: it brings the trust domains with it"
    ),
    ("[ { directory: ▸1 } ]", "[0].directory: expected a text, found \"1\""),
    ("[ { bundleMap: ▸\"\" } ]", "[0].bundleMap: must not be empty"),
    ("[ { workloadAPI: ▸a } ]", "[0].workloadAPI: expected a mapping, found \"a\""),
    (
      "[ { workloadAPI: { socket: ▸\"https://a\" } } ]",
      "[0].workloadAPI.socket: \"https://a\": \(notAnEndpoint)"
    ),
    (
      "[ { workloadAPI: {} }, { workloadAPI: ▸{ socket: \"unix:///a\" } } ]",
      "[1].workloadAPI: there is one Workload API, and workload.trustBundles[0].workloadAPI names it"
        + " already"
    ),
    (
      "[ { trustDomain: a.b, pem: c }, { trustDomain: ▸a.b, federation: { url: \"https://c/\","
        + " profile: https_web } } ]", "[1].trustDomain: \"a.b\" already has a bundle"
    ),
  ])
  func aSourceOfBundlesThatCannotWorkIsRefused(bundles: String, complaint: String) throws {
    try expect(Self.text(bundles: bundles), "workload.trustBundles" + complaint)
  }

  @Test(arguments: [
    ("▸https://a/", ": expected a mapping, found \"https://a/\""),
    ("▸{ profile: https_web }", ": missing field \"url\""),
    ("▸{ url: \"https://a/\" }", ": missing field \"profile\""),
    (
      "{ url: ▸\"http://a/\", profile: https_web }", ".url: \"http://a/\": scheme_not_https"
    ),
    (
      "{ url: ▸\"https://me@a/\", profile: https_web }", ".url: \"https://me@a/\": url_has_userinfo"
    ),
    ("{ url: ▸\"https://a/#b\", profile: https_web }", ".url: \"https://a/#b\": url_has_fragment"),
    ("{ url: ▸\"https://a:0/\", profile: https_web }", ".url: \"https://a:0/\": invalid_port"),
    ("{ url: ▸\"https:///b\", profile: https_web }", ".url: \"https:///b\": invalid_host"),
    (
      "{ url: \"https://a/\", profile: ▸web }",
      ".profile: expected https_web or https_spiffe, found \"web\""
    ),
    (
      "{ url: \"https://a/\", profile: https_web, endpointID: ▸\"spiffe://a/b\" }",
      ".endpointID: goes with profile https_spiffe only"
    ),
    ("▸{ url: \"https://a/\", profile: https_spiffe }", ": missing field \"endpointID\""),
    (
      "{ url: \"https://a/\", profile: https_spiffe, endpointID: ▸\"spiffe://a\" }",
      ".endpointID: \"spiffe://a\" names a trust domain, not a workload: it has no path"
    ),
  ])
  func anEndpointThatCannotWorkIsRefused(federation: String, complaint: String) throws {
    try expect(
      Self.text(bundles: "[ { trustDomain: demo.mesh, pem: c, federation: \(federation) } ]"),
      "workload.trustBundles[0].federation" + complaint)
  }

  private static func polled(_ domain: String, _ more: String = "") -> String {
    "{ trustDomain: \(domain), federation: { url: \"https://a/\", profile: https_spiffe,"
      + " endpointID: \"spiffe://partner.example/server\" } \(more) }"
  }

  @Test(arguments: [
    "[ { trustDomain: demo.mesh, pem: c }, \(polled("partner.example")) ]",
    "[ { trustDomain: demo.mesh, pem: c }, \(polled("other.example")) ]",
  ])
  func anEndpointThatNothingVerifiesIsRefused(bundles: String) throws {
    let domain = bundles.contains("other.example") ? "other.example" : "partner.example"
    try expect(
      Self.text(bundles: "▸" + bundles),
      "workload.trustBundles: nothing verifies spiffe://partner.example/server, the endpoint of"
        + " \(domain): give a first bundle of partner.example (\"pem\" or \"jwks\")")
  }

  @Test(arguments: [
    "[ \(polled("partner.example", ", jwks: first.json")) ]",
    "[ \(polled("other.example")), { trustDomain: partner.example, pem: c } ]",
    "[ \(polled("partner.example")), { directory: d } ]",
    "[ \(polled("partner.example")), { workloadAPI: {} } ]",
    "[ \(polled("other.example")), { trustDomain: partner.example, federation:"
      + " { url: \"https://b/\", profile: https_web } } ]",
  ])
  func anEndpointThatSomethingMayVerifyIsTaken(bundles: String) {
    #expect(Sample.complaint(Self.text(bundles: bundles)) == nil)
  }

  /// The embedded CA and a Workload API bring bundles of their own.
  @Test func anEndpointMayBeVerifiedByWhatComesWithTheIdentity() throws {
    let bundles = "[ \(Self.polled("other.example")) ]"
    func complaint(_ identity: String) -> String? {
      Sample.complaint(Self.text(identity: identity, bundles: bundles))
    }
    #expect(complaint("{ workloadAPI: {} }") == nil)
    #expect(
      complaint("{ embeddedCA: { directory: a, id: \"spiffe://partner.example/a\" } }") == nil)
    #expect(complaint("{ embeddedCA: { directory: a, id: \"spiffe://demo.mesh/a\" } }") != nil)
  }

  // MARK: What needs no bundle in the file

  @Test func bundlesAreRequiredOfFilesOnly() throws {
    func complaint(_ identity: String) -> String? {
      Sample.complaint("workload: { identity: \(identity) }")
    }
    #expect(complaint("{ workloadAPI: {} }") == nil)
    #expect(complaint("{ embeddedCA: { directory: a, id: \"spiffe://demo.mesh/a\" } }") == nil)
    #expect(
      complaint("{ files: { certificate: a, privateKey: b } }")
        == "c.yaml:1:11: workload: missing field \"trustBundles\"")
  }

  @Test(arguments: [
    ("{ workloadAPI: {} }", nil as String?, true),
    ("{ embeddedCA: { directory: a, id: \"spiffe://other.mesh/a\" } }", nil, true),
    ("{ embeddedCA: { directory: a, id: \"spiffe://demo.mesh/a\" } }", nil, false),
    ("{ files: { certificate: a, privateKey: b } }", "[ { directory: d } ]", true),
    ("{ files: { certificate: a, privateKey: b } }", "[ { bundleMap: d } ]", true),
    ("{ files: { certificate: a, privateKey: b } }", "[ { workloadAPI: {} } ]", true),
    ("{ files: { certificate: a, privateKey: b } }", "[ { trustDomain: a.b, pem: d } ]", false),
  ])
  func whoMayHaveABundleMayBeExpected(identity: String, bundles: String?, isTaken: Bool) {
    let peer = "outbound: { peers: [ { address: 10.0.0.1, identity: \"spiffe://other.mesh/a\" } ] }"
    let list = bundles.map { "  trustBundles: \($0)\n" } ?? ""
    let complaint = Sample.complaint("workload:\n  identity: \(identity)\n\(list)\(peer)\n")
    #expect((complaint == nil) == isTaken, "\(complaint ?? "")")
  }
}
