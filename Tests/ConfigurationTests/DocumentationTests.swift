import Configuration
import Foundation
import Identity
import Net
import Policy
import Testing

@Suite struct TheConfigurationDocument {
  private let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

  private func text(_ path: String) throws -> String {
    try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }

  @Test func itsExamplesAreValid() throws {
    let blocks = try text("Docs/CONFIGURATION.md").components(separatedBy: "```")
    let examples = blocks.filter { $0.hasPrefix("yaml\n") }.map { $0.dropFirst(5) }
    #expect(examples.count == 7)
    for example in examples { #expect(Sample.complaint(String(example)) == nil) }
  }

  @Test func itListsTheDefaultsOfEveryLimit() throws {
    let document = try text("Docs/CONFIGURATION.md")
    let limits = Mirror(reflecting: try Sample.parse(Sample.least).limits)
    #expect(limits.children.count == 6)
    for (label, value) in limits.children {
      #expect(document.contains("| `limits.\(label ?? "")` | \(value) |"))
    }
  }

  @Test(arguments: [
    "`workload.identity.startupDeadlineMilliseconds` | 0 to 600000 | \(least.startupDeadlineMilliseconds)",
    "`workload.identity.embeddedCA.lifetimeSeconds` | 60 to 31536000 | \(ca.lifetimeSeconds)",
    "`workload.connectionLifetime` | `unlimited`, `certificate` | `\(least.connectionLifetime.rawValue)`",
    "`workload.bundleEndpoint.address` | IP address | `\(endpoint.address.address)`",
    "`workload.bundleEndpoint.refreshHintSeconds` | 10 to 86400 | \(endpoint.refreshHintSeconds)",
  ])
  func itListsTheDefaultsOfAWorkload(row: String) throws {
    #expect(try text("Docs/CONFIGURATION.md").contains("| \(row) |"))
  }

  private static let least = try! Sample.parse(Sample.least)
  private static let ca = EmbeddedCASource(
    directory: "/ca", id: try! SPIFFEID("spiffe://demo.mesh/web"))
  private static let endpoint = try! Sample.parse(
    Sample.least + "  bundleEndpoint: { port: 1 }\n"
  ).bundleEndpoint!

  @Test func itListsEveryFieldThatIsRead() throws {
    let document = try text("Docs/CONFIGURATION.md")
    // Fields are named in the lists of what a mapping may hold.
    let sources = try FileManager.default.contentsOfDirectory(
      atPath: root.appendingPathComponent("Sources/Configuration").path
    ).filter { $0.hasPrefix("Settings+") }
    #expect(sources.count >= 3)
    for source in sources {
      let fields = try text("Sources/Configuration/" + source)
        .matches(of: #/\.fields\(\s*\[([^\]]*)\]/#)
        .flatMap { $0.output.1.matches(of: #/"(\w+)"/#).map { String($0.output.1) } }
      // One of the files reads YAML, the others each know many.
      #expect(fields.count > 10 || source == "Settings+YAML.swift", "\(source)")
      for field in fields {
        let isListed = ["`\(field)`", ".\(field)`", ".\(field).", ".\(field)["].contains(
          where: document.contains)
        #expect(isListed, "\(field)")
      }
    }
  }
}
