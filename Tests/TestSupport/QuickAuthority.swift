internal import Foundation

/// An X.509-SVID in every form that a source may want it in.
package struct IssuedSVID: Sendable {
  package let credential: Credential
  /// Hexadecimal, in capitals, as `openssl x509 -serial` prints it.
  package let serial: String
  /// Where its files are, less their endings.
  private let base: String

  init(base: String, serial: String, identity: String) {
    self.base = base
    self.serial = serial
    credential = Credential(
      certificate: base + ".pem", privateKey: base + ".key", identity: identity)
  }

  package var certificatePEM: String {
    String(decoding: contents(ofFile: base + ".pem"), as: UTF8.self)
  }
  package var privateKeyPEM: String {
    String(decoding: contents(ofFile: base + ".key"), as: UTF8.self)
  }
  package var certificateDER: [UInt8] { contents(ofFile: base + ".der") }
  /// PKCS #8.
  package var privateKeyDER: [UInt8] { contents(ofFile: base + ".p8") }
  /// The private key itself, 32 bytes.
  package var scalar: [UInt8] { contents(ofFile: base + ".scalar") }

  /// As an entry of a Workload API's message.
  package func entry(_ authority: QuickAuthority) -> [UInt8] {
    Wire.svid(
      id: credential.identity, certificates: certificateDER, key: privateKeyDER,
      bundle: authority.bundleDER)
  }
}

/// A certification authority whose certificates live for seconds, and which makes many at once.
package final class QuickAuthority: Sendable {
  package let trustDomain: String
  /// PEM of the root.
  package let bundle: String
  private let directory: TemporaryDirectory
  private let program: Program
  private let lock = Box(1)

  package init(trustDomain: String) throws {
    self.trustDomain = trustDomain
    directory = try TemporaryDirectory()
    bundle = directory.path + "/ca.pem"
    program = try Program([
      try Python.path, Python.script("issuer"), directory.path, trustDomain,
    ])
    try program.waitForOutput(containing: "ready")
  }

  package var bundleDER: [UInt8] { contents(ofFile: directory.path + "/ca.der") }

  /// Certificates that are valid from and to some seconds from now.
  package func issue(
    _ identity: String, count: Int = 1, from: Int = -60, to: Int = 3600
  ) throws -> [IssuedSVID] {
    try lock.update { number in
      let request = Request(
        do: "issue", name: "svid\(number)", uri: identity, from: from, to: to, count: count)
      return try ask(request, number: &number).enumerated().map { index, serial in
        IssuedSVID(
          base: "\(directory.path)/\(request.name)-\(index)", serial: serial, identity: identity)
      }
    }
  }

  /// One certificate.
  package func issueOne(_ identity: String, from: Int = -60, to: Int = 3600) throws -> IssuedSVID {
    try issue(identity, from: from, to: to)[0]
  }

  /// A list of what is revoked; returns its file. The same name replaces it in one step.
  package func revoke(
    _ revoked: [IssuedSVID], name: String = "revoked", from: Int = -60, to: Int = 3600
  ) throws -> String {
    try lock.update { number in
      let request = Request(
        do: "crl", name: name, from: from, to: to, serials: revoked.map(\.serial))
      _ = try ask(request, number: &number)
      return "\(directory.path)/\(name).crl"
    }
  }

  private func ask(_ request: Request, number: inout Int) throws -> [String] {
    let seen = program.output.lines.count
    program.write(String(decoding: try JSONEncoder().encode(request), as: UTF8.self) + "\n")
    guard let line = program.output.wait(after: seen, for: { $0.hasPrefix("{") }) else {
      throw Trouble("the authority said nothing\n\(program.transcript)")
    }
    number += 1
    return try JSONDecoder().decode(Answer.self, from: Data(line.utf8)).serials
  }

  private struct Request: Encodable {
    var `do`: String
    var name: String
    var uri: String?
    var from: Int
    var to: Int
    var count: Int?
    var serials: [String]?
  }

  private struct Answer: Decodable {
    let serials: [String]
  }
}

extension GRPCAgent {
  /// Gives one SVID to everybody, with its authority's bundle.
  package func give(
    _ svid: IssuedSVID, of authority: QuickAuthority, federated: [QuickAuthority] = []
  ) throws {
    try send(
      Wire.svids(
        [svid.entry(authority)],
        federated: federated.map { ("spiffe://\($0.trustDomain)", $0.bundleDER) }))
  }

  /// `workload.identity` of a proxy that asks this agent.
  package func identity(startupDeadlineMilliseconds: Int? = nil) -> String {
    let deadline = startupDeadlineMilliseconds.map { ", startupDeadlineMilliseconds: \($0)" } ?? ""
    return "{ workloadAPI: { socket: \"\(endpoint)\" }\(deadline) }"
  }
}
