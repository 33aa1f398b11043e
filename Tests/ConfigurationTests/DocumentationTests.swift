import Configuration
import Foundation
import Testing

@Suite struct TheConfigurationDocument {
  private func text(_ path: String) throws -> String {
    let root = URL(fileURLWithPath: #filePath)
      .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    return try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
  }

  @Test func itsExamplesAreValid() throws {
    let blocks = try text("Docs/CONFIGURATION.md").components(separatedBy: "```")
    let examples = blocks.filter { $0.hasPrefix("yaml\n") }.map { $0.dropFirst(5) }
    #expect(examples.count == 2)
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

  @Test func itListsEveryFieldThatIsRead() throws {
    let document = try text("Docs/CONFIGURATION.md")
    // Fields are named in the lists of what a mapping may hold.
    let source = try text("Sources/Configuration/Settings+Fields.swift")
    let fields = source.matches(of: #/\.fields\(\s*\[([^\]]*)\]/#)
      .flatMap { $0.output.1.matches(of: #/"(\w+)"/#).map { String($0.output.1) } }
    #expect(fields.count > 35)
    for field in fields {
      let isListed = ["`\(field)", ".\(field)`", ".\(field).", ".\(field)["].contains(
        where: document.contains)
      #expect(isListed, "\(field)")
    }
  }
}
