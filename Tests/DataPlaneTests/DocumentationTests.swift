import Foundation
import Policy
import TLS
import Telemetry
import Testing

/// Docs/OPERATIONS.md explains every word a connection can end with.
@Suite struct DocumentationTests {
  static let words =
    Refusal.allCases.map(\.rawValue) + PeerRefusal.allCases.map(\.rawValue)
    + RelayReason.allCases.map(\.rawValue) + ConnectionEnd.allCases.map(\.rawValue)
    + Security.allCases.map(\.rawValue) + HandshakeKind.allCases.map(\.rawValue)

  private func operations() throws -> String {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .deletingLastPathComponent().deletingLastPathComponent()
    return try String(contentsOf: root.appending(path: "Docs/OPERATIONS.md"), encoding: .utf8)
  }

  @Test(arguments: words) func everyWordIsExplained(word: String) throws {
    #expect(try operations().contains("`\(word)`"))
  }

  @Test func noRefusalIsExplainedThatDoesNotExist() throws {
    let section = try #require(
      operations().components(separatedBy: "\n## ").first { $0.hasPrefix("Refusals\n") })
    let listed = section.split(separator: "\n").filter { $0.hasPrefix("| `") }
      .flatMap { line in
        line.split(separator: "|")[0].split(separator: "`").filter { $0.contains("_") }
      }
    #expect(!listed.isEmpty)
    for word in listed { #expect(Self.words.contains(String(word))) }
  }
}
