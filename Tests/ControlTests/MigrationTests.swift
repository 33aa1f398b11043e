import Foundation
import Net
import Policy
import Telemetry
import Testing

@testable import Control
@testable import culvert

@Suite struct `The migration report` {
  private let now: Int64 = 1_800_000_000_000

  /// Each reason at a port of its own, one connection each, ended ten seconds ago.
  private func sightings(
    _ seen: [(Direction, RelayReason, String, UInt16)]
  ) throws -> Sightings {
    let sightings = Sightings()
    for (direction, reason, address, port) in seen {
      let key = Sightings.Key(
        direction: direction, reason: reason, address: try #require(IPAddress(address)), port: port)
      #expect(sightings.began(key, name: nil, nowMilliseconds: now - 20_000))
      sightings.ended(key, nowMilliseconds: now - 10_000)
    }
    return sightings
  }

  private func report(
    _ sightings: Sightings, inbound: InboundPolicy = InboundPolicy(),
    outbound: OutboundPolicy = OutboundPolicy()
  ) -> MigrationReport {
    MigrationReport(
      sightings, inbound: inbound, outbound: outbound, uptimeSeconds: 90, nowMilliseconds: now)
  }

  @Test func `says whom strict would refuse inbound`() throws {
    let near = "10.90.0.9"
    let seen = try sightings([
      (.inbound, .clientPlaintext, near, 1), (.inbound, .clientTLS, near, 2),
      (.inbound, .serverFirst, near, 3), (.inbound, .declaredProbe, near, 4),
      (.inbound, .clientPlaintext, near, 5), (.inbound, .clientPlaintext, near, 6),
    ])
    let probe = ProbeDeclaration(
      sources: [try #require(CIDR("10.90.0.0/24"))], ports: PortSet([4...4]))
    let policy = InboundPolicy(ports: [5: .disabled, 6: .permissive], probes: [probe])
    let entries = report(seen, inbound: policy).entries
    #expect(entries.map(\.port) == [1, 2, 3, 4, 5, 6])
    #expect(entries.map(\.breaks) == [true, true, true, false, false, true])
    #expect(entries.allSatisfy { $0.direction == "inbound" && $0.connections == 1 && $0.open == 0 })
    #expect(entries.allSatisfy { $0.secondsAgo == 10 && $0.address == near })
    #expect(entries[0].lastSeen == Timestamp.text(unixMilliseconds: now - 10_000))
    let strict = InboundPolicy(mode: .strict, ports: policy.ports, probes: policy.probes)
    #expect(report(seen, inbound: strict).entries.map(\.breaks) == entries.map(\.breaks))
  }

  @Test func `says whom strict would refuse outbound`() throws {
    let seen = try sightings([
      (.outbound, .notAnnounced, "10.90.0.2", 1), (.outbound, .rulePassthrough, "10.90.0.2", 2),
      (.outbound, .rulePlaintext, "10.90.0.2", 3), (.outbound, .peerNotMesh, "10.90.0.3", 4),
      (.outbound, .noMeshPort, "10.90.0.2", 5), (.outbound, .notKnownAsMesh, "203.0.113.1", 6),
    ])
    let peers = [Peer(address: try #require(CIDR("10.90.0.3")), kind: .notMesh)]
    let rules = [(OutboundAction.passthrough, 2), (.plaintext, 3)].map { action, port in
      OutboundRule(to: [.allV4], ports: PortSet([port...port]), action: action)
    }
    let policy = OutboundPolicy(rules: rules, peers: peers)
    #expect(
      report(seen, outbound: policy).entries.map(\.breaks) == [
        true, false, false, true, true, true,
      ])
    // The rules that let them pass are gone.
    #expect(report(seen, outbound: OutboundPolicy(peers: peers)).entries.allSatisfy { $0.breaks })
    let disabled = OutboundPolicy(mode: .disabled)
    #expect(report(seen, outbound: disabled).entries.allSatisfy { !$0.breaks })
    // A rule made since lets it pass.
    let rule = OutboundRule(to: [.allV4], action: .plaintext)
    #expect(
      report(seen, outbound: OutboundPolicy(rules: [rule])).entries.allSatisfy { !$0.breaks })
  }

  @Test func `counts what is open, what has no entry, and the application's TLS`() throws {
    let sightings = Sightings()
    let near = try #require(IPAddress("10.90.0.9"))
    func key(_ port: Int) -> Sightings.Key {
      Sightings.Key(
        direction: .inbound, reason: .clientTLS, address: near, port: UInt16(port))
    }
    let name = Sightings.Name(serverName: "app.example", alpn: "h2")
    for port in 1...Sightings.maximumEntries {
      #expect(sightings.began(key(port), name: name, nowMilliseconds: now))
    }
    #expect(!sightings.began(key(5000), name: nil, nowMilliseconds: now))
    #expect(sightings.began(key(1), name: nil, nowMilliseconds: now))
    let report = report(sightings)
    #expect(report.entries.count == Sightings.maximumEntries && report.withoutEntry == 1)
    #expect(report.entries[0].connections == 2 && report.entries[0].open == 2)
    #expect(report.applicationTLS.map(\.sni) == ["app.example"])
    #expect(report.applicationTLS.first?.connections == UInt64(Sightings.maximumEntries))
    #expect(report.somethingBreaks)
    #expect(MigrateText.text(report, all: false).contains("\n1 more without mesh mTLS"))
  }

  @Test func `lets go of the one seen longest ago, and counts it`() throws {
    let sightings = Sightings()
    let near = try #require(IPAddress("10.90.0.9"))
    for port in 1...UInt16(Sightings.maximumEntries) + 1 {
      let key = Sightings.Key(
        direction: .inbound, reason: .clientPlaintext, address: near, port: port)
      #expect(sightings.began(key, name: nil, nowMilliseconds: now - 90_000 + Int64(port)))
      if port != 1 { sightings.ended(key, nowMilliseconds: now - 90_000 + Int64(port)) }
    }
    var report = report(sightings)
    // The first is open.
    #expect(report.entries.contains { $0.port == 1 } && !report.entries.contains { $0.port == 2 })
    #expect(report.withoutEntry == 1 && report.withoutEntrySecondsAgo == 89)
    report.keepWhatWasSeen(inSeconds: 60)
    #expect(report.withoutEntry == 0 && report.entries.map(\.port) == [1])
  }

  @Test func `is a table of what breaks, or of everything`() throws {
    let seen = try sightings([
      (.inbound, .clientPlaintext, "10.90.0.9", 80), (.inbound, .clientPlaintext, "fd90::9", 5432),
      (.outbound, .rulePlaintext, "10.90.0.2", 3306),
    ])
    let rule = OutboundRule(to: [.allV4], action: .plaintext)
    let report = report(seen, outbound: OutboundPolicy(rules: [rule]))
    #expect(
      MigrateText.text(report, all: false) == """
        inbound permissive, outbound auto; seen since the proxy started, 1 min 30 s ago

        inbound
          PORT  FROM       WHAT              CONNECTIONS  OPEN  LAST SEEN  STRICT
          80    10.90.0.9  client_plaintext  1            0     10 s ago   refused
          5432  fd90::9    client_plaintext  1            0     10 s ago   refused

        strict would refuse 2 peers on 2 ports

        """)
    let all = MigrateText.text(report, all: true)
    #expect(
      all.contains("  3306  10.90.0.2  rule_plaintext  1            0     10 s ago   goes on\n"))
    #expect(
      MigrateText.text(self.report(Sightings()), all: true)
        == "inbound permissive, outbound auto; seen since the proxy started, 1 min 30 s ago\n\n"
        + "nothing seen would break under strict\n")
  }
}

