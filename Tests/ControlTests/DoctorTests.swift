import CLinux
import Control
import DataPlane
import Foundation
import Net
import Netfilter
import TLS
import Testing

@testable import culvert

@Suite struct `What doctor concludes` {
  @Test(arguments: [
    ("6.1.0-28-amd64", Check.Verdict.found), ("6.18.44", .found), ("10.0-rc1", .found),
    ("6.0.19", .limited), ("5.15.0-91-generic", .limited), ("six.one", .limited), ("", .limited),
  ])
  func `of the kernel's release`(release: String, verdict: Check.Verdict) {
    let check = KernelChecks.version(release: release)
    #expect(check.verdict == verdict)
    #expect(
      check.consequence.contains("the other lines") == (KernelVersion(release: release) == nil))
  }

  private func ioUring(
    _ code: Int32, disabled: Int? = nil, isFiltered: Bool = false
  ) -> Check {
    KernelChecks.ioUring(
      refusal: Errno(code), disabled: disabled, isFiltered: isFiltered,
      kernel: KernelVersion(major: 5, minor: 15))
  }

  @Test func `of a ring that was made`() {
    let check = KernelChecks.ioUring(
      refusal: nil, disabled: 0, isFiltered: true, kernel: nil)
    #expect(check.verdict == .found)
  }

  @Test func `of io_uring switched off for everybody`() {
    let check = ioUring(EPERM, disabled: 2, isFiltered: true)
    #expect(check.verdict == .missing)
    #expect(check.seen.contains("kernel.io_uring_disabled is 2"))
    #expect(check.consequence.contains("set the sysctl kernel.io_uring_disabled to 0"))
    #expect(check.consequence.contains("epoll"))
    #expect(!check.consequence.contains("seccomp"))
    #expect(!check.isEssential, "epoll takes its place")
  }

  @Test func `of io_uring switched off for the unprivileged`() {
    let check = ioUring(EPERM, disabled: 1)
    #expect(check.seen.contains("kernel.io_uring_disabled is 1"))
    #expect(check.consequence.contains("kernel.io_uring_group"))
    let both = ioUring(EPERM, disabled: 1, isFiltered: true)
    #expect(both.consequence.contains("kernel.io_uring_disabled to 0"))
    #expect(both.consequence.contains("seccomp"))
  }

  @Test func `of a seccomp filter`() {
    for disabled in [0, nil] {
      let check = ioUring(EPERM, disabled: disabled, isFiltered: true)
      #expect(check.seen.contains("seccomp filter forbids"))
      #expect(
        check.consequence.contains("io_uring_setup, io_uring_enter and io_uring_register"))
      #expect(!check.consequence.contains("sysctl"))
    }
    #expect(ioUring(ENOSYS, isFiltered: true).seen.contains("seccomp filter hides it"))
  }

  @Test func `of a security module, of a kernel without io_uring, and of one too old`() {
    #expect(ioUring(EPERM, disabled: 0).seen.contains("security module"))
    #expect(ioUring(EACCES).seen.contains("security module"))
    #expect(ioUring(ENOSYS).seen.contains("CONFIG_IO_URING"))
    #expect(ioUring(EINVAL).seen.contains("kernel 5.15 lacks a feature of 6.1"))
    #expect(ioUring(EINVAL).consequence.contains("Linux 6.1 or newer"))
    #expect(ioUring(ENOMEM).consequence.contains("memory limit"))
    #expect(ioUring(EMFILE).consequence.contains("RLIMIT_NOFILE"))
    #expect(ioUring(EIO).seen.contains("Input/output error"))
  }

  @Test func `of kTLS`() {
    let check = KernelTLSChecks.kernelTLS(.unused(KernelSelfTest.attachReason(.noEntry)))
    #expect(check.verdict == .missing)
    #expect(check.seen.contains("modprobe tls"))
    #expect(!check.isEssential)
    #expect(!KernelSelfTest.attachReason(.notPermitted).contains("modprobe"))

    var verdict = KernelVerdict()
    verdict.send = Set(CipherSuite.allCases)
    verdict.receive = [.aes128GCM]
    verdict.receiveReason = "TLS_CHACHA20_POLY1305_SHA256: other bytes than were sent, after 5"
    #expect(KernelTLSChecks.kernelTLS(verdict).verdict == .limited)
    #expect(KernelTLSChecks.kernelTLS(verdict).seen.contains("other bytes than were sent"))
    // Without key updates only the suite whose keys do not wear out is sent by the kernel.
    #expect(KernelTLSChecks.kernelTLS(verdict).seen.hasPrefix("sends TLS_CHACHA20"))
    verdict.receive = verdict.send
    verdict.receiveReason = nil
    verdict.canRekey = true
    #expect(KernelTLSChecks.kernelTLS(verdict).verdict == .found)
  }

  @Test func `of announcing`() {
    #expect(AnnouncementChecks.announcing(nil).verdict == .found)
    let check = AnnouncementChecks.announcing("no cgroup v2")
    #expect(check.verdict == .missing && check.seen == "no cgroup v2" && !check.isEssential)
  }

  @Test func `of capabilities`() {
    let both = CapabilityChecks.capabilities(effective: 1 << 12 | 1 << 21, markRefusal: nil)
    #expect(both.verdict == .found)
    #expect(both.consequence.contains("also with --netns"))
    let one = CapabilityChecks.capabilities(effective: 1 << 12, markRefusal: nil)
    #expect(one.verdict == .found)
    #expect(one.consequence.contains("without --netns"))
    // CAP_NET_RAW alone can mark sockets too (Linux 5.17), and is not enough.
    let raw = CapabilityChecks.capabilities(effective: 1 << 13, markRefusal: nil)
    #expect(raw.verdict == .missing)
    let foreign = CapabilityChecks.capabilities(effective: .max, markRefusal: .notPermitted)
    #expect(foreign.verdict == .missing)
    #expect(foreign.consequence.contains("user namespace"))
    #expect(raw.isEssential && foreign.isEssential)
  }

  @Test func `of limits`() {
    func descriptors(room: Int, ceiling: Int? = nil) -> Check {
      LimitChecks.descriptors(
        soft: 64, hard: .max, ceiling: ceiling, room: room, connections: 1000)
    }
    let needed = Privileges.descriptors(forConnections: 1000)
    #expect(descriptors(room: 1000).verdict == .found)
    #expect(descriptors(room: 1000).seen.contains("64, hard unlimited"))
    #expect(descriptors(room: 999).verdict == .limited)
    #expect(descriptors(room: 999).consequence.contains("hard limit to \(needed)"))
    #expect(!descriptors(room: 999, ceiling: needed).consequence.contains("nr_open"))
    #expect(
      descriptors(room: 999, ceiling: needed - 1).consequence.contains("fs.nr_open=\(needed)"))
    #expect(LimitChecks.listenBacklog(maximum: 4096).verdict == .found)
    #expect(LimitChecks.listenBacklog(maximum: 128).verdict == .limited)
    #expect(LimitChecks.localPorts(1000, 1999, connections: 1000).verdict == .found)
    #expect(LimitChecks.localPorts(1000, 1998, connections: 1000).verdict == .limited)
    #expect(LimitChecks.localPorts(9, 1, connections: 1).seen.contains("9 to 1"))
    #expect(LimitChecks.tracking(maximum: 2000, connections: 1000).verdict == .found)
    #expect(LimitChecks.tracking(maximum: 1999, connections: 1000).verdict == .limited)
  }

  @Test func `of loopback and IPv6`() {
    #expect(NetworkChecks.loopback(failure: nil, rulesAreInstalled: true).verdict == .found)
    let before = NetworkChecks.loopback(failure: Errno(ENETUNREACH), rulesAreInstalled: false)
    #expect(before.verdict == .limited)
    #expect(before.consequence.contains("culvert-init install raises it"))
    let after = NetworkChecks.loopback(failure: Errno(ENETUNREACH), rulesAreInstalled: true)
    #expect(after.verdict == .missing && after.isEssential)
    #expect(after.consequence.contains("ip link set lo up"))
    #expect(
      NetworkChecks.ipv6(failure: Errno(EAFNOSUPPORT)).consequence.contains("kernel has no IPv6"))
    #expect(NetworkChecks.ipv6(failure: .addressNotAvailable).verdict == .limited)
  }

  private func facts(
    _ trial: Result<InterceptionFacts.Trial, Errno>,
    _ asked: InterceptionFacts.Asked = .answered(rulesAreInstalled: false)
  ) -> InterceptionFacts {
    InterceptionFacts(trial: trial, asked: asked)
  }

  @Test func `of interception that works`() {
    let trial = InterceptionFacts.Trial(v4: .proven, v6: .proven)
    let facts = facts(.success(trial), .answered(rulesAreInstalled: true))
    #expect(InterceptionChecks.nftables(facts).verdict == .found)
    #expect(InterceptionChecks.nftables(facts).seen.contains("rules are installed here"))
    #expect(InterceptionChecks.originalDestination(facts).verdict == .found)
  }

  @Test func `of interception that works in part`() {
    let noIPv6 = facts(.success(.init(v4: .proven, v6: .unavailable(.addressNotAvailable))))
    #expect(InterceptionChecks.originalDestination(noIPv6).verdict == .limited)
    let noDestroy = facts(
      .success(.init(closesConnections: false, v4: .proven, v6: .proven)))
    #expect(InterceptionChecks.nftables(noDestroy).verdict == .limited)
    #expect(InterceptionChecks.nftables(noDestroy).consequence.contains("--keep-connections"))
  }

  @Test func `of interception that does not work`() {
    let refused = facts(.success(.init(rulesFailure: .refused("a chain", .noEntry))))
    let nftables = InterceptionChecks.nftables(refused)
    #expect(nftables.verdict == .missing && nftables.isEssential)
    #expect(nftables.seen.contains("CONFIG_NFT_REDIR"))
    let destination = InterceptionChecks.originalDestination(refused)
    #expect(destination.verdict == .missing && destination.isEssential)
    #expect(destination.consequence == "see nftables")
    for trial in [
      InterceptionFacts.Trial(v4: .failed("gave back nothing"), v6: .proven),
      InterceptionFacts.Trial(v4: .proven, v6: .failed("gave back nothing")),
    ] {
      let check = InterceptionChecks.originalDestination(facts(.success(trial)))
      #expect(check.verdict == .missing)
      #expect(check.seen.contains("gave back nothing"))
      #expect(check.consequence.contains("no_original_destination"))
    }
  }

  @Test func `of interception that could not be tried`() {
    let untried = facts(.failure(.notPermitted))
    for check in [
      InterceptionChecks.nftables(untried), InterceptionChecks.originalDestination(untried),
    ] {
      #expect(check.verdict == .limited, "neither claimed nor denied")
      #expect(check.consequence.contains("CAP_SYS_ADMIN"))
    }
    let mute = facts(.failure(.notPermitted), .failed(.noNFTables(Errno(EPROTONOSUPPORT))))
    #expect(InterceptionChecks.nftables(mute).verdict == .missing)
    #expect(InterceptionChecks.nftables(mute).seen.contains("CONFIG_NF_TABLES"))
  }

  @Test func `of all of it: only what is essential and missing counts`() {
    let found = Check(
      name: "a", verdict: .found, seen: "s", consequence: "c", isEssential: true)
    let optional = Check(name: "b", verdict: .missing, seen: "s", consequence: "c")
    let limited = Check(
      name: "c", verdict: .limited, seen: "s", consequence: "c", isEssential: true)
    let missing = Check(
      name: "d", verdict: .missing, seen: "s", consequence: "c", isEssential: true)
    let good = Diagnosis([found, optional, limited])
    #expect(good.ok)
    #expect(DoctorText.text(good).hasSuffix("\nnothing essential is missing\n"))
    let bad = Diagnosis([found, optional, limited, missing])
    #expect(!bad.ok)
    #expect(DoctorText.text(bad).hasSuffix("\nCulvert cannot work here without: d\n"))
    #expect(
      DoctorText.text(Diagnosis([found, optional])).hasPrefix(
        "found    a: s\n           c\nmissing  b: s\n"))
  }
}

