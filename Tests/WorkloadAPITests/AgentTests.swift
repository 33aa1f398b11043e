import CLinux
import Foundation
import Identity
import Net
import TLS
import TestSupport
import Testing
import WorkloadAPI

/// `culvert-workload-agent` with our client, which runs as the tests' own user, and with PyPI's
/// `spiffe`.
@Suite(.serialized, .timeLimit(.minutes(2))) struct `The agent` {
  private let place: AgentPlace

  init() throws { place = try AgentPlace() }

  private func ids(_ response: X509SVIDResponse) -> [String] {
    response.svids.map(\.id.description)
  }

  @Test func `gives a process the identities that fit it`() throws {
    try place.write(
      """
      entries:
        - { id: spiffe://demo.mesh/web, selectors: ["unix:uid:\(getuid())"], hint: internal }
        - id: spiffe://demo.mesh/tests
          selectors: ["unix:uid:\(getuid())", "unix:gid:\(getgid())", "unix:path:\(ownProgram)"]
        - { id: spiffe://demo.mesh/other, selectors: ["unix:uid:4711"] }
        - { id: spiffe://demo.mesh/half, selectors: ["unix:uid:\(getuid())", "unix:gid:4711"] }
        - { id: spiffe://demo.mesh/path, selectors: ["unix:path:/bin/other"] }
      """)
    let agent = try place.start()
    let response = try Client(place.endpoint).nextSVIDs()
    #expect(ids(response) == ["spiffe://demo.mesh/web", "spiffe://demo.mesh/tests"])
    #expect(response.svids.map(\.hint) == ["internal", ""])
    #expect(response.svids.allSatisfy { $0.bundle == response.svids[0].bundle })
    #expect(response.svids.allSatisfy { $0.privateKey.count > 100 })
    #expect(response.federatedBundles.isEmpty && response.crls.isEmpty)
    try agent.waitForError(
      containing: "FetchX509SVID pid=\(getpid()) uid=\(getuid()) gid=\(getgid()) program=")
    try agent.waitForError(containing: ": spiffe://demo.mesh/web spiffe://demo.mesh/tests")
  }

  @Test func `gives nobody else anything`() throws {
    try place.write(#"entries: [ { id: spiffe://demo.mesh/x, selectors: ["unix:uid:4711"] } ]"#)
    try place.start()
    for stream in [WorkloadStream.x509SVID, .x509Bundles] {
      let failure = try Client(place.endpoint, stream).nextLost()
      #expect(failure.reason == .permissionDenied && failure.detail == "no identity issued")
    }
  }

  @Test func `gives one of two SVIDs with the same hint`() throws {
    let own = "selectors: [\"unix:uid:\(getuid())\"], hint: same"
    try place.write(
      "entries: [ { id: spiffe://demo.mesh/1, \(own) }, { id: spiffe://demo.mesh/2, \(own) } ]")
    try place.start()
    #expect(ids(try Client(place.endpoint).nextSVIDs()) == ["spiffe://demo.mesh/1"])
  }

  @Test func `renews at half the life, and pushes`() throws {
    try place.write(
      """
      entries:
        - { id: spiffe://demo.mesh/short, lifetimeSeconds: 2, selectors: ["unix:uid:\(getuid())"] }
        - { id: spiffe://demo.mesh/long, selectors: ["unix:uid:\(getuid())"] }
      """)
    try place.start()
    let client = try Client(place.endpoint)
    var last = try client.nextSVIDs().svids
    for _ in 0..<2 {
      let next = try client.nextSVIDs(after: client.events.count).svids
      #expect(next[0].certificates != last[0].certificates)
      #expect(next[0].privateKey.array != last[0].privateKey.array)
      #expect(next[1].certificates == last[1].certificates)
      #expect(next[1].privateKey.array == last[1].privateKey.array)
      last = next
    }
    #expect(client.state == .streaming)
  }

  @Test func `pushes when its files change, and keeps what was good`() throws {
    try place.write(own("spiffe://demo.mesh/one"))
    let agent = try place.start()
    let client = try Client(place.endpoint)
    #expect(ids(try client.nextSVIDs()) == ["spiffe://demo.mesh/one"])
    try place.write("entries: 7")
    try agent.waitForError(containing: "entries not loaded")
    #expect(client.events.count == 1)
    try place.write(own("spiffe://demo.mesh/two"))
    #expect(
      ids(try client.nextSVIDs(after: client.events.count)) == ["spiffe://demo.mesh/two"])
    try place.write("entries: []")
    let failure = try client.nextLost(after: client.events.count)
    #expect(failure.reason == .permissionDenied && failure.withdrawsIdentity)
    try place.write(own("spiffe://demo.mesh/three"))
    #expect(
      ids(try client.nextSVIDs(after: client.events.count)) == ["spiffe://demo.mesh/three"])
  }

  @Test func `tells of other trust domains and of revocation`() throws {
    let other = try AgentPlace("partner.example")
    try place.copy(other.directory.path + "/ca/ca.pem", to: "partner.pem")
    try place.write(
      """
      \(own("spiffe://demo.mesh/web", ", federatesWith: [partner.example]"))
      federatedBundles: [ { trustDomain: partner.example, pem: partner.pem } ]
      """)
    let agent = try place.start()
    let client = try Client(place.endpoint)
    let bundles = try Client(place.endpoint, .x509Bundles)
    let first = try client.nextSVIDs()
    #expect(first.federatedBundles.map(\.trustDomain) == [.partner])
    #expect(first.crls.isEmpty)
    let both = try bundles.nextBundles()
    #expect(both.bundles.map(\.trustDomain) == [.demo, .partner])
    #expect(both.bundles[0].certificates == first.svids[0].bundle)
    #expect(both.bundles[1].certificates == first.federatedBundles[0].certificates)

    let third = try AgentPlace("partner.example")
    try place.copy(third.directory.path + "/ca/ca.pem", to: "partner.pem")
    let second = try client.nextSVIDs(after: client.events.count)
    #expect(second.federatedBundles.count == 1)
    #expect(second.federatedBundles[0].certificates != first.federatedBundles[0].certificates)
    #expect(second.svids[0].certificates == first.svids[0].certificates, "issued once")

    try place.makeRevocationList("demo.crl")
    try place.write(own("spiffe://demo.mesh/web") + "\ncrls: [ca/ca.pem]")
    try agent.waitForError(containing: "ca.pem: holds no revocation list")
    try place.write(own("spiffe://demo.mesh/web") + "\ncrls: [demo.crl, demo.crl.der]")
    let last = try client.nextSVIDs(after: client.events.count)
    #expect(last.federatedBundles.isEmpty && last.crls.count == 2)
    #expect(last.crls[0] == last.crls[1] && last.crls[0].first == 0x30)
  }

  @Test func `serves many at once, whatever one of them does`() throws {
    // More than a window, so that a client that opens none stays in debt.
    try place.makeRevocationList("demo.crl")
    let lists = [String](repeating: "demo.crl", count: 1000).joined(separator: ", ")
    try place.write(own("spiffe://demo.mesh/web") + "\ncrls: [\(lists)]")
    let agent = try place.start()
    let slow = try RawPeer(place.path)
    try slow.send(RawPeer.request)
    try agent.waitForError(containing: "spiffe://demo.mesh/web")
    let garbage = try RawPeer(place.path)
    try garbage.send([UInt8](repeating: 0x47, count: 1000))
    let clients = try (0..<20).map { _ in try Client(place.endpoint) }
    for client in clients { client.advance() }
    for client in clients { #expect(try client.nextSVIDs().crls.count == 1000) }
    try garbage.waitForEnd()
    #expect(agent.isRunning)
  }

  @Test func `gives one user so many places and no more`() throws {
    try place.write(own("spiffe://demo.mesh/web"))
    let agent = try place.start()
    var peers = try (0..<64).map { _ in try RawPeer(place.path) }
    let one = try RawPeer(place.path)
    try one.waitForEnd()
    try agent.waitForError(containing: "refused, its user has 64 connections")
    peers.removeLast()
    try eventually("a free place") {
      let client = try Client(place.endpoint)
      return (try? client.nextSVIDs()) != nil
    }
    _ = peers
  }

  @Test func `goes in order when it is told to`() throws {
    try place.write(own("spiffe://demo.mesh/web"))
    let agent = try place.start()
    let client = try Client(place.endpoint)
    _ = try client.nextSVIDs()
    agent.send(signal: SIGTERM)
    #expect(try agent.wait().exit == .code(0))
    #expect(unsafe access(place.path, F_OK) != 0, "the socket's file is gone")
    #expect(try client.nextLost().reason == .streamEnded)
  }

  @Test(arguments: [("0666", UInt32(0o666)), ("0600", 0o600), ("660", 0o660)])
  func `makes a socket for whom it says`(mode: String, expected: UInt32) throws {
    try place.write("entries: []")
    try place.start("--mode", mode, through: ["sh", "-c", "umask 077; exec \"$@\"", "sh"])
    var status = stat()
    try #require(unsafe stat(place.path, &status) == 0)
    #expect(status.st_mode & 0o777 == expected)
  }

  @Test func `says why it does not start`() throws {
    try place.write("entries: []")
    func failure(_ arguments: [String]) throws -> String {
      let outcome = try Program.run([Machine.program("culvert-workload-agent")] + arguments)
      #expect(!outcome.succeeded)
      return outcome.errors
    }
    let ca = ["--ca", place.directory.path + "/ca"]
    let entries = ["--entries", place.entries]
    for (arguments, words) in [
      (ca + entries + ["--endpoint", "tcp://127.0.0.1:80"], "only unix:///PATH"),
      (ca + entries + ["--endpoint", "/run/a.sock"], "expected unix:///PATH"),
      (ca + entries + ["--endpoint", place.endpoint, "--mode", "0888"], "octal"),
      (["--ca", "/nowhere"] + entries + ["--endpoint", place.endpoint], "/nowhere/ca.key"),
      (ca + ["--entries", "/nowhere", "--endpoint", place.endpoint], "cannot be read"),
    ] {
      #expect(try failure(arguments).contains(words), "\(words)")
    }
    try place.start()
    #expect(
      try failure(ca + entries + ["--endpoint", place.endpoint]).contains("answers here already"))
  }

  // MARK: PyPI's client

  @Test(.needsGRPC) func `is understood by another client`() throws {
    let other = try AgentPlace("partner.example")
    try place.copy(other.directory.path + "/ca/ca.pem", to: "partner.pem")
    try place.write(
      """
      entries:
        - id: spiffe://demo.mesh/ns/shop/sa/web
          selectors: ["unix:uid:\(getuid())"]
          hint: internal
          lifetimeSeconds: 600
          federatesWith: [partner.example]
        - { id: spiffe://demo.mesh/second, selectors: ["unix:uid:\(getuid())"] }
      federatedBundles: [ { trustDomain: partner.example, pem: partner.pem } ]
      """)
    try place.start()
    #expect(
      try place.ask("context", "demo.mesh", "partner.example", "nowhere.example") == [
        "svid spiffe://demo.mesh/ns/shop/sa/web 660",
        "svid spiffe://demo.mesh/second 3660",
        "bundle demo.mesh 1", "bundle partner.example 1", "bundle nowhere.example 0",
      ])
    #expect(
      try place.ask("bundles", "demo.mesh", "partner.example") == [
        "bundle demo.mesh 1", "bundle partner.example 1",
      ])
  }

  @Test(.needsGRPC) func `refuses with the statuses SPIFFE names`() throws {
    try place.write(own("spiffe://demo.mesh/web"))
    try place.start()
    let method = "/SpiffeWorkloadAPI/FetchX509SVID"
    let header = "workload.spiffe.io=true"
    #expect(try place.ask("call", method, header)[0].hasPrefix("message "))
    let missing = "error INVALID_ARGUMENT workload.spiffe.io: true is missing"
    #expect(try place.ask("call", method) == [missing])
    #expect(try place.ask("call", method, "workload.spiffe.io=True") == [missing])
    #expect(try place.ask("call", method, header, header) == [missing])
    for other in ["/SpiffeWorkloadAPI/FetchJWTSVID", "/SpiffeWorkloadAPI/", "/x/FetchX509SVID"] {
      #expect(
        try place.ask("call", other, header) == [
          "error UNIMPLEMENTED only X.509-SVIDs and X.509 bundles"
        ])
    }
  }

  @Test(.needsGRPC, .enabled(if: getuid() == 0, "needs root, to become another user"))
  func `tells users apart`() throws {
    try place.write(
      """
      entries:
        - { id: spiffe://demo.mesh/web, selectors: ["unix:uid:4711", "unix:gid:4711"] }
        - { id: spiffe://demo.mesh/db, selectors: ["unix:uid:4712"] }
      """)
    try place.start()
    #expect(try place.ask("4711", "context") == ["svid spiffe://demo.mesh/web 3660"])
    #expect(try place.ask("4712", "context") == ["svid spiffe://demo.mesh/db 3660"])
    let call = ["call", "/SpiffeWorkloadAPI/FetchX509SVID", "workload.spiffe.io=true"]
    let denied = ["error PERMISSION_DENIED no identity issued"]
    #expect(try place.ask(["4713"] + call) == denied)
    #expect(try place.ask(call) == denied, "root is nobody in particular")
  }

  private func own(_ id: String, _ more: String = "") -> String {
    "entries: [ { id: \(id), selectors: [\"unix:uid:\(getuid())\"]\(more) } ]"
  }

  private var ownProgram: String {
    (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
  }
}

