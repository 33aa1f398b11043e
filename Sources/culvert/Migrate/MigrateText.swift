internal import Control

/// A migration report for people.
enum MigrateText {
  static func text(_ report: MigrationReport, all: Bool) -> String {
    var text =
      "inbound \(report.inboundMode), outbound \(report.outboundMode); "
      + "seen since the proxy started, \(StatusText.duration(report.uptimeSeconds)) ago\n"
    for direction in ["inbound", "outbound"] {
      let entries = report.entries.filter { $0.direction == direction && (all || $0.breaks) }
      if !entries.isEmpty { text += "\n" + section(direction, entries) }
    }
    if report.withoutEntry > 0 {
      text +=
        "\n\(report.withoutEntry) more without mesh mTLS, too many to keep their addresses\n"
    }
    if !report.applicationTLS.isEmpty {
      let names = report.applicationTLS.map {
        "\($0.sni ?? "no SNI") \($0.alpn ?? "no ALPN") \($0.connections)"
      }
      text += "\n" + Output.columns([("application TLS", names.joined(separator: ", "))])
    }
    return text + "\n" + verdict(report) + "\n"
  }

  private static func section(_ direction: String, _ entries: [MigrationReport.Entry]) -> String {
    let isInbound = direction == "inbound"
    let head = [
      "PORT", isInbound ? "FROM" : "TO", "WHAT", "CONNECTIONS", "OPEN", "LAST SEEN", "STRICT",
    ]
    let rows = entries.map { entry in
      [
        String(entry.port), entry.address, entry.reason, String(entry.connections),
        String(entry.open),
        entry.open > 0 ? "now" : "\(StatusText.duration(entry.secondsAgo)) ago",
        entry.breaks ? "refused" : "goes on",
      ]
    }
    return "\(direction)\n" + table([head] + rows)
  }

  private static func table(_ rows: [[String]]) -> String {
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    return rows.map { row in
      let cells = zip(row, widths).map { cell, width in
        Output.printable(cell) + String(repeating: " ", count: width - cell.count)
      }
      let line = "  " + cells.joined(separator: "  ")
      return String(line.reversed().drop { $0 == " " }.reversed()) + "\n"
    }.joined()
  }

  private static func verdict(_ report: MigrationReport) -> String {
    guard report.somethingBreaks else { return "nothing seen would break under strict" }
    let breaking = report.entries.filter(\.breaks)
    let peers = Set(breaking.map { "\($0.direction) \($0.address)" }).count
    let ports = Set(breaking.map { "\($0.direction) \($0.port)" }).count
    return "strict would refuse \(StatusText.counted(peers, "peer")) on "
      + StatusText.counted(ports, "port")
  }
}
