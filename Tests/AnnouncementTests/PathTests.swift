import Announcement
import Net
import TestSupport
import Testing

/// A client and a server with a router between them.
private final class Routed {
  let client: Namespace
  let router: Namespace
  let server: Namespace
  private let announcing: [Announcing]

  init() throws {
    client = try Namespace("client")
    router = try Namespace("router")
    server = try Namespace("server")
    try Namespace.join(
      client, router,
      addresses: (["10.90.0.1/24", "fd90::1/64"], ["10.90.0.2/24", "fd90::2/64"]))
    try Namespace.join(
      router, server, devices: ("eth1", "eth0"),
      addresses: (["10.90.1.2/24", "fd90:1::2/64"], ["10.90.1.3/24", "fd90:1::3/64"]))
    try router.check([
      "sysctl", "-w", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1",
    ])
    try client.check(["ip", "-4", "route", "add", "default", "via", "10.90.0.2"])
    try client.check(["ip", "-6", "route", "add", "default", "via", "fd90::2"])
    try server.check(["ip", "-4", "route", "add", "default", "via", "10.90.1.2"])
    try server.check(["ip", "-6", "route", "add", "default", "via", "fd90:1::2"])
    announcing = try [client, server].map { try Announcing.start(in: $0) }
  }

  deinit {
    for namespace in [client, router, server] { namespace.close() }
  }

  func strip(_ condition: String) throws {
    try router.check(
      ["nft", "-f", "-"],
      input: """
        table inet strip {
          chain forward {
            type filter hook forward priority 0;
            \(condition) reset tcp option \(AnnouncementOption.kind)
          }
        }
        """)
  }
}

extension AnnouncementTests {
  @Suite("On its way an announcement", .needsNftables, .needsIPv6, .needsSockOps)
  struct Path {
    @Test("passes a redirect", arguments: Family.allCases)
    func redirect(family: Family) throws {
      let pair = try Pair()
      let listener = try pair.server.listenMarked()
      try pair.server.check(
        ["nft", "-f", "-"],
        input: """
          table inet inbound {
            chain prerouting {
              type nat hook prerouting priority dstnat;
              tcp dport 7000 redirect to :\(listener.port)
            }
          }
          """)
      let seen = try Seen(from: pair.client, to: family.server, port: 7000, listener)
      #expect(seen == .both)
    }

    @Test("passes a router that translates addresses", arguments: Family.allCases)
    func translation(family: Family) throws {
      let routed = try Routed()
      let listener = try routed.server.listenMarked()
      let service = family == .v4 ? "10.96.0.1" : "fd96::1"
      let target = family.endpoint(family.outsider, listener.port)
      try routed.router.check(
        ["nft", "-f", "-"],
        input: """
          table inet service {
            chain prerouting {
              type nat hook prerouting priority dstnat;
              \(family == .v4 ? "ip" : "ip6") daddr \(service) tcp dport 80 dnat \
          \(family == .v4 ? "ip" : "ip6") to \(target)
            }
            chain postrouting {
              type nat hook postrouting priority srcnat;
              masquerade
            }
          }
          """)
      let seen = try Seen(from: routed.client, to: service, port: 80, listener)
      #expect(seen == .both)
    }

    @Test("can be lost, and the connection works without it", arguments: Family.allCases)
    func stripped(family: Family) throws {
      let routed = try Routed()
      let listener = try routed.server.listenMarked()
      let whole = try Seen(from: routed.client, to: family.outsider, listener)
      #expect(whole == .both)
      try routed.strip("tcp flags & (syn | ack) == syn | ack")
      let answerLost = try Seen(from: routed.client, to: family.outsider, listener)
      #expect(answerLost == Seen(client: Marks.announcing, server: Marks.answered))
      try routed.strip("tcp flags & (syn | ack) == syn")
      let lost = try Seen(from: routed.client, to: family.outsider, listener)
      #expect(lost == .neither)
    }
  }
}
