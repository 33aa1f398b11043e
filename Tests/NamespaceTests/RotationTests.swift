import Foundation
import TestSupport
import Testing

/// How the two files of an SVID are replaced.
enum Replacement: String, CaseIterable, Sendable {
  case rename = "each file renamed"
  case symlink = "the directory's symlink swapped, as in a projected volume"
}

/// The place of an SVID's files.
struct SVIDPlace {
  let directory: TemporaryDirectory
  let replacement: Replacement
  let credential: Credential
  private let number = Box(0)

  init(_ replacement: Replacement, _ svid: IssuedSVID) throws {
    directory = try TemporaryDirectory()
    self.replacement = replacement
    credential = Credential(
      certificate: directory.path + "/svid.pem", privateKey: directory.path + "/svid.key",
      identity: svid.credential.identity)
    if replacement == .symlink {
      for name in ["svid.pem", "svid.key"] {
        try FileManager.default.createSymbolicLink(
          atPath: "\(directory.path)/\(name)", withDestinationPath: "..data/\(name)")
      }
    }
    try replace(with: svid)
  }

  func replace(with svid: IssuedSVID) throws {
    switch replacement {
    case .rename:
      try directory.write(svid.privateKeyPEM, to: "svid.key", mode: 0o600)
      try directory.write(svid.certificatePEM, to: "svid.pem")
    case .symlink:
      let next = number.update {
        $0 += 1
        return $0
      }
      try directory.makeDirectory("..\(next)")
      try directory.write(svid.privateKeyPEM, to: "..\(next)/svid.key", mode: 0o600)
      try directory.write(svid.certificatePEM, to: "..\(next)/svid.pem")
      let staged = directory.path + "/..data_tmp"
      try FileManager.default.createSymbolicLink(
        atPath: staged, withDestinationPath: "..\(next)")
      guard unsafe rename(staged, directory.path + "/..data") == 0 else {
        throw Trouble("cannot swap ..data")
      }
      try? FileManager.default.removeItem(atPath: "\(directory.path)/..\(next - 1)")
    }
  }

  /// Writes into the files as they are, not in one step.
  func overwrite(certificate: String? = nil, privateKey: String? = nil) throws {
    for (path, text) in [
      (credential.certificate, certificate), (credential.privateKey, privateKey),
    ] {
      guard let text else { continue }
      let file = try #require(FileHandle(forWritingAtPath: path))
      try file.truncate(atOffset: 0)
      try file.write(contentsOf: Data(text.utf8))
      try file.close()
    }
  }
}

/// Two proxies whose identities come from an authority of their own.
struct QuickMesh {
  let authority: QuickAuthority

  init() throws { authority = try QuickAuthority(trustDomain: "demo.mesh") }

  /// nil: an SVID that is good for an hour.
  func plan(
    client: Credential? = nil, server: Credential? = nil,
    change: (inout Mesh.Plan) throws -> Void = { _ in }
  ) throws -> Mesh.Plan {
    let bundles = [authority.trustDomain: authority.bundle]
    return try .standard { plan in
      plan.client = ProxyConfiguration(
        try client ?? authority.issueOne(Identities.clientID).credential, trusting: bundles)
      plan.client?.peers = Family.allCases.map { ($0.range($0.server), Identities.serverID) }
      plan.server = ProxyConfiguration(
        try server ?? authority.issueOne(Identities.serverID).credential, trusting: bundles)
      try change(&plan)
    }
  }

  /// The serial number of the certificate that a new handshake is shown.
  static func presentedSerial(in mesh: Mesh, by credential: Credential, port: UInt16) throws
    -> String
  {
    let outsider = try #require(mesh.outsider)
    let shown = try outsider.run(
      [
        "openssl", "s_client", "-connect", "\(Family.v4.serverForOutsider):\(port)", "-tls1_3",
        "-alpn", "culvert/1", "-cert", credential.certificate, "-key", credential.privateKey,
      ])
    let parsed = try Program.check(["openssl", "x509", "-noout", "-serial"], input: shown.output)
    return parsed.replacingOccurrences(of: "serial=", with: "")
      .trimmingCharacters(in: .whitespacesAndNewlines)
  }
}

extension Proxy {
  /// Waits until a pair is in force, by its number.
  func waitForSVID(_ epoch: Int, seconds: Double = patience) throws {
    try program.waitForError(containing: ", SVID \(epoch), trust ", seconds: seconds)
    // The log tells of it a moment before it is in force; whoever answers has done that, too.
    _ = try status()
  }

  /// Refusals so far, whatever the reason.
  func refusedCount() throws -> Int { try status().connections.refused.values.reduce(0, +) }
}

