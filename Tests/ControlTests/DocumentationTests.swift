import Federation
import Foundation
import Telemetry
import Testing
import WorkloadAPI

@testable import Control
@testable import TLS

/// Docs/OPERATIONS.md explains every word about identity that a proxy says, and every metric.
@Suite struct `The operations document` {
  private static func document(_ name: String) throws -> String {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    return try String(contentsOf: root.appending(path: "Docs/\(name).md"), encoding: .utf8)
  }

  @Test(arguments: ["ready", "expired", "awaited", "unavailable"])
  func `explains every state of the identity`(word: String) throws {
    #expect(try Self.document("OPERATIONS").contains("\n| `\(word)` | "))
  }

  @Test(arguments: WorkloadClient.State.allCases)
  func `explains every state of a Workload API's client`(state: WorkloadClient.State) throws {
    #expect(try Self.document("OPERATIONS").contains("\n| `\(state.rawValue)` | "))
  }

  @Test(arguments: WorkloadFailure.Reason.allCases)
  func `explains every failure of a Workload API`(reason: WorkloadFailure.Reason) throws {
    #expect(try Self.document("OPERATIONS").contains("\n| `\(reason.rawValue)` | "))
  }

  @Test(arguments: BundleFetchError.Reason.allCases)
  func `explains every error of a bundle endpoint`(reason: BundleFetchError.Reason) throws {
    #expect(try Self.document("OPERATIONS").contains("\n| `\(reason.rawValue)` | "))
  }

  @Test(arguments: BundleOrigin.allCases)
  func `names every source of a bundle`(origin: BundleOrigin) throws {
    #expect(try Self.document("OPERATIONS").contains("`\(origin.rawValue)`"))
  }

  @Test func `lists the metrics, all of them and no others`() throws {
    let name = Sightings.Name(serverName: "a.example", alpn: "h2")
    let kinds = Scrape(MetricsText.text(.sample(), names: ([name: 1], 0))).kinds
    let rows = try Self.document("OPERATIONS").matches(of: #/\n\| `(culvert_\w+)` \| (\w+) \|/#)
    let listed = Dictionary(rows.map { (String($0.1), String($0.2)) }) { first, _ in first }
    #expect(listed == kinds)
  }

  @Test func `gives the bounds that the code has`() throws {
    let configuration = try Self.document("CONFIGURATION")
    #expect(configuration.contains("at most \(BundleFiles.maximumDirectoryFiles) |"))
    #expect(configuration.contains("at most \(TrustBundle.maximumCertificates) |"))
    #expect(configuration.contains("or every \(BundleSchedule.defaultRefreshSeconds) s"))
    #expect(configuration.contains("every \(BundleSchedule.minimumRefreshSeconds) s or"))
    let threats = try Self.document("THREAT_MODEL")
    #expect(threats.contains("The cache has \(PeerRegistry.maximumIdlePeers) peers"))
    #expect(threats.contains("one for each of \(ClientSessions.maximumSessions) servers"))
    #expect(threats.contains("at most \(BundleEndpointServer.maximumClients) clients"))
  }
}
