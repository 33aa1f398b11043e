import Foundation
import Testing

@testable import Control
@testable import culvert

@Suite struct `The status text` {
  private func text(_ change: (inout StatusReport) -> Void = { _ in }) -> String {
    var report = StatusReport.sample()
    change(&report)
    return StatusText.text(report)
  }

  @Test func `is an aligned table of what the proxy does`() {
    #expect(
      text() == """
        proxy          culvert-proxy 0.1.0, pid 4711, up 1 d 2 h
        configuration  /etc/culvert/web.yaml, epoch 3
        kTLS           auto; send TLS_AES_128_GCM_SHA256; receive none (recvmsg: Input/output error)
        backend        io_uring, 2 workers
        listeners      outbound 127.0.0.1:15001, inbound [::]:15006
        inbound        permissive, port 8080 disabled, port 10000 strict
        authorization  8 rules, 1 audited
        outbound       auto, 2 rules, 1 peer, 2 pins
        discovery      announce failed (no cgroup v2); probe on; 3 mesh and 4 other addresses probed; in 10.0.0.0/8; 7 changes of a peer's identity
        identity       spiffe://demo.mesh/ns/shop/sa/web
        expires        2026-02-01T12:00:00.000Z, in 23 h 10 min
        source         files, ready; SVID 5, trust 2
        bundle         demo.mesh: 1 authority from pem, 2 revocation lists (1 LATE), confirmed 1 h 6 min ago
        bundle         partner.example: DISTRUSTED from federation (https://partner.example/bundle), sequence 7, not fetched yet, last look failed: timed_out
        open           mutual_tls 4, plaintext 1, undecided 2
        since start    140 accepted; mutual_tls 120, plaintext 7
        handshakes     full 20, resumed 100
        engines        kernel_receive 0, kernel_send 3, openssl 0, user 120
        refused        not_local 1, self_call 3

        """)
  }

  @Test func `says why kTLS is not used`() {
    let text = text {
      $0.kernelTLS.send = []
      $0.kernelTLS.sendReason = "no CONFIG_TLS"
      $0.kernelTLS.receiveReason = "no CONFIG_TLS"
    }
    #expect(text.contains("kTLS           auto, not used: no CONFIG_TLS\n"))
  }

  @Test func `shows trouble`() {
    let text = text {
      $0.lastReloadError = "/etc/culvert/web.yaml:3:5: unknown key inbund"
      $0.draining = true
      $0.droppedLogLines = 1
      $0.connections.refused = [:]
    }
    #expect(text.contains("up 1 d 2 h, DRAINING\n"))
    #expect(
      text.contains(
        "reload failed  epoch 3 stays in force: /etc/culvert/web.yaml:3:5: unknown key inbund\n"))
    #expect(text.contains("refused        none\n"))
    #expect(text.contains("log            1 line dropped\n"))
  }

  @Test(arguments: [
    (86_400, ", in 1 d"), (21_600, ", in 6 h"), (21_599, ", in 5 h 59 min, EXPIRES SOON"),
    (1, ", in 1 s, EXPIRES SOON"), (0, ", EXPIRED 0 s ago"), (-3700, ", EXPIRED 1 h 1 min ago"),
    (Int64.min, ", EXPIRED 106751991167300 d 15 h ago"),
  ])
  func `says loudly that an identity ends soon, or has ended`(left: Int64, words: String) {
    let text = text { $0.identity.expiresInSeconds = left }
    #expect(text.contains("2026-02-01T12:00:00.000Z\(words)\n"), "\(text)")
  }

  @Test func `does without times it cannot read`() {
    let text = text {
      $0.identity.notBefore = "yesterday"
      $0.identity.expiresInSeconds = 1
    }
    #expect(text.contains(", in 1 s\n"))
  }

  @Test func `does not let text from elsewhere steer the terminal`() {
    let text = text { $0.configuration = "/etc/\u{1b}[2J\nfake  line" }
    #expect(text.contains("configuration  /etc/\u{fffd}[2J\u{fffd}fake  line, epoch 3\n"))
  }

  @Test(arguments: [
    (0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "59 min 59 s"), (3600, "1 h"),
    (3605, "1 h"), (90_000, "1 d 1 h"), (-5, "0 s"),
  ])
  func `gives durations in the two units that matter`(seconds: Int64, words: String) {
    #expect(StatusText.duration(seconds) == words)
  }
}

