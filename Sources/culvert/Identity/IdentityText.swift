internal import Control

/// An identity report for people.
enum IdentityText {
  static func text(_ report: IdentityReport) -> String {
    var rows = own(report.identity)
    for bundle in report.bundles { rows.append(("bundle", line(bundle))) }
    rows.append(("verified", StatusText.counted(report.verifiedPeers, "peer") + " remembered"))
    return Output.columns(rows)
  }

  /// The rows that `culvert status` shows, too.
  static func own(_ identity: StatusReport.Identity) -> [(String, String)] {
    var rows = [("identity", identity.id ?? "none (\(identity.state))")]
    if identity.id != nil { rows.append(("expires", StatusText.expiry(identity))) }
    rows.append(("source", source(identity)))
    if let error = identity.lastError { rows.append(("not renewed", error)) }
    return rows
  }

  private static func source(_ identity: StatusReport.Identity) -> String {
    let clients = (identity.workloadAPI ?? [:]).sorted { $0.key < $1.key }
      .map { ", \($0.key) \($0.value)" }.joined()
    return "\(identity.source)\(clients), \(identity.state); SVID \(identity.svidEpoch), "
      + "trust \(identity.trustEpoch)"
  }

  /// `demo.mesh: 1 authority from pem, 1 revocation list, confirmed 3 min ago`.
  static func line(_ bundle: StatusReport.Bundle) -> String {
    var parts = ["\(bundle.authorities) \(bundle.authorities == 1 ? "authority" : "authorities")"]
    if bundle.authorities == 0 { parts = ["DISTRUSTED"] }
    parts[0] += " from \(bundle.source)"
    if let url = bundle.url { parts[0] += " (\(url))" }
    if bundle.revocationLists > 0 {
      let late = bundle.lateRevocationLists
      parts.append(
        StatusText.counted(bundle.revocationLists, "revocation list")
          + (late > 0 ? " (\(late) LATE)" : ""))
    }
    if let sequence = bundle.sequence { parts.append("sequence \(sequence)") }
    parts.append(
      bundle.ageSeconds.map { "confirmed \(StatusText.duration($0)) ago" } ?? "not fetched yet")
    if let error = bundle.lastError { parts.append("last look failed: \(error)") }
    return "\(bundle.trustDomain): \(parts.joined(separator: ", "))"
  }
}
