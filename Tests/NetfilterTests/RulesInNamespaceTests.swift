import Foundation
import Testing

@testable import Netfilter

/// What the kernel and nft make of the rules, in namespaces of the tests' own.
@Suite(
  .serialized,
  .enabled(if: missingFeature == nil, "missing: \(missingFeature ?? "nothing")"))
struct RulesInNamespaceTests {
  @Test func `nft lists what the dry run prints, for every option in turn`() throws {
    let namespace = try TestNamespace()
    for golden in GoldenCase.all {
      let outcome = try run(
        [Files.program, "install", "--netns", namespace.name] + golden.options)
      #expect(outcome.status == 0, "\(golden): \(outcome.error)")
      let expected = try String(contentsOf: Files.golden(golden.name), encoding: .utf8)
      #expect(try namespace.listing() == expected, "\(golden)")
      #expect(try namespace.initialize("show").output == expected, "\(golden)")
      let verified = try run(
        [Files.program, "verify", "--rules-only", "--netns", namespace.name] + golden.options)
      #expect(verified.status == 0, "\(golden): \(verified.error)")
    }
  }

  @Test func `lists of thousands install`() throws {
    let namespace = try TestNamespace()
    let ports = (1...3000).map { "\($0 * 20)" }.joined(separator: ",")
    let ranges = (0..<3000).map { "10.\($0 / 128).\($0 % 128 * 2).0/24" }.joined(separator: ",")
    let options = ["--exclude-outbound-ports", ports, "--exclude-outbound-cidrs", ranges]
    try #require(
      try run([Files.program, "install", "--netns", namespace.name] + options).status == 0)
    let dry = try run([Files.program, "install", "--dry-run"] + options)
    #expect(try namespace.listing() == dry.output)
  }

  @Test func `installing again changes nothing`() throws {
    let namespace = try TestNamespace()
    try namespace.install()
    let before = try namespace.listing()
    try namespace.install()
    #expect(try namespace.listing() == before)
  }

  @Test func `a batch the kernel refuses leaves the old rules as they were`() throws {
    let namespace = try TestNamespace()
    try namespace.install()
    let before = try namespace.ruleset()
    // A chain's name may have 255 characters; the rules before it are good.
    var table = Table(InterceptionPlan())
    table.chains.append(Chain(String(repeating: "x", count: 300), .filter, .input, []))
    let refused = table
    let error = try inNamespace(namespace.name) { () -> NetfilterError? in
      do throws(NetfilterError) {
        var store = try TableStore()
        try store.replace(with: refused)
        return nil
      } catch {
        return error
      }
    }
    #expect("\(error.map(\.description) ?? "")".contains("nothing was installed"))
    #expect(try namespace.ruleset() == before)
  }

  @Test func `remove leaves nothing behind`() throws {
    let namespace = try TestNamespace()
    try namespace.install("--block-udp", "--exclude-outbound-ports", "1,2")
    #expect(try namespace.ruleset().contains("table inet culvert"))
    #expect(try namespace.initialize("remove").status == 0)
    #expect(try namespace.ruleset() == "")
    #expect(try namespace.initialize("remove").status == 0)
    #expect(try namespace.initialize("show").status == 2)
  }

  @Test func `remove leaves other tables alone`() throws {
    let namespace = try TestNamespace()
    try succeed("ip", "netns", "exec", namespace.name, "nft", "add table inet other")
    try namespace.install()
    try #require(try namespace.initialize("remove").status == 0)
    #expect(try namespace.ruleset() == "table inet other {\n}\n")
  }

  @Test func `a table of the same name that is not ours is refused and kept`() throws {
    let namespace = try TestNamespace()
    try succeed(
      "ip", "netns", "exec", namespace.name, "nft",
      "add table inet culvert { comment \"mine\"; }")
    let before = try namespace.ruleset()
    for command in ["install", "remove", "show", "verify"] {
      let outcome = try namespace.initialize(command)
      #expect(outcome.status == 1)
      #expect(outcome.error.contains("did not make"))
      #expect(outcome.error.split(separator: "\n").count == 1)
    }
    #expect(try namespace.ruleset() == before)
    try succeed("ip", "netns", "exec", namespace.name, "nft", "delete table inet culvert")
    #expect(try namespace.initialize("install").status == 0)
  }

  @Test func `without privilege nothing is done and one line says so`() throws {
    let namespace = try TestNamespace()
    let bare = [
      "ip", "netns", "exec", namespace.name, "setpriv", "--bounding-set=-net_admin",
      "--inh-caps=-net_admin", Files.program,
    ]
    for command in ["install", "remove", "show", "verify"] {
      let outcome = try run(bare + [command])
      #expect(outcome.status == 1)
      #expect(outcome.error.contains("CAP_NET_ADMIN"))
      #expect(outcome.error.split(separator: "\n").count == 1)
    }
    #expect(try namespace.ruleset() == "")
    #expect(try namespace.initialize("install").status == 0)
  }

  @Test func `an unknown namespace is one line`() throws {
    for name in ["no-such-namespace", "/no/such/file", "/etc/passwd"] {
      let outcome = try initialize("install", "--netns", name)
      #expect(outcome.status == 1)
      #expect(outcome.error.contains(name))
      #expect(outcome.error.split(separator: "\n").count == 1)
    }
  }

  @Test func `a namespace is found by name and by path`() throws {
    let namespace = try TestNamespace()
    try #require(try namespace.initialize("install").status == 0)
    #expect(try initialize("show", "--netns", "/run/netns/\(namespace.name)").status == 0)
  }

  @Test func `lo is raised`() throws {
    let namespace = try TestNamespace()
    try succeed("ip", "-n", namespace.name, "link", "set", "lo", "down")
    try namespace.install()
    #expect(try succeed("ip", "-n", namespace.name, "link", "show", "lo").contains("LOOPBACK,UP"))
  }

  @Test func `JSON lists the same rules as the text`() throws {
    struct Shown: Decodable {
      struct Chain: Decodable {
        let name: String
        let hook: String
        let rules: [String]
      }
      let family: String
      let name: String
      let chains: [Chain]
    }
    let namespace = try TestNamespace()
    try namespace.install("--exclude-interfaces", "eth1")
    let output = try namespace.initialize("show", "--json").output
    let shown = try JSONDecoder().decode(Shown.self, from: Data(output.utf8))
    #expect(shown.family == "inet")
    #expect(shown.name == "culvert")
    let listing = try namespace.listing()
    #expect(shown.chains.map(\.name) == ["output", "prerouting", "guard-output", "guard-input"])
    for rule in shown.chains.flatMap(\.rules) { #expect(listing.contains("\t\t\(rule)\n")) }
  }
}

