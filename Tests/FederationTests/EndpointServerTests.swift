import CLinux
import Federation
import Foundation
import Identity
import Net
import TLS
import TestSupport
import Testing

/// What a test tells the thread that serves.
private struct Orders: Sendable {
  var update: (document: [UInt8], identity: IdentityMaterial)?
  var stops = false
  /// Added to the clock, so that a test need not wait for a deadline.
  var aheadMilliseconds: Int64 = 0
  /// How often it has served, for a test to know that an order was followed.
  var rounds = 0
  var hasClients = false
}

/// A bundle endpoint server on a thread of its own, driven by poll(2) as the control thread does.
private final class ServingThread: Sendable {
  let port: UInt16
  private let orders = Box(Orders())

  init(_ document: [UInt8], _ identity: IdentityMaterial, mark: UInt32 = 0) throws {
    signal(SIGPIPE, SIG_IGN)
    let started = Box<Result<UInt16, any Error>?>(nil)
    let orders = orders
    Thread.detachNewThread {
      do {
        let context = try HTTPSServerContext(identity)
        var server = try BundleEndpointServer(
          on: SocketAddress(.loopbackV4, port: 0), mark: mark, document: document,
          context: context)
        started.update { $0 = .success(server.address.port) }
        Self.serve(&server, orders)
      } catch {
        started.update { $0 = .failure(error) }
      }
    }
    guard let result = started.wait(until: { $0 }) else { throw Trouble("no server") }
    port = try result.get()
  }

  deinit { orders.update { $0.stops = true } }

  private static func serve(_ server: inout BundleEndpointServer, _ orders: Box<Orders>) {
    while !orders.value.stops {
      var polled = server.interests
      _ = unsafe poll(&polled, nfds_t(polled.count), 10)
      if let update = orders.update({ $0.update.take() }),
        let context = try? HTTPSServerContext(update.identity)
      {
        server.update(document: update.document, context: context)
      }
      var time = timespec()
      unsafe clock_gettime(CLOCK_MONOTONIC, &time)
      let now = Int64(time.tv_sec) * 1000 + Int64(time.tv_nsec) / 1_000_000
      server.serve(now: now + orders.value.aheadMilliseconds)
      let hasClients = server.hasClients
      orders.update {
        $0.rounds += 1
        $0.hasClients = hasClients
      }
    }
  }

  /// Waits until it has served once more, whole.
  func waitForRound() throws {
    let rounds = orders.value.rounds
    guard orders.wait(until: { $0.rounds >= rounds + 2 ? true : nil }) != nil else {
      throw Trouble("the server does not serve")
    }
  }

  func update(_ document: [UInt8], _ identity: IdentityMaterial) throws {
    orders.update { $0.update = (document, identity) }
    try waitForRound()
  }

  func goAhead(milliseconds: Int64) { orders.update { $0.aheadMilliseconds += milliseconds } }

  func waitUntilItHasClients(_ hasClients: Bool) throws {
    guard orders.wait(until: { $0.hasClients == hasClients ? true : nil }) != nil else {
      throw Trouble("hasClients is \(!hasClients)")
    }
  }

  func url(_ path: String) throws -> HTTPSURL { try HTTPSURL("https://127.0.0.1:\(port)\(path)") }
}