@Suite struct `culvert status` {
  @Test func `shows what the proxy answers`() throws {
    let proxy = try FakeProxy(.answers(try encoded(AdminResponse(status: .sample()))))
    let outcome = try Tool.run("status", "--admin-socket", proxy.path)
    #expect(outcome.status == 0)
    #expect(outcome.output == StatusText.text(.sample()))
    #expect(outcome.error == "")
    _ = proxy.finish()
  }

  @Test func `prints one JSON object, keys sorted, with --json`() throws {
    let proxy = try FakeProxy(.answers(try encoded(AdminResponse(status: .sample()))))
    let outcome = try Tool.run("status", "--json", "--admin-socket", proxy.path)
    #expect(outcome.status == 0)
    #expect(outcome.output.hasPrefix(#"{"authorization":{"audited":1,"rules":8},"backend":"io_"#))
    #expect(outcome.output.last == "\n")
    #expect(outcome.output.count { $0 == "\n" } == 1)
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    #expect(
      Set(object.keys) == [
        "version", "culvert", "pid", "uptimeSeconds", "epoch", "configuration", "backend",
        "workers", "listeners", "inbound", "outbound", "identity", "bundles", "connections",
        "draining", "droppedLogLines", "kernelTLS", "discovery", "authorization",
      ])
    let identity = try #require(object["identity"] as? [String: Any])
    #expect(identity["id"] as? String == "spiffe://demo.mesh/ns/shop/sa/web")
    #expect(identity["expiresInSeconds"] as? Int == 83_400)
    let connections = try #require(object["connections"] as? [String: Any])
    #expect(
      connections["open"] as? [String: Int] == ["mutual_tls": 4, "plaintext": 1, "undecided": 2])
    _ = proxy.finish()
  }

  /// One line on standard error that begins so, nothing on standard output, exit code 1.
  private func expectFailure(_ outcome: Outcome, _ path: String, _ words: String) {
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(outcome.error.hasPrefix("culvert: \(path): "), "\(outcome.error)")
    #expect(outcome.error.contains(words), "\(outcome.error)")
    #expect(outcome.error.count { $0 == "\n" } == 1)
  }

  @Test func `says in one line that nobody listens`() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("admin.sock")
    expectFailure(
      try Tool.run("status", "--admin-socket", path), path, "no culvert-proxy answers here")
  }

  @Test func `says in one line that the socket is stale`() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("admin.sock")
    do { _ = try Listening(path) }
    #expect(FileManager.default.fileExists(atPath: path))
    expectFailure(
      try Tool.run("status", "--admin-socket", path), path, "no culvert-proxy answers here")
  }

  @Test func `says in one line that the answer makes no sense`() throws {
    let proxy = try FakeProxy(.answers("\u{1b}[31mHTTP/1.1 400 Bad Request"))
    expectFailure(
      try Tool.run("status", "--admin-socket", proxy.path), proxy.path,
      "not one of a culvert-proxy")
    _ = proxy.finish()
  }

  @Test func `says in one line that the proxy speaks another version`() throws {
    let proxy = try FakeProxy(.answers(#"{"version":9}"#))
    expectFailure(
      try Tool.run("status", "--json", "--admin-socket", proxy.path), proxy.path, "version 9")
    _ = proxy.finish()
  }

  @Test func `keeps an error from the proxy to one line`() throws {
    let proxy = try FakeProxy(.answers(try encoded(AdminResponse(error: "two\nlines"))))
    expectFailure(try Tool.run("status", "--admin-socket", proxy.path), proxy.path, "two")
    _ = proxy.finish()
  }

  @Test func `gives up after five seconds`() throws {
    let proxy = try FakeProxy(.staysSilent)
    let start = ContinuousClock.now
    expectFailure(
      try Tool.run("status", "--admin-socket", proxy.path), proxy.path, "within 5000 ms")
    #expect(ContinuousClock.now - start >= .seconds(5))
    _ = proxy.finish()
  }

  @Test func `calls wrong usage 64, and explains itself`() throws {
    #expect(try Tool.run("status", "--nonsense").status == 64)
    let help = try Tool.run("status", "--help")
    #expect(help.status == 0)
    #expect(help.output.contains("EXAMPLES"))
    #expect(help.output.contains("/run/culvert/admin.sock"))
  }
}
