import Foundation
import Testing

/// Full Foundation costs the proxy 11 MB of memory; FoundationEssentials costs 0.2.
@Suite struct LinkTests {
  /// This test's own bundle; the programs are built beside it.
  private static let bundle = URL(
    fileURLWithPath: (try? FileManager.default.destinationOfSymbolicLink(
      atPath: "/proc/self/exe")) ?? "")

  /// Linked dynamically it is a needed library, linked statically its symbols are there.
  private func linksFoundation(_ program: URL) throws -> Bool {
    let file = try Data(contentsOf: program, options: .mappedIfSafe)
    return ["libFoundation.so", "$s10Foundation"].contains { file.range(of: Data($0.utf8)) != nil }
  }

  @Test(arguments: ["culvert-proxy", "culvert-init", "culvert", "culvert-workload-agent"])
  func noProgramLinksFullFoundation(program: String) throws {
    let directory = Self.bundle.deletingLastPathComponent()
    #expect(try !linksFoundation(directory.appending(path: program)))
  }

  @Test func theSameLookFindsItInTheseTests() throws {
    #expect(try linksFoundation(Self.bundle))
  }
}