/// Serving a bundle (SPIFFE Federation §5.2.1.3, §5.2.2.3), with curl and openssl as clients.
@Suite(.timeLimit(.minutes(2))) struct EndpointServerTests {
  private static let leaf = Result {
    try Identities.partner.issue(
      LeafRequest(Identities.partnerID).with { $0.dnsNames = ["localhost"] })
  }

  private func identity(_ credential: Credential? = nil) throws -> IdentityMaterial {
    let credential = try credential ?? Self.leaf.get()
    return try IdentityMaterial.load(
      certificate: credential.certificate, privateKey: credential.privateKey,
      bundles: [(try TrustDomain("partner.example"), Identities.partner.bundle)])
  }

  private func document(sequence: UInt64) throws -> [UInt8] {
    try trustBundle(Identities.partner).jwks(sequence: sequence, refreshHintSeconds: 60)
  }

  private func server(sequence: UInt64 = 1) throws -> ServingThread {
    try ServingThread(document(sequence: sequence), identity())
  }

  private func fetch(_ server: ServingThread, _ path: String = "/") throws -> SPIFFEBundle {
    try BundleRequest.workload(
      server.url(path), Identities.partnerID, trustBundle(Identities.partner)
    ).fetch()
  }

  private func curl(_ server: ServingThread, _ arguments: String...) throws -> Program.Outcome {
    try Program.run(
      ["curl", "--silent", "--show-error", "--cacert", Identities.partner.bundle] + arguments
        + ["https://localhost:\(server.port)/any/path?x"],
      environment: ["no_proxy": "*"])
  }

  // 23. No client authentication, UTF-8, application/json.
  @Test func `23: anyone is served`() throws {
    let server = try server()
    let outcome = try curl(server, "--include")
    #expect(outcome.succeeded, "\(outcome.errors)")
    let parts = outcome.output.components(separatedBy: "\r\n\r\n")
    let document = try String(decoding: document(sequence: 1), as: UTF8.self)
    #expect(parts.count == 2)
    #expect(parts.last == document)
    let fields = parts[0].components(separatedBy: "\r\n")
    #expect(
      fields == [
        "HTTP/1.1 200 OK", "Content-Type: application/json",
        "Content-Length: \(document.utf8.count)", "Connection: close",
      ])
  }

  @Test func noCertificateIsAskedFor() throws {
    let server = try server()
    for version in ["-tls1_2", "-tls1_3"] {
      let outcome = try Program.run(
        [
          "openssl", "s_client", "-connect", "127.0.0.1:\(server.port)", version, "-CAfile",
          Identities.partner.bundle, "-verify_return_error", "-ign_eof",
        ], input: "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
      #expect(outcome.output.contains("Verify return code: 0 (ok)"))
      #expect(outcome.output.contains("No client certificate CA names sent"))
      #expect(outcome.output.contains("HTTP/1.1 200 OK"))
      #expect(outcome.output.contains(#"{"keys":["#))
    }
  }

  // 23. The newest bundle, and the newest SVID.
  @Test func `23: the newest bundle is served`() throws {
    let server = try server(sequence: 1)
    #expect(try fetch(server).sequence == 1)
    let other = try Identities.partner.issue(LeafRequest(Identities.partnerID + "-2"))
    try server.update(document(sequence: 2), identity(other))
    let request = try BundleRequest.workload(
      server.url("/"), Identities.partnerID + "-2", trustBundle(Identities.partner))
    #expect(try request.fetch().sequence == 2)
    #expect(throws: BundleFetchError.self) { try fetch(server) }
  }

  @Test func aClientThatIsConnectedGetsTheNewestBundleToo() throws {
    let server = try server(sequence: 1)
    let client = try Program([
      "openssl", "s_client", "-connect", "127.0.0.1:\(server.port)", "-ign_eof", "-quiet",
      "-CAfile", Identities.partner.bundle, "-brief",
    ])
    try client.waitForError(containing: "CONNECTION ESTABLISHED")
    try server.waitForRound()
    try server.update(document(sequence: 2), identity())
    client.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    #expect(client.output.waitForText(containing: #""spiffe_sequence":2"#))
  }

  @Test func theDocumentIsTheOneThatOthersRead() throws {
    let server = try server(sequence: 3)
    let bundle = try fetch(server)
    #expect(bundle == (try SPIFFEBundle(jwks: document(sequence: 3))))
    let pem = try String(contentsOfFile: Identities.partner.bundle, encoding: .utf8)
    let base64 = pem.split(separator: "\n").filter { !$0.hasPrefix("-") }.joined()
    #expect(bundle.x509Authorities.map(Base64.encode) == [base64])
  }

  @Test func headHasNoBodyAndOtherMethodsAreNotAllowed() throws {
    let server = try server()
    let head = try curl(server, "--head")
    #expect(head.output.hasPrefix("HTTP/1.1 200 OK\r\n"))
    #expect(head.output.hasSuffix("\r\n\r\n"))
    #expect(try head.output.contains("Content-Length: \(document(sequence: 1).count)\r\n"))
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"] {
      let outcome = try curl(server, "--include", "--request", method, "--data", "a=b")
      #expect(outcome.output.hasPrefix("HTTP/1.1 405 "), "\(method): \(outcome)")
      #expect(outcome.output.contains("\r\nAllow: GET, HEAD\r\n"))
    }
    #expect(try curl(server).succeeded)
  }

  @Test func anOldTLSVersionIsRefused() throws {
    let server = try server()
    let outcome = try Program.run([
      "openssl", "s_client", "-connect", "127.0.0.1:\(server.port)", "-tls1_1", "-cipher",
      "DEFAULT@SECLEVEL=0",
    ])
    #expect(!outcome.succeeded)
    #expect(try curl(server).succeeded)
  }

  // MARK: Hostile clients

  @Test func aLargeDocumentIsServedWhole() throws {
    let padding = [UInt8](repeating: 0x20, count: 3 * 1024 * 1024)
    let server = try ServingThread(document(sequence: 1) + padding, identity())
    #expect(try fetch(server).sequence == 1)
    let curl = try curl(server, "--output", "/dev/null", "--write-out", "%{size_download}")
    #expect(try Int(curl.output) == document(sequence: 1).count + padding.count)
  }

  @Test(arguments: ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/1.1\r\nA\r\n\r\n"])
  func whatIsNoRequestIsRefused(text: String) throws {
    let server = try server()
    let outcome = try Program.run(
      ["openssl", "s_client", "-connect", "127.0.0.1:\(server.port)", "-quiet", "-ign_eof"],
      input: text)
    #expect(outcome.output.hasPrefix("HTTP/1.1 400 "))
    #expect(try fetch(server).sequence == 1)
  }

  @Test func aRequestHasABound() throws {
    let server = try server()
    let limit = BundleEndpointServer.maximumRequestBytes
    let fine = try curl(server, "--header", "A: " + String(repeating: "a", count: limit / 2))
    #expect(fine.succeeded)
    let large = try curl(
      server, "--include", "--header", "A: " + String(repeating: "a", count: 2 * limit))
    #expect(large.output.hasPrefix("HTTP/1.1 400 "))
  }

  @Test func aClientHasOneDeadlineForEverything() throws {
    let server = try server()
    let silent = try Program([
      "python3", "-c",
      """
      import socket
      s = socket.create_connection(("127.0.0.1", \(server.port)))
      print("connected", flush=True)
      print("closed", s.recv(1), flush=True)
      """,
    ])
    try silent.waitForOutput(containing: "connected")
    try server.waitUntilItHasClients(true)
    // Others do not suffer.
    #expect(try fetch(server).sequence == 1)
    server.goAhead(milliseconds: BundleEndpointServer.clientTimeoutMilliseconds)
    try silent.waitForOutput(containing: "closed b''")
    try server.waitUntilItHasClients(false)
    #expect(try fetch(server).sequence == 1)
  }

  @Test func clientsBeyondTheBoundWait() throws {
    let server = try server()
    let crowd = try Program([
      "python3", "-c",
      """
      import socket, sys
      address = ("127.0.0.1", \(server.port))
      crowd = [socket.create_connection(address) for _ in range(\(BundleEndpointServer.maximumClients))]
      print("connected", flush=True)
      sys.stdin.read()
      """,
    ])
    try crowd.waitForOutput(containing: "connected")
    try server.waitForRound()
    let url = try server.url("/")
    let waiting = BundleRequest(
      url: url, profile: .httpsSPIFFE(endpointID: try SPIFFEID(Identities.partnerID)),
      endpointBundle: try trustBundle(Identities.partner), mark: 0, timeoutMilliseconds: 300)
    #expect(waiting.refusal?.reason == .timedOut)
    crowd.kill()
    #expect(try fetch(server).sequence == 1)
  }

  @Test(.enabled(if: geteuid() == 0, "SO_MARK needs CAP_NET_ADMIN"))
  func theListenerIsMarked() throws {
    let server = try ServingThread(document(sequence: 1), identity(), mark: Mark.proxy)
    let sockets = try Program.check([
      "ss", "--tcp", "--listening", "--numeric", "--extended", "--no-header",
      "sport = :\(server.port)",
    ])
    #expect(sockets.contains("fwmark:0xc17"), "\(sockets)")
    #expect(try fetch(server).sequence == 1)
  }
}
