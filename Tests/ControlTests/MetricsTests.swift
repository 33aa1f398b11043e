import Foundation
import Testing

@testable import Control

/// The Prometheus text format, read back as Prometheus reads it.
struct Scrape {
  struct Sample: Hashable {
    let name: String
    let labels: [String: String]
    let value: Double
  }

  var samples: [Sample] = []
  var kinds: [String: String] = [:]
  /// Lines that are none of the format's.
  var strange: [String] = []

  init(_ text: String) {
    if !text.hasSuffix("\n") { strange.append("no end of line at the end") }
    for line in text.split(separator: "\n", omittingEmptySubsequences: false).dropLast() {
      read(String(line))
    }
  }

  private mutating func read(_ line: String) {
    if line.wholeMatch(of: #/# HELP [a-z_]+ .+/#) != nil { return }
    if let match = line.wholeMatch(of: #/# TYPE ([a-z_]+) (gauge|counter|histogram)/#) {
      if kinds.updateValue(String(match.2), forKey: String(match.1)) != nil {
        strange.append(line)
      }
      return
    }
    let pattern = #/([a-z_]+)(?:\{((?:[a-z_]+="(?:[^"\\]|\\["\\n])*",?)*)\})? (-?[0-9.e+]+)/#
    guard let match = line.wholeMatch(of: pattern), let value = Double(match.3),
      isKnown(String(match.1))
    else { return strange.append(line) }
    var labels: [String: String] = [:]
    for label in (match.2 ?? "").matches(of: #/([a-z_]+)="((?:[^"\\]|\\["\\n])*)"/#) {
      labels[String(label.1)] = String(label.2).replacing("\\n", with: "\n")
        .replacing("\\\"", with: "\"").replacing("\\\\", with: "\\")
    }
    samples.append(Sample(name: String(match.1), labels: labels, value: value))
  }

  /// Whether a name has a type, be it as a part of a histogram.
  private func isKnown(_ name: String) -> Bool {
    if let kind = kinds[name] { return kind != "histogram" }
    return ["_bucket", "_sum", "_count"].contains { part in
      name.hasSuffix(part) && kinds[String(name.dropLast(part.count))] == "histogram"
    }
  }

  func value(_ name: String, _ labels: [String: String] = [:]) -> Double? {
    samples.first { $0.name == name && $0.labels == labels }?.value
  }
}

@Suite struct `The metrics` {
  @Test func `are Prometheus text, each series once`() {
    let scrape = Scrape(MetricsText.text(.sample()))
    #expect(scrape.strange == [])
    #expect(scrape.kinds.count == 17)
    #expect(
      Set(scrape.samples.map { "\($0.name)\($0.labels.sorted(by: <))" }).count
        == scrape.samples.count)
    for (name, kind) in scrape.kinds {
      #expect(name.hasPrefix("culvert_"))
      #expect(name.hasSuffix("_total") == (kind == "counter"), "\(name)")
    }
  }

  @Test func `are those of the status`() {
    let scrape = Scrape(MetricsText.text(.sample()))
    let demo = ["trust_domain": "demo.mesh", "source": "pem"]
    let partner = ["trust_domain": "partner.example", "source": "federation"]
    #expect(scrape.value("culvert_up") == 1)
    #expect(scrape.value("culvert_identity_state", ["state": "ready"]) == 1)
    #expect(scrape.value("culvert_identity_state", ["state": "expired"]) == 0)
    #expect(scrape.value("culvert_identity_expiry_seconds") == 83_400)
    #expect(scrape.value("culvert_identity_rotations_total") == 4)
    #expect(scrape.value("culvert_identity_error") == 0)
    #expect(scrape.value("culvert_trust_epoch") == 2)
    #expect(scrape.value("culvert_bundle_age_seconds", demo) == 4000)
    #expect(scrape.value("culvert_bundle_age_seconds", partner) == nil, "never fetched")
    #expect(scrape.value("culvert_bundle_authorities", demo) == 1)
    #expect(scrape.value("culvert_bundle_authorities", partner) == 0)
    #expect(scrape.value("culvert_handshakes_total", ["kind": "resumed"]) == 100)
    #expect(scrape.value("culvert_refused_total", ["reason": "self_call"]) == 3)
  }

  @Test func `do without an identity`() {
    var report = StatusReport.sample()
    report.identity = .init(
      source: "workload_api", state: "awaited", svidEpoch: 0, trustEpoch: 0, rotations: 0,
      lastError: "cannot_connect")
    let scrape = Scrape(MetricsText.text(report))
    #expect(scrape.strange == [])
    #expect(scrape.value("culvert_identity_expiry_seconds") == nil)
    #expect(scrape.value("culvert_identity_state", ["state": "awaited"]) == 1)
    #expect(scrape.value("culvert_identity_state", ["state": "ready"]) == 0)
    #expect(scrape.value("culvert_identity_error") == 1)
  }

  @Test func `go below zero when the identity has ended`() {
    var report = StatusReport.sample()
    report.identity.expiresInSeconds = -90
    let scrape = Scrape(MetricsText.text(report))
    #expect(scrape.strange == [])
    #expect(scrape.value("culvert_identity_expiry_seconds") == -90)
  }

  /// No word of ours has such characters; a proxy of another version may.
  @Test func `keep one line for one sample, whatever a label holds`() {
    var report = StatusReport.sample()
    report.connections.refused = ["a\"b\\c\nd": 1]
    let scrape = Scrape(MetricsText.text(report))
    #expect(scrape.strange == [])
    #expect(scrape.value("culvert_refused_total", ["reason": "a\"b\\c\nd"]) == 1)
  }
}

@Suite struct `culvert metrics` {
  @Test func `prints what the proxy answers`() throws {
    let text = MetricsText.text(.sample())
    let proxy = try FakeProxy(.answers(try encoded(AdminResponse(metrics: text))))
    let outcome = try Tool.run("metrics", "--admin-socket", proxy.path)
    #expect(proxy.finish().contains("\"metrics\""))
    #expect(outcome.status == 0)
    #expect(outcome.error == "")
    #expect(outcome.output == text)
    #expect(Scrape(outcome.output).strange == [])
  }

  @Test func `says in one line that nobody listens`() throws {
    let path = try TemporaryDirectory().file("admin.sock")
    let outcome = try Tool.run("metrics", "--admin-socket", path)
    #expect(outcome.status == 1)
    #expect(outcome.output == "")
    #expect(outcome.error.hasPrefix("culvert: \(path): no culvert-proxy answers here"))
  }
}