/// `verify` tells what is missing: each case has its neighbour in which it is not.
@Suite(
  .serialized,
  .enabled(if: missingFeature == nil, "missing: \(missingFeature ?? "nothing")"))
struct VerifyTests {
  @Test func `rules missing, incomplete and complete are told apart`() throws {
    let namespace = try TestNamespace()
    let missing = try namespace.initialize("verify", "--rules-only")
    #expect(missing.status == 2)
    #expect(missing.error.contains("rules missing"))
    try namespace.install()
    #expect(try namespace.initialize("verify", "--rules-only").status == 0)
    try succeed(
      "ip", "netns", "exec", namespace.name, "nft",
      "insert rule inet culvert output tcp dport 99 return")
    let changed = try namespace.initialize("verify", "--rules-only")
    #expect(changed.status == 3)
    #expect(changed.error.contains("rules incomplete"))
    try namespace.install()
    try succeed(
      "ip", "netns", "exec", namespace.name, "nft", "flush chain inet culvert guard-input")
    #expect(try namespace.initialize("verify", "--rules-only").status == 3)
    try namespace.install()
    try succeed(
      "ip", "netns", "exec", namespace.name, "nft",
      "add rule inet culvert output counter")
    #expect(try namespace.initialize("verify", "--rules-only").status == 3)
    try namespace.install("--exclude-outbound-ports", "53")
    #expect(try namespace.initialize("verify", "--rules-only").status == 3)
  }

  @Test func `a listener that is absent is told from rules that are`() throws {
    let wire = try Wire()
    try wire.inside.install()
    let absent = try wire.inside.initialize("verify")
    #expect(absent.status == 4)
    #expect(absent.error.contains("listener absent"))
    let half = try wire.inside.sink("15006")
    #expect(try wire.inside.initialize("verify").status == 4)
    half.stop()
    let sink = try wire.inside.sink("15001", "15006")
    let found = try wire.inside.initialize("verify")
    #expect(found.status == 0, "\(found.error)")
    try sink.expect("accepted 15001")
  }

  @Test func `a listener that resets the probe is a listener`() throws {
    let wire = try Wire()
    try wire.inside.install()
    let resetter = try wire.inside.resetter("15001", "15006")
    for _ in 0..<20 {
      let found = try wire.inside.initialize("verify")
      #expect(found.status == 0, "\(found.error)")
    }
    resetter.stop()
    #expect(try wire.inside.initialize("verify").status == 4)
  }

  @Test func `a probe works where there is a default route and where there is none`() throws {
    let wire = try Wire()
    try wire.inside.install()
    let sink = try wire.inside.sink("15001", "15006")
    #expect(try wire.inside.initialize("verify").status == 0)
    try succeed(
      "ip", "-n", wire.inside.name, "route", "add", "default", "via", Wire.outsideV4)
    #expect(try wire.inside.initialize("verify").status == 0)
    withExtendedLifetime(sink) {}
  }

  @Test func `a probe that cannot be made says so`() throws {
    let namespace = try TestNamespace()
    try namespace.install()
    let sink = try namespace.sink("15001", "15006")
    let outcome = try namespace.initialize("verify")
    #expect(outcome.status == 1)
    #expect(outcome.error.contains("--rules-only"))
    withExtendedLifetime(sink) {}
  }
}

/// Runs `body` on a thread of its own that has entered a namespace and does not come back.
func inNamespace<Value: Sendable>(
  _ name: String, _ body: @escaping @Sendable () throws -> Value
) throws -> Value {
  let box = Box<Result<Value, any Error>>()
  let thread = Thread {
    box.value = Result {
      try NetworkNamespace.enter(name)
      return try body()
    }
    box.done.signal()
  }
  thread.start()
  box.done.wait()
  return try #require(box.value).get()
}

/// Handed from one thread to another: the semaphore orders the two.
private final class Box<Value>: @unchecked Sendable {
  var value: Value?
  let done = DispatchSemaphore(value: 0)
}
