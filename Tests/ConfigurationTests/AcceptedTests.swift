import Configuration
import Foundation
import Identity
import Net
import Policy
import Testing

@Suite struct AcceptedConfigurations {
  @Test func theLeastIsAllDefaults() throws {
    let settings = try Sample.parse(Sample.least)
    let expected = Settings(
      identity: .files(
        IdentityFiles(certificate: "/etc/culvert/a", privateKey: "/etc/culvert/b")),
      trustBundles: [
        .domain(
          DomainBundle(trustDomain: try TrustDomain("demo.mesh"), file: .pem("/etc/culvert/c")))
      ])
    #expect(settings == expected)
    #expect(settings.authorization.rules.isEmpty)
    #expect(settings.workers == nil)
    #expect(settings.adminSocket == "/run/culvert/admin.sock")
  }

  @Test func everyFieldIsTaken() throws {
    let settings = try Sample.parse(Sample.text)
    #expect(
      settings.identity
        == .files(
          IdentityFiles(
            certificate: "/etc/culvert/svid.pem", privateKey: "/run/keys/svid.key")))
    #expect(settings.startupDeadlineMilliseconds == 5000)
    #expect(settings.connectionLifetime == .certificate)
    #expect(
      settings.bundleEndpoint?.address
        == SocketAddress(try #require(IPAddress("10.90.0.1")), port: 8443))
    #expect(settings.bundleEndpoint?.refreshHintSeconds == 60)
    let partner = try TrustDomain("partner.example")
    let server = try SPIFFEID("spiffe://partner.example/spire/server")
    #expect(
      settings.trustBundles == [
        .domain(
          DomainBundle(
            trustDomain: try TrustDomain("demo.mesh"), file: .pem("/etc/culvert/demo-bundle.pem"),
            revocationLists: "/etc/culvert/demo.crl")),
        .domain(
          DomainBundle(
            trustDomain: partner, file: .jwks("/etc/culvert/partner.json"),
            federation: FederationEndpoint(
              url: try HTTPSURL("https://partner.example:8443/"), endpointID: server))),
        .domain(
          DomainBundle(
            trustDomain: try TrustDomain("web.example"),
            federation: FederationEndpoint(url: try HTTPSURL("https://web.example/bundle")))),
        .directory("/etc/culvert/bundles.d"), .bundleMap("/etc/culvert/map.json"),
        .workloadAPI(try WorkloadEndpoint("unix:///run/agent.sock")),
      ])
    #expect(settings.listeners.outboundPort == 16001)
    #expect(settings.listeners.inboundPort == 16006)
    #expect(settings.listeners.meshPort == 16008)
    #expect(
      settings.inbound == InboundPolicy(mode: .strict, ports: [8080: .permissive, 9090: .disabled]))
    #expect(settings.workers == 2)
    #expect(settings.adminSocket == "/run/other/admin.sock")
  }

  @Test func rulesKeepTheirOrderAndContents() throws {
    let settings = try Sample.parse(Sample.text)
    let outbound = settings.outbound
    let db = try SPIFFEID("spiffe://demo.mesh/ns/shop/sa/db")
    let cache = try SPIFFEID("spiffe://partner.example/ns/shop/sa/cache")
    func range(_ text: String) throws -> CIDR { try #require(CIDR(text)) }
    #expect(outbound.mode == .strict)
    #expect(
      outbound.rules == [
        OutboundRule(
          to: [try range("10.90.0.2")], ports: PortSet([3306...3306]), action: .mtls, expect: [db]),
        OutboundRule(
          to: [try range("0.0.0.0/0"), try range("::/0")],
          ports: PortSet([443...443, 8000...8099]), action: .passthrough),
        OutboundRule(to: [try range("10.91.0.0/16")], action: .plaintext),
        OutboundRule(to: [try range("fd00::/8")], action: .deny),
      ])
    #expect(settings.peers == [Peer(address: try range("10.90.0.3"), identity: cache)])
    #expect(outbound.peers.find(try #require(IPAddress("10.90.0.3"))) == .mesh(cache))
  }

  @Test func interceptionIsTaken() throws {
    let interception = try Sample.parse(Sample.text).interception
    #expect(interception.includeInboundPorts.description == "8000-9999")
    #expect(interception.excludeInboundPorts.description == "8022")
    #expect(interception.includeOutboundPorts.description == "1-1000,3306")
    #expect(interception.excludeOutboundPorts.description == "22,8000-8010")
    #expect(interception.includeOutboundCIDRs.map(\.description) == ["10.0.0.0/8"])
    #expect(interception.excludeOutboundCIDRs.map(\.description) == ["10.0.0.0/24", "fd00::1/128"])
  }

  @Test func limitsAreTaken() throws {
    let limits = try Sample.parse(Sample.text).limits
    #expect(limits.maximumConnections == 100)
    #expect(limits.handshakeTimeoutMilliseconds == 2000)
    #expect(limits.connectTimeoutMilliseconds == 3000)
    #expect(limits.halfCloseTimeoutMilliseconds == 4000)
    #expect(limits.drainTimeoutMilliseconds == 0)
    #expect(limits.sniffMemoryMaximumBytes == 262_144)
  }

  @Test(arguments: [
    "\u{feff}" + Sample.least, "---\n" + Sample.least, Sample.least + "...\n",
    "# a comment\n" + Sample.least, Sample.least.replacing("\n", with: "\r\n"),
    Sample.least + "inbound: { ports: {} }\noutbound: { rules: [], peers: [] }\n",
    Sample.least + "inbound: { \"ports\": { \"80\": \"strict\" } }\n",
    Sample.least + "interception: { excludeInboundPorts: [] }\n",
  ])
  func otherWaysToWriteItAreAccepted(text: String) {
    #expect(Sample.complaint(text) == nil)
  }

  @Test func aFileIsReadAndItsPathsResolvedBesideIt() throws {
    let directory = FileManager.default.temporaryDirectory
      .appendingPathComponent("culvert-configuration-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: directory) }
    let file = directory.appendingPathComponent("culvert.yaml")
    try Sample.least.write(to: file, atomically: true, encoding: .utf8)
    #expect(
      try Settings.load(path: file.path).identity
        == .files(
          IdentityFiles(
            certificate: directory.path + "/a", privateKey: directory.path + "/b")))

    try "workload: 1\n".write(to: file, atomically: true, encoding: .utf8)
    #expect(
      throws: ConfigurationError(
        file: file.path, line: 1, column: 11,
        message: "workload: expected a mapping, found \"1\"")
    ) { try Settings.load(path: file.path) }

    try Data(count: Settings.maximumFileBytes + 1).write(to: file)
    #expect(
      throws: ConfigurationError(
        file: file.path, line: 1, column: 1, message: "the file is larger than 1048576 bytes")
    ) { try Settings.load(path: file.path) }
  }

  @Test(arguments: [
    ("/nonexistent/culvert.yaml", "No such file or directory"), ("/tmp", "Is a directory"),
    ("/dev/null", "Invalid argument"),
  ])
  func whatIsNoReadableFileIsSaid(path: String, reason: String) {
    #expect(
      throws: ConfigurationError(file: path, message: "cannot be read: \(reason)")
    ) { try Settings.load(path: path) }
  }
}
