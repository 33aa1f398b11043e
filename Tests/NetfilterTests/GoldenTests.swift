import Foundation
import Testing

/// One case per option: its golden file and how it is given.
struct GoldenCase: CustomTestStringConvertible, Sendable {
  let name: String
  let options: [String]
  var testDescription: String { name }

  init(_ name: String, _ options: String...) {
    self.name = name
    self.options = options
  }

  static let all = [
    GoldenCase("default"),
    GoldenCase("outbound-port", "--outbound-port", "16001"),
    GoldenCase("inbound-port", "--inbound-port", "16006"),
    GoldenCase("mesh-port", "--mesh-port", "16008"),
    GoldenCase("include-inbound-ports", "--include-inbound-ports", "9000-9099,8080"),
    GoldenCase("exclude-inbound-ports", "--exclude-inbound-ports", "22,9000-9099"),
    GoldenCase("include-outbound-ports", "--include-outbound-ports", "5432,80,81,443"),
    GoldenCase("exclude-outbound-ports", "--exclude-outbound-ports", "8125-8126,65535"),
    GoldenCase(
      "include-outbound-cidrs", "--include-outbound-cidrs", "10.0.0.0/8,192.168.0.0/16",
      "--include-outbound-cidrs", "fd00::/8"),
    GoldenCase("include-outbound-cidrs-one-family", "--include-outbound-cidrs", "0.0.0.0/0"),
    GoldenCase(
      "exclude-outbound-cidrs", "--exclude-outbound-cidrs",
      "10.1.0.0/16,10.0.0.0/8,1.0.0.0/24,1.0.1.0/24,1.0.2.0/24,240.0.0.0/4,203.0.113.7,"
        + "fd00::/8,::ffff:192.0.2.1,ff00::/8,2001:db8::1"),
    GoldenCase("exclude-uids", "--exclude-uids", "1000,0"),
    GoldenCase("exclude-gids", "--exclude-gids", "7"),
    GoldenCase("exclude-interfaces", "--exclude-interfaces", "eth1,mgmt-0"),
    GoldenCase("mark", "--mark", "0x1234"),
    GoldenCase("mark-of-ones", "--mark", "65535", "--exclude-uids", "5"),
    GoldenCase("no-guard", "--no-guard"),
    GoldenCase("block-udp", "--block-udp"),
    GoldenCase(
      "everything", "--include-inbound-ports", "8080", "--exclude-inbound-ports", "22",
      "--include-outbound-ports", "1-65535", "--exclude-outbound-ports", "53",
      "--include-outbound-cidrs", "0.0.0.0/0,::/0", "--exclude-outbound-cidrs", "127.0.0.0/8",
      "--exclude-uids", "1", "--exclude-gids", "2", "--exclude-interfaces", "eth1", "--mark",
      "0xc18", "--block-udp"),
  ]
}

@Suite struct GoldenTests {
  @Test(arguments: GoldenCase.all)
  func `the dry run prints the golden text`(_ golden: GoldenCase) throws {
    let outcome = try run([Files.program, "install", "--dry-run"] + golden.options)
    #expect(outcome.status == 0, "\(outcome.error)")
    if ProcessInfo.processInfo.environment["CULVERT_RECORD_GOLDEN"] != nil {
      try Data(outcome.output.utf8).write(to: Files.golden(golden.name))
    }
    #expect(outcome.output == (try String(contentsOf: Files.golden(golden.name), encoding: .utf8)))
  }

  @Test func `options that are no rules leave the text as it is`() throws {
    let expected = try String(contentsOf: Files.golden("default"), encoding: .utf8)
    let outcome = try initialize(
      "install", "--dry-run", "--keep-connections", "--netns", "no-such-namespace")
    #expect(outcome.output == expected)
  }

  @Test func `every golden file has its case`() throws {
    let files = try FileManager.default.contentsOfDirectory(
      atPath: Files.directory.appending(path: "Golden").path)
    #expect(Set(files) == Set(GoldenCase.all.map { "\($0.name).nft" }))
  }

  @Test(arguments: [
    ("--exclude-inbound-ports", "80,x", "\"x\""),
    ("--include-inbound-ports", "0", "\"0\""),
    ("--exclude-outbound-ports", "9-8", "\"9-8\""),
    ("--include-outbound-ports", "80,,81", "\"\""),
    ("--exclude-outbound-cidrs", "10.0.0.1/8", "\"10.0.0.1/8\""),
    ("--include-outbound-cidrs", "fd00::/129", "\"fd00::/129\""),
    ("--exclude-uids", "root", "\"root\""),
    ("--exclude-gids", "4294967295", "\"4294967295\""),
    ("--exclude-interfaces", "a name", "\"a name\""),
    ("--exclude-interfaces", "eth\"0", "eth\"0"),
    ("--mark", "0x10000", "\"0x10000\""),
    ("--mark", "0", "\"0\""),
    ("--mesh-port", "15001", "three different ports"),
  ])
  func `a bad list is one line that names the item`(
    _ option: String, _ value: String, _ named: String
  ) throws {
    let outcome = try initialize("install", "--dry-run", option, value)
    #expect(outcome.status != 0)
    #expect(outcome.output.isEmpty)
    #expect(outcome.error.contains(named))
    #expect(outcome.error.split(separator: "\n").count == 1)
  }
}