/// A CA, an entries file and a socket.
final class AgentPlace {
  let directory: TemporaryDirectory
  private let trustDomain: String
  private var running: Program?

  init(_ trustDomain: String = "demo.mesh") throws {
    directory = try TemporaryDirectory()
    self.trustDomain = trustDomain
    _ = try CertificateAuthority.create(
      directory: directory.path + "/ca", trustDomain: TrustDomain(trustDomain))
  }

  var path: String { directory.path + "/agent.sock" }
  var endpoint: String { "unix://\(path)" }
  var entries: String { directory.path + "/entries.yaml" }

  func write(_ text: String) throws { try directory.write(text, to: "entries.yaml") }

  func copy(_ file: String, to name: String) throws {
    try directory.write(String(decoding: contents(ofFile: file), as: UTF8.self), to: name)
  }

  /// The agent runs as long as this object lives.
  @discardableResult
  func start(_ arguments: String..., through wrapper: [String] = []) throws -> Program {
    let agent = try Program(
      wrapper + [
        Machine.program("culvert-workload-agent"), "--ca", directory.path + "/ca", "--entries",
        entries, "--endpoint", endpoint,
      ] + arguments)
    running = agent
    try agent.waitForError(containing: "listening at \(endpoint): \(trustDomain)")
    return agent
  }