@Suite struct `culvert migrate` {
  private func run(_ answer: AdminResponse, _ options: String...) throws -> (Outcome, String) {
    let proxy = try FakeProxy(.answers(encoded(answer)))
    let outcome = try Tool.run(["migrate", "--admin-socket", proxy.path] + options)
    return (outcome, proxy.finish())
  }

  private func answer() throws -> AdminResponse {
    let sightings = Sightings()
    let key = Sightings.Key(
      direction: .inbound, reason: .clientPlaintext, address: try #require(IPAddress("10.0.0.1")),
      port: 80)
    _ = sightings.began(key, name: nil, nowMilliseconds: 1_800_000_000_000)
    sightings.ended(key, nowMilliseconds: 1_800_000_000_000)
    return AdminResponse(
      migration: MigrationReport(
        sightings, inbound: InboundPolicy(), outbound: OutboundPolicy(), uptimeSeconds: 90,
        nowMilliseconds: 1_800_000_060_000))
  }

  @Test func `answers by its exit code`() throws {
    let (breaks, request) = try run(answer())
    #expect(breaks.status == 2 && breaks.output.contains("strict would refuse 1 peer on 1 port"))
    #expect(request.contains("migration"))
    #expect(try run(answer(), "--since", "60").0.status == 2)
    let (recent, _) = try run(answer(), "--since", "59")
    #expect(recent.status == 0 && recent.output.contains("nothing seen would break"))
    let (json, _) = try run(answer(), "--json")
    let report = try JSONDecoder().decode(MigrationReport.self, from: Data(json.output.utf8))
    #expect(json.status == 2 && report.entries.first?.breaks == true)
    let (enforced, asked) = try run(AdminResponse(), "--enforce")
    #expect(enforced.status == 0 && asked.contains("enforce"))
    #expect(try Tool.run("migrate", "--admin-socket", "/nowhere/admin.sock").status == 1)
  }

  @Test(arguments: [
    ["--since", "-1"], ["--since", "a"], ["--enforce", "--all"], ["--enforce", "--json"],
    ["--enforce", "--since", "1"], ["everything"],
  ])
  func `refuses wrong usage`(options: [String]) throws {
    let outcome = try Tool.run(["migrate"] + options)
    #expect(outcome.status == 64 && outcome.output.isEmpty)
  }

  @Test func `shows examples and exit codes in its help`() throws {
    let help = try Tool.run("migrate", "--help")
    #expect(help.status == 0 && help.output.contains("EXAMPLES"))
    #expect(help.output.replacing("\n", with: " ").contains("64 wrong usage"))
  }
}
