import TestSupport

extension Mesh.Plan {
  /// Both sides have a proxy, and neither is told anything of the other.
  static func strangers(_ change: (inout Mesh.Plan) throws -> Void = { _ in }) throws -> Mesh.Plan {
    try standard { plan in
      plan.client?.peers = []
      try change(&plan)
    }
  }
}

/// TCP option kind of experiments (RFC 4727 §7), which announcements use.
let announcementKind: UInt8 = 254

/// The port on which proxies are asked whether they are there.
let meshPort: UInt16 = 15008

extension Recording {
  /// SYNs to a port, in order.
  func opened(to port: UInt16) -> [TCPHeader] {
    headers.filter { $0.isSYN && !$0.isACK && $0.destinationPort == port }
  }

  var announcements: [TCPHeader] {
    headers.filter { $0.options.contains { $0.first == announcementKind } }
  }

  /// Both directions of the connection that a SYN opened.
  func segments(of opening: TCPHeader) -> [TCPHeader] {
    headers.filter { header in
      [header.sourcePort, header.destinationPort] == [opening.sourcePort, opening.destinationPort]
        || [header.destinationPort, header.sourcePort]
          == [opening.sourcePort, opening.destinationPort]
    }
  }

  /// Bytes that the client of the connection that a SYN opened has sent.
  func sentByteCount(of opening: TCPHeader) -> Int {
    segments(of: opening).filter { $0.sourcePort == opening.sourcePort }
      .reduce(0) { $0 + $1.payloadByteCount }
  }
}

/// Somebody on the path between client and server: nftables at the very edge of a namespace,
/// beside the proxy's own table.
struct Attack {
  static let loseAnswers = Attack(
    "tcp flags & (syn | ack) == syn | ack reset tcp option \(announcementKind)")
  static let loseAnnouncements = Attack(
    "tcp flags & (syn | ack) == syn reset tcp option \(announcementKind)")
  static let blockMeshPort = Attack("tcp dport \(meshPort) drop")

  private let rule: String

  private init(_ rule: String) { self.rule = rule }

  /// Of what arrives from outside: a proxy tries its announcements over loopback when it starts.
  func start(in namespace: Namespace) throws {
    try namespace.check(
      ["nft", "-f", "-"],
      input: """
        table inet attack {
          chain prerouting {
            type filter hook prerouting priority raw;
            iifname != lo \(rule)
          }
        }
        """)
  }

  static func stop(in namespace: Namespace) throws {
    try namespace.check(["nft", "delete", "table", "inet", "attack"])
  }
}
