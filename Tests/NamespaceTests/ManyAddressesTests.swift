import TestSupport
import Testing

/// A client and a server, each with a proxy, and a router that leads a service address to the
/// server.
private final class Service {
  let client: Namespace
  let router: Namespace
  let server: Namespace
  let clientProxy: Proxy
  let serverProxy: Proxy

  /// - Parameter announce: `discovery.announce` of both.
  init(announce: String) throws {
    let plan = try Mesh.Plan.strangers { plan in
      plan.client?.discovery["announce"] = announce
      plan.server?.discovery["announce"] = announce
    }
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
    for (namespace, v4, v6) in [
      (client, "10.90.0.2", "fd90::2"), (server, "10.90.1.2", "fd90:1::2"),
    ] {
      try namespace.check(["ip", "-4", "route", "add", "default", "via", v4])
      try namespace.check(["ip", "-6", "route", "add", "default", "via", v6])
    }
    clientProxy = try Proxy(in: client, #require(plan.client))
    serverProxy = try Proxy(in: server, #require(plan.server))
    try clientProxy.installRules()
    try serverProxy.installRules()
  }

  deinit {
    for namespace in [client, router, server] { namespace.close() }
  }

  static func address(_ family: Family) -> String { family == .v4 ? "10.96.0.1" : "fd96::1" }

  /// Port 80 of the service's address, and no other, is a port of the server.
  func lead(to port: UInt16) throws {
    try router.check(
      ["nft", "-f", "-"],
      input: """
        table inet service {
          chain prerouting {
            type nat hook prerouting priority dstnat;
            ip daddr 10.96.0.1 tcp dport 80 dnat ip to 10.90.1.3:\(port)
            ip6 daddr fd96::1 tcp dport 80 dnat ip6 to [fd90:1::3]:\(port)
          }
        }
        """)
  }
}

extension InNamespaces {
  /// Addresses that are not those of one workload.
  @Suite("Service addresses and many addresses")
  struct ManyAddresses {
    @Test("A service address is mesh by its announcement alone", arguments: ["auto", "off"])
    func service(announce: String) throws {
      let service = try Service(announce: announce)
      let echo = try service.server.echoServer()
      try service.lead(to: echo.port)
      let capture = try Capture(in: service.server)
      for family in Family.allCases {
        let outcome = try attempt(
          "canary-of-service", from: service.client, to: Service.address(family), port: 80)
        #expect(outcome == .answered)
      }
      let recording = try capture.finish(markFrom: service.client, to: Family.v4.outsider)
      let isAnnounced = announce == "auto"
      #expect(recording.count(of: "canary-of-service") == (isAnnounced ? 0 : 4))
      let records = try service.clientProxy.waitForRecords(2, "outbound")
      let services = Family.allCases.map { $0.endpoint(Service.address($0), 80) }
      #expect(records.map { $0["dst.addr"] } == services)
      for record in records {
        #expect(record.security == (isAnnounced ? "mutual_tls" : "plaintext"))
        #expect(record["discovery"] == (isAnnounced ? "announced" : nil))
        #expect(record.reason == (isAnnounced ? nil : "no_mesh_port"))
      }
    }

    /// Addresses on either side.
    private static let count = 250

    @Test(
      "Five hundred addresses, each by what it is, and none asked twice",
      arguments: ["auto", "off"])
    func many(announce: String) throws {
      let plan = try Mesh.Plan.strangers { plan in
        plan.client?.discovery["announce"] = announce
        // Each worker may ask by itself while there is no answer yet.
        plan.client?.workers = 1
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let plain = try Namespace("plain")
        defer { plain.close() }
        try Self.addAddresses(to: mesh, and: plain)
        let ports = try [mesh.server, plain].map { try $0.echoServer(port: 7000).port }
        #expect(ports == [7000, 7000])
        let addresses = (1...Self.count).flatMap { ["10.92.0.\($0)", "10.93.0.\($0)"] }
        for address in addresses {
          let outcome = try attempt("to \(address)", from: mesh.client, to: address, port: 7000)
          #expect(outcome == .answered)
        }
        let records = try proxy.waitForRecords(addresses.count, "outbound")
        for record in records {
          let isMesh = record["dst.addr"]?.hasPrefix("10.92.") == true
          #expect(record.security == (isMesh ? "mutual_tls" : "plaintext"))
        }
        let status = try proxy.status().discovery
        let asked = announce == "auto" ? 0 : Self.count
        #expect(status.probes == ["mesh": asked, "no_mesh_port": Self.count])
        #expect(status.meshAddresses == asked)
        #expect(status.noMeshAddresses == Self.count)
      }
    }

    /// 10.92.0.0/24 at the server, 10.93.0.0/24 in a namespace without a proxy.
    private static func addAddresses(to mesh: Mesh, and plain: Namespace) throws {
      func addresses(_ prefix: String) -> [String] { (1...count).map { "\(prefix).\($0)/32" } }
      try Namespace.join(
        mesh.client, plain, devices: ("eth1", "eth0"),
        addresses: (["10.90.2.1/24"], ["10.90.2.2/24"] + addresses("10.93.0")))
      try Program.check(
        ["ip", "-n", mesh.server.name, "-batch", "-"],
        input: addresses("10.92.0").map { "addr add \($0) dev eth0\n" }.joined())
      try mesh.client.check(["ip", "route", "add", "10.92.0.0/24", "via", Family.v4.server])
      try mesh.client.check(["ip", "route", "add", "10.93.0.0/24", "via", "10.90.2.2"])
    }
  }
}