  /// What PyPI's client says.
  func ask(_ arguments: String...) throws -> [String] { try ask(arguments) }

  func ask(_ arguments: [String]) throws -> [String] {
    try Program.check([Python.path, Python.script("client"), endpoint] + arguments)
      .split(separator: "\n").map(String.init)
  }

  /// An empty list, signed by the CA: `name` in PEM, `name.der` in DER.
  func makeRevocationList(_ name: String) throws {
    let database = try directory.write("", to: "index.txt")
    let number = try directory.write("01", to: "number")
    let configuration = try directory.write(
      """
      [ca]
      default_ca = it
      [it]
      database = \(database)
      crlnumber = \(number)
      default_md = sha256
      default_crl_days = 1
      """, to: "openssl.cnf")
    let ca = directory.path + "/ca"
    try Program.check([
      "openssl", "ca", "-gencrl", "-config", configuration, "-cert", "\(ca)/ca.pem", "-keyfile",
      "\(ca)/ca.key", "-out", "\(directory.path)/\(name)",
    ])
    try Program.check([
      "openssl", "crl", "-in", "\(directory.path)/\(name)", "-outform", "DER", "-out",
      "\(directory.path)/\(name).der",
    ])
  }
}

/// A connection to the agent that does what no client of gRPC would.
final class RawPeer {
  private let number: Int32