extension InNamespaces {
  @Suite("Rotation", .needsGRPC)
  struct Rotation {
    @Test("1,000 rotations pass unnoticed by 200 live connections and all new ones")
    func thousand() throws {
      let quick = try QuickMesh()
      let svids = try quick.authority.issue(Identities.serverID, count: 1000)
      let own = try quick.authority.issueOne(Identities.serverID)
      let (agent, probe) = (try GRPCAgent(), try quick.authority.issueOne(Identities.clientID))
      try agent.give(own, of: quick.authority)
      let plan = try quick.plan { plan in
        plan.server?.identity = agent.identity()
        plan.server?.trustBundles = [:]
        plan.hasOutsider = true
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        try server.waitForSVID(1)
        let echo = try mesh.server.echoServer()
        let live = try LiveConnections(200, from: mesh.client, port: echo.port)
        for (index, svid) in svids.enumerated() {
          try agent.give(svid, of: quick.authority)
          let line = server.program.errors.wait(after: max(0, index - 5)) {
            $0.contains(", SVID \(index + 2), trust 1: ")
          }
          try #require(line != nil, "SVID \(index + 2) did not come")
        }
        try live.waitForRound()

        let last = try quick.authority.issueOne(Identities.serverID)
        let port = echo.port
        #expect(
          try QuickMesh.presentedSerial(in: mesh, by: probe.credential, port: port)
            == svids[999].serial)
        let given = Date()
        try agent.give(last, of: quick.authority)
        try Self.waitForPresented(last, in: mesh, by: probe.credential, port: port)
        #expect(Date().timeIntervalSince(given) < 1)

        let opened = live.openedCount
        #expect(live.finish() == [])
        #expect(opened > 100, "\(opened)")
        let status = try server.status()
        #expect(status.identity.svidEpoch == 1002)
        #expect(status.identity.trustEpoch == 1)
        #expect(status.identity.rotations == 1001)
        #expect(try server.metric("culvert_identity_rotations_total") == 1001)
        for proxy in [client, server] { #expect(try proxy.refusedCount() == 0) }
      }
    }

    @Test(
      "Files are replaced under live connections, by both proxies", arguments: Replacement.allCases)
    func files(_ replacement: Replacement) throws {
      let quick = try QuickMesh()
      let turns = 15
      let clients = try quick.authority.issue(Identities.clientID, count: turns + 1)
      let servers = try quick.authority.issue(Identities.serverID, count: turns + 1)
      let clientPlace = try SVIDPlace(replacement, clients[0])
      let serverPlace = try SVIDPlace(replacement, servers[0])
      let probe = try quick.authority.issueOne(Identities.clientID).credential
      let plan = try quick.plan(client: clientPlace.credential, server: serverPlace.credential) {
        $0.hasOutsider = true
      }
      try Mesh.run(plan) { mesh in
        let (client, server) = (try #require(mesh.clientProxy), try #require(mesh.serverProxy))
        let echo = try mesh.server.echoServer()
        let live = try LiveConnections(40, from: mesh.client, port: echo.port)
        for turn in 1...turns {
          try clientPlace.replace(with: clients[turn])
          try serverPlace.replace(with: servers[turn])
          try client.waitForSVID(turn + 1)
          try server.waitForSVID(turn + 1)
          try Self.waitForPresented(servers[turn], in: mesh, by: probe, port: echo.port)
        }
        try live.waitForRound()
        let last = try quick.authority.issueOne(Identities.serverID)
        let given = Date()
        try serverPlace.replace(with: last)
        try Self.waitForPresented(last, in: mesh, by: probe, port: echo.port)
        #expect(Date().timeIntervalSince(given) < 1)
        #expect(live.finish() == [])
        for proxy in [client, server] {
          #expect(try proxy.refusedCount() == 0)
          #expect(try proxy.status().identity.trustEpoch == 1)
        }
      }
    }

    private static func waitForPresented(
      _ svid: IssuedSVID, in mesh: Mesh, by credential: Credential, port: UInt16
    ) throws {
      try eventually("the new SVID is presented", seconds: 1) {
        try QuickMesh.presentedSerial(in: mesh, by: credential, port: port) == svid.serial
      }
    }

    enum Half: String, CaseIterable, Sendable {
      case truncated = "a truncated certificate"
      case emptied = "an emptied certificate"
      case foreignKey = "the key of another pair"
      case noKey = "a truncated key"
    }

    @Test("What is half written leaves the last good one", arguments: Half.allCases)
    func halfWritten(_ half: Half) throws {
      let quick = try QuickMesh()
      let svids = try quick.authority.issue(Identities.serverID, count: 2)
      let place = try SVIDPlace(.rename, svids[0])
      let probe = try quick.authority.issueOne(Identities.clientID).credential
      let plan = try quick.plan(server: place.credential) { $0.hasOutsider = true }
      try Mesh.run(plan) { mesh in
        let server = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let live = try LiveConnections(8, from: mesh.client, port: echo.port)
        let next = svids[1]
        switch half {
        case .truncated: try place.overwrite(certificate: String(next.certificatePEM.prefix(200)))
        case .emptied: try place.overwrite(certificate: "")
        case .foreignKey: try place.overwrite(privateKey: next.privateKeyPEM)
        case .noKey: try place.overwrite(privateKey: String(next.privateKeyPEM.prefix(100)))
        }
        try server.program.waitForError(containing: "configuration not loaded")
        #expect(
          try QuickMesh.presentedSerial(in: mesh, by: probe, port: echo.port) == svids[0].serial)
        try live.waitForRound()
        #expect(try server.status().identity.svidEpoch == 1)

        try place.overwrite(certificate: next.certificatePEM, privateKey: next.privateKeyPEM)
        try server.waitForSVID(2)
        try Self.waitForPresented(next, in: mesh, by: probe, port: echo.port)
        #expect(live.finish() == [])
        #expect(try server.refusedCount() == 0)
      }
    }
  }
}
