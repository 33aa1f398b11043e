import Foundation
import TestSupport
import Testing

extension InNamespaces {
  @Suite("connectionLifetime", .needsGRPC)
  struct Lifetime {
    /// Seconds of a certificate that ends during the test.
    private static let lifetime = 6

    /// Two proxies, one of which gets a certificate that ends soon, after the mesh is up.
    ///
    /// - Parameters:
    ///   - short: whose certificate it is.
    ///   - limited: who has `connectionLifetime: certificate`; nil: nobody.
    private static func run(
      short: Role, limited: Role?, _ body: (Mesh, _ end: Date) throws -> Void
    ) throws {
      let quick = try QuickMesh()
      let plan = try quick.plan {
        if limited == .client { $0.client?.workload["connectionLifetime"] = "certificate" }
        if limited == .server { $0.server?.workload["connectionLifetime"] = "certificate" }
      }
      try Mesh.run(plan) { mesh in
        let id = short == .client ? Identities.clientID : Identities.serverID
        let svid = try quick.authority.issueOne(id, to: lifetime)
        let end = Date(timeIntervalSinceNow: Double(lifetime))
        try mesh.proxy(short).reconfigure {
          ($0.certificate, $0.privateKey) = (
            svid.credential.certificate, svid.credential.privateKey
          )
        }
        try body(mesh, end)
      }
    }

    @Test(
      "An idle connection ends in order with the first certificate", arguments: Role.allCases,
      Role.allCases)
    func idle(short: Role, limited: Role) throws {
      try Self.run(short: short, limited: limited) { mesh, end in
        let listener = try mesh.server.listen()
        let stream = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        try stream.send("hello")
        let application = try listener.accept()
        #expect(try application.receiveText(exactly: 5) == "hello")
        try application.send("goodbye")
        #expect(try stream.receiveText(exactly: 7) == "goodbye")
        #expect(try stream.end() == .clean)
        let lateness = Date().timeIntervalSince(end)
        // At most a tenth of its time before; certificates count whole seconds.
        #expect(lateness < 0.5 && lateness > -2.5, "\(lateness)")
        #expect(try application.end() == .clean)
        let record = try mesh.proxy(limited).waitForRecord { $0.end == "lifetime_ended" }
        #expect(record.security == "mutual_tls")
      }
    }

    @Test("A busy connection ends when the certificate does", arguments: Role.allCases)
    func busy(limited: Role) throws {
      try Self.run(short: .server, limited: limited) { mesh, end in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        var isOpen = true
        while isOpen {
          try #require(Date() < end.addingTimeInterval(5), "it lives on")
          do {
            isOpen = try stream.exchange("busy")
          } catch {
            isOpen = false
          }
        }
        #expect(Date().timeIntervalSince(end) < 1.5)
        let record = try mesh.proxy(limited).waitForRecord { $0.end == "lifetime_ended" }
        #expect(record.security == "mutual_tls")
      }
    }

    @Test("An unlimited connection goes on", arguments: Role.allCases)
    func unlimited(short: Role) throws {
      try Self.run(short: short, limited: nil) { mesh, _ in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))
        try mesh.proxy(short).program.waitForError(containing: "has expired at")
        #expect(
          try attempt("new", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        #expect(try stream.exchange("after"))
      }
    }
  }
}
