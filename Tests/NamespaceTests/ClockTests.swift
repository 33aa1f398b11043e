import Foundation
import TestSupport
import Testing

/// An hour, either way.
enum Skew: String, CaseIterable, Sendable {
  case ahead = "+1h"
  case behind = "-1h"

  /// Why a certificate that is good by the right clock is refused.
  var word: String {
    self == .ahead ? "certificate_expired" : "certificate_not_yet_valid"
  }

  /// The environment of a program whose wall clock is wrong, and whose timers are right.
  func environment(_ library: String) -> [String: String] {
    Self.environment(library, rawValue)
  }

  static func environment(_ library: String, _ offset: String) -> [String: String] {
    ["LD_PRELOAD": library, "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"]
  }
}

extension InNamespaces {
  @Suite(
    "A wrong clock", .needsGRPC, .enabled(if: Machine.faketimeLibrary != nil, "needs faketime"))
  struct WrongClock {
    /// Good by every clock.
    private static let wide = (from: -7200, to: 7200)
    /// Good now, but not an hour earlier or later.
    private static let narrow = (from: -600, to: 600)

    @Test(
      "An hour ahead or behind refuses the peer, by name", arguments: Skew.allCases, Role.allCases)
    func skewed(_ skew: Skew, wrong: Role) throws {
      let library = try #require(Machine.faketimeLibrary)
      let quick = try QuickMesh()
      let (client, server) = wrong == .client ? (Self.wide, Self.narrow) : (Self.narrow, Self.wide)
      let clientSVID = try quick.authority.issueOne(
        Identities.clientID, from: client.from, to: client.to)
      let serverSVID = try quick.authority.issueOne(
        Identities.serverID, from: server.from, to: server.to)
      // With the right time the same certificates are good.
      for offset in ["+0", skew.rawValue] {
        let plan = try quick.plan(client: clientSVID.credential, server: serverSVID.credential) {
          let environment = Skew.environment(library, offset)
          if wrong == .client { $0.client?.environment = environment }
          if wrong == .server { $0.server?.environment = environment }
        }
        try Mesh.run(plan) { mesh in
          let echo = try mesh.server.echoServer()
          let outcome = try attempt(
            "hello", from: mesh.client, to: Family.v4.server, port: echo.port)
          #expect(outcome == (offset == "+0" ? .answered : .refused), "\(offset)")
          guard offset != "+0" else { return }
          let refusal = try mesh.proxy(wrong).waitForRefusal(skew.word)
          #expect(refusal.direction == (wrong == .client ? "outbound" : "inbound"))
          #expect(echo.received.isEmpty)
        }
      }
    }

    @Test("An own certificate that is not good by the own clock is an error at the start")
    func ownCertificate() throws {
      let library = try #require(Machine.faketimeLibrary)
      let quick = try QuickMesh()
      let svid = try quick.authority.issueOne(
        Identities.serverID, from: Self.narrow.from, to: Self.narrow.to)
      let directory = try TemporaryDirectory()
      let configuration = ProxyConfiguration(
        svid.credential, trusting: ["demo.mesh": quick.authority.bundle])
      let path = try directory.write(
        configuration.yaml(adminSocket: directory.path + "/admin.sock"), to: "culvert.yaml")
      for (offset, word) in [
        ("+0", nil), ("+1h", "certificate_expired"), ("-1h", "certificate_not_yet_valid"),
      ] {
        let namespace = try Namespace("alone")
        defer { namespace.close() }
        let program = try namespace.start(
          [Machine.program("culvert-proxy"), "--config", path],
          environment: Skew.environment(library, offset))
        guard let word else {
          try program.waitForError(containing: "culvert-proxy: ready")
          continue
        }
        let outcome = try program.wait()
        #expect(!outcome.succeeded)
        #expect(outcome.errors.contains(svid.credential.certificate), "\(outcome.errors)")
        #expect(outcome.errors.contains(word), "\(outcome.errors)")
        #expect(try namespace.listeners().isEmpty)
      }
    }
  }
}