@Suite struct `culvert doctor` {
  struct Report: Decodable {
    struct Line: Decodable, Equatable {
      let name: String
      let verdict: String
      let seen: String
      let consequence: String
    }
    let version: Int
    let checks: [Line]
    let ok: Bool

    func line(_ name: String) throws -> Line {
      try #require(checks.first { $0.name == name }, "a line \(name)")
    }
  }

  /// What the tests as root lack here; nil if nothing.
  static let missingFeature: String? = {
    if geteuid() != 0 { return "root" }
    return ["ip", "nft", "setpriv", "prlimit", "unshare"].first { Tool.find($0) == nil }
  }()
  static let mayRun: Comment = "needs \(missingFeature ?? "nothing")"

  private func examine(
    connections: Int = 20_000, through wrapper: [String] = []
  ) throws -> Report {
    let outcome = try Tool.run(
      "doctor", "--json", "--connections", "\(connections)", through: wrapper)
    #expect(outcome.error == "")
    let report = try JSONDecoder().decode(Report.self, from: Data(outcome.output.utf8))
    #expect(outcome.status == (report.ok ? 0 : 1))
    return report
  }

  @Test func `prints JSON of one shape, whoever runs it`() throws {
    let outcome = try Tool.run("doctor", "--json")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    #expect(Set(object.keys) == ["version", "checks", "ok"])
    #expect(object["version"] as? Int == 1)
    let checks = try #require(object["checks"] as? [[String: String]])
    for check in checks {
      #expect(Set(check.keys) == ["name", "verdict", "seen", "consequence"])
      #expect(["found", "missing", "limited"].contains(check["verdict"]))
      #expect(check.values.allSatisfy { !$0.isEmpty })
    }
    let names = checks.compactMap { $0["name"] }
    #expect(
      names.prefix(9) == [
        "kernel", "io_uring", "nftables", "original destination", "capabilities", "loopback",
        "IPv6", "kTLS", "announcing",
      ])
    #expect(names.contains("limits: descriptors"))
    #expect(Set(names).count == names.count)
  }

  @Test func `says the same for people, with the verdict last`() throws {
    let outcome = try Tool.run("doctor")
    for name in ["kernel", "io_uring", "nftables", "original destination", "kTLS", "limits"] {
      #expect(outcome.output.contains("  \(name): "), "\(outcome.output)")
    }
    let last = try #require(outcome.output.split(separator: "\n").last)
    #expect(
      last.hasPrefix(
        outcome.status == 0 ? "nothing essential is missing" : "Culvert cannot work here without"))
  }

  @Test(.enabled(if: missingFeature == nil, mayRun))
  func `proves interception and changes nothing in the caller's namespace`() throws {
    let namespace = try Namespace()
    try namespace.succeed("ip", "link", "set", "lo", "up")
    let before = try namespace.state()
    let report = try examine(through: namespace.prefix)
    for name in ["nftables", "original destination", "capabilities", "loopback", "IPv6"] {
      let line = try report.line(name)
      #expect(line.verdict == "found", "\(line)")
    }
    #expect(report.ok)
    #expect(try namespace.state() == before)
  }

  @Test(.enabled(if: missingFeature == nil, mayRun))
  func `sees that lo is down, and that IPv6 is off`() throws {
    let namespace = try Namespace()
    let down = try examine(through: namespace.prefix)
    #expect(try down.line("loopback").verdict == "limited")
    #expect(try down.line("loopback").seen.contains("Network is unreachable"))
    #expect(try down.line("original destination").verdict == "found", "tried elsewhere")
    #expect(down.ok, "culvert-init raises lo")
    try namespace.succeed("ip", "link", "set", "lo", "up")
    try namespace.succeed("sysctl", "-q", "-w", "net.ipv6.conf.lo.disable_ipv6=1")
    let raised = try examine(through: namespace.prefix)
    #expect(try raised.line("loopback").verdict == "found")
    #expect(try raised.line("IPv6").verdict == "limited")
  }

  @Test(.enabled(if: missingFeature == nil, mayRun))
  func `is not content with rules in place and lo down`() throws {
    let namespace = try Namespace()
    try namespace.succeed(
      "nft", #"add table inet culvert { comment "culvert-init"; }"#)
    let report = try examine(through: namespace.prefix)
    #expect(try report.line("nftables").seen.contains("rules are installed here"))
    #expect(try report.line("loopback").verdict == "missing")
    #expect(!report.ok)
  }

  @Test(.enabled(if: missingFeature == nil, mayRun))
  func `sees that CAP_NET_ADMIN is missing`() throws {
    let report = try examine(through: [
      "setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin",
    ])
    #expect(try report.line("capabilities").verdict == "missing")
    #expect(try report.line("nftables").seen.contains("not privileged"))
    #expect(try report.line("original destination").verdict == "missing")
    #expect(!report.ok)
  }

  @Test(.enabled(if: missingFeature == nil, mayRun))
  func `says what it could not try without CAP_SYS_ADMIN`() throws {
    let report = try examine(through: [
      "setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin",
    ])
    #expect(try report.line("capabilities").verdict == "found")
    #expect(try report.line("capabilities").consequence.contains("without --netns"))
    #expect(try report.line("nftables").verdict == "limited")
    #expect(try report.line("nftables").seen.contains("nf_tables answers"))
    #expect(try report.line("original destination").seen.contains("not tried"))
    #expect(report.ok)
  }

  @Test(.enabled(if: missingFeature == nil, mayRun))
  func `sees that descriptors are short`() throws {
    let short = try examine(
      connections: 1000,
      through: [
        "prlimit", "--nofile=64:64", "setpriv", "--bounding-set", "-sys_resource", "--inh-caps",
        "-sys_resource",
      ])
    let line = try short.line("limits: descriptors")
    #expect(line.verdict == "limited")
    #expect(line.seen.contains("RLIMIT_NOFILE is 64, hard 64"))
    let needed = Privileges.descriptors(forConnections: 1000)
    #expect(line.consequence.contains("hard limit to \(needed)"))
    #expect(short.ok)
    let raised = try examine(connections: 1000, through: ["prlimit", "--nofile=64:4096"])
    #expect(try raised.line("limits: descriptors").verdict == "found", "the soft limit is raised")
  }

  @Test func `calls wrong usage 64, and explains itself`() throws {
    #expect(try Tool.run("doctor", "--connections", "0").status == 64)
    let help = try Tool.run("doctor", "--help")
    #expect(help.status == 0)
    #expect(help.output.contains("Exit codes: 0 nothing essential is missing"))
    #expect(help.output.contains("EXAMPLES"))
  }
}

/// A network namespace of the test's own; it goes with this object.
private final class Namespace {
  let name = "cvdoc\(UInt32.random(in: 0 ... .max))"

  init() throws { try Self.run(["ip", "netns", "add", name]) }

  deinit { _ = try? Self.run(["ip", "netns", "del", name]) }

  var prefix: [String] { ["ip", "netns", "exec", name] }

  @discardableResult
  func succeed(_ command: String...) throws -> String { try Self.run(prefix + command) }

  /// What a change would show in; counters aside.
  func state() throws -> String {
    try succeed("nft", "list", "ruleset") + succeed("ip", "addr") + succeed("ip", "route")
      + succeed("ip", "rule")
  }

  @discardableResult
  private static func run(_ command: [String]) throws -> String {
    let process = Process()
    process.executableURL = URL(filePath: try #require(Tool.find(command[0])))
    process.arguments = Array(command.dropFirst())
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let data = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    try #require(process.terminationStatus == 0, "\(command.joined(separator: " "))")
    return String(decoding: data, as: UTF8.self)
  }
}
