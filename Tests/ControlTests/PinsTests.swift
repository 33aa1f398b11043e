import DataPlane
import Foundation
import Net
import Policy
import Testing

@testable import Control

@Suite struct `The pins file` {
  private let directory: TemporaryDirectory
  private let now = Int64(Date().timeIntervalSince1970)

  init() throws { directory = try TemporaryDirectory() }

  private var path: String { directory.file("web.pins") }

  private func file() -> PinsFile {
    PinsFile(PinSettings(ttlSeconds: 60, file: path), configuration: "/etc/culvert/web.yaml")
  }

  private func pin(_ address: String, _ port: UInt16, _ seconds: Int64) throws -> Pins.Pin {
    Pins.Pin(
      destination: SocketAddress(try #require(IPAddress(address)), port: port),
      untilSeconds: now + seconds)
  }

  /// Pins that have changed since they were restored.
  private func changed(_ pins: [Pins.Pin]) throws -> Pins {
    let changed = Pins()
    changed.restore(pins)
    #expect(changed.clear(address: IPAddress("192.0.2.1"), port: 1) == 0)
    return changed
  }

  @Test func `gives back what was written, less what has ended`() throws {
    let kept = [
      try pin("10.90.0.2", 3306, 60), try pin("10.90.0.2", 80, 600), try pin("fd90::2", 80, 60),
    ]
    var file = file()
    #expect(try file.read().isEmpty)
    file.write(try changed(kept + [try pin("10.90.0.3", 80, -1)]), now: 0)
    #expect(Set(try self.file().read()) == Set(kept))
    let mode = try FileManager.default.attributesOfItem(atPath: path)[.posixPermissions] as? Int
    #expect(mode == 0o600)
  }

  @Test func `is written where something has changed, and not all the time`() throws {
    var file = file()
    let pins = try changed([try pin("10.90.0.2", 80, 60)])
    #expect(file.waitMilliseconds(pins, now: 5000) == 0)
    file.write(pins, now: 5000)
    #expect(file.waitMilliseconds(pins, now: 5000) == nil)
    #expect(pins.clear() == 1)
    #expect(file.waitMilliseconds(pins, now: 5400) == 600)
    file.write(pins, now: 5400)
    #expect(try file.read().count == 1)
    file.write(pins, now: 5400, atOnce: true)
    #expect(try file.read().isEmpty)
  }

  @Test(arguments: [
    "", "{", "[]", "{\"version\":2,\"pins\":[]}", "{\"version\":1}",
    "{\"version\":1,\"pins\":[{\"address\":\"nowhere\",\"port\":80,\"until\":1}]}",
    "{\"version\":1,\"pins\":[{\"address\":\"10.0.0.1\",\"port\":0,\"until\":1}]}",
    "{\"version\":1,\"pins\":[{\"address\":\"10.0.0.1\",\"port\":65536,\"until\":1}]}",
    "{\"version\":1,\"pins\":[{\"address\":\"10.0.0.1\",\"port\":80}]}",
  ])
  func `that is damaged is an error and not the absence of pins`(text: String) throws {
    try Data(text.utf8).write(to: URL(filePath: path))
    let error = #expect(throws: LoadError.self) { try file().read() }
    #expect(error?.description.contains(path) == true)
    #expect(error?.description.contains("remove it to start without any") == true)
  }

  @Test func `that cannot be read, or is too long, is an error`() throws {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    #expect(throws: LoadError.self) { try file().read() }
    try FileManager.default.removeItem(atPath: path)
    try Data(repeating: 0x20, count: PinsFile.maximumBytes + 1).write(to: URL(filePath: path))
    #expect(throws: LoadError.self) { try file().read() }
  }

  @Test(arguments: [
    ("/etc/culvert/web.yaml", "etc-culvert-web.yaml"), ("/etc//culvert/./db", "etc-culvert-db"),
  ])
  func `is named after its configuration`(configuration: String, name: String) {
    let file = PinsFile(PinSettings(ttlSeconds: 1), configuration: configuration)
    #expect(file.path == "/var/lib/culvert/\(name).pins")
  }
}

@Suite struct `culvert pins` {
  private func run(_ answer: AdminResponse, _ words: String...) throws -> (Outcome, String) {
    let proxy = try FakeProxy(.answers(encoded(answer)))
    let outcome = try Tool.run(["pins"] + words + ["--admin-socket", proxy.path])
    return (outcome, proxy.finish())
  }

  private let pins = [
    PinReport(address: "10.90.0.2", port: 80, until: "2026-01-01T00:00:00.000Z", secondsLeft: 61),
    PinReport(address: "fd90::2", port: 443, until: "2026-01-01T00:00:00.000Z", secondsLeft: 5),
  ]

  @Test func `lists them`() throws {
    let (list, request) = try run(AdminResponse(pins: pins), "list")
    #expect(list.status == 0 && request.contains("\"pins\""))
    #expect(list.output.contains("10.90.0.2:80"), "\(list.output)")
    #expect(list.output.contains("[fd90::2]:443"), "\(list.output)")
    let (json, _) = try run(AdminResponse(pins: pins), "list", "--json")
    let decoded = try JSONDecoder().decode([PinReport].self, from: Data(json.output.utf8))
    #expect(decoded.map(\.port) == [80, 443])
    #expect(try run(AdminResponse(pins: []), "list").0.output == "no pins\n")
  }

  @Test(
    arguments: [
      ("10.90.0.2", "\"address\":\"10.90.0.2\"", nil), ("10.90.0.2:80", "10.90.0.2", "\"port\":80"),
      ("fd90::2", "fd90::2", nil), ("[fd90::2]:443", "fd90::2", "\"port\":443"),
    ] as [(String, String, String?)])
  func `clears those of a destination`(text: String, address: String, port: String?) throws {
    let (outcome, request) = try run(AdminResponse(cleared: 2), "clear", text)
    #expect(outcome.status == 0 && outcome.output == "2 pins cleared\n")
    #expect(request.contains("clearPins") && request.contains(address), "\(request)")
    #expect(port.map { request.contains($0) } ?? !request.contains("port"), "\(request)")
  }

  @Test func `clears all of them only when asked to`() throws {
    let (all, request) = try run(AdminResponse(cleared: 1), "clear", "--all")
    #expect(all.output == "1 pin cleared\n" && !request.contains("address"))
  }

  @Test(arguments: [
    ["clear"], ["clear", "--all", "10.0.0.1"], ["clear", "nowhere"], ["clear", "10.0.0.1:"],
    ["clear", "10.0.0.1:65536"], ["clear", "fd90::2:443:"], ["list", "10.0.0.1"], ["forget"],
  ])
  func `refuses wrong usage`(words: [String]) throws {
    let outcome = try Tool.run(["pins"] + words)
    #expect(outcome.status == 64 && outcome.output.isEmpty, "\(outcome)")
  }

  @Test func `says so where no proxy answers`() throws {
    for words in [["list"], ["clear", "--all"]] {
      let outcome = try Tool.run(["pins"] + words + ["--admin-socket", "/nowhere/admin.sock"])
      #expect(outcome.status == 1 && outcome.error.contains("/nowhere/admin.sock"))
    }
  }

  @Test func `shows examples in its help`() throws {
    let help = try Tool.run("pins", "--help")
    #expect(help.status == 0 && help.output.contains("culvert pins clear 10.90.0.2:3306"))
    for command in ["list", "clear"] {
      #expect(try Tool.run("pins", command, "--help").output.contains("64 wrong usage"))
    }
  }
}