  init(_ path: String) throws {
    let descriptor = try UnixSocket.connect(path, timeoutMilliseconds: 5000)
    number = descriptor.release()
  }

  deinit { _ = close(number) }

  /// A call for SVIDs.
  static let request =
    Array("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".utf8) + Frame.settings
    + Frame.headers([
      (":method", "POST"), (":scheme", "http"), (":path", WorkloadStream.x509SVID.path),
      (":authority", "localhost"), ("te", "trailers"), ("content-type", "application/grpc"),
      ("workload.spiffe.io", "true"),
    ]) + Frame.data([0, 0, 0, 0, 0], end: true)

  func send(_ bytes: [UInt8]) throws {
    let count = unsafe CLinux.send(number, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    try #require(count == bytes.count)
  }

  /// Reads until the agent has closed the connection.
  func waitForEnd() throws {
    try UnixSocket.setReceiveTimeout(number, milliseconds: 20_000)
    var buffer = [UInt8](repeating: 0, count: 65_536)
    var count = 0
    repeat { count = unsafe recv(number, &buffer, buffer.count, 0) } while count > 0
    #expect(count == 0 || Errno.current == .connectionReset)
  }
}

extension UnixSocket {
  fileprivate static func setReceiveTimeout(_ number: Int32, milliseconds: Int) throws {
    let descriptor = Descriptor(owning: try Errno.check { dup(number) })
    try setTimeout(descriptor, SO_RCVTIMEO, milliseconds: milliseconds)
  }
}
