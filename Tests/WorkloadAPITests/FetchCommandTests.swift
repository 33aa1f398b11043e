import Foundation
import TestSupport
import Testing
import WorkloadAPI

/// `culvert identity fetch`, the program, against gRPC's own implementation.
@Suite(.needsGRPC) struct TheFetchCommand {
  private static let authority = Result { try Authority(trustDomain: "demo.mesh") }

  /// An identity as an agent sends it.
  private struct Issued {
    let certificate: [UInt8]
    let key: [UInt8]
    let bundle: [UInt8]

    init(_ id: String) throws {
      let authority = try TheFetchCommand.authority.get()
      let credential = try authority.issue(LeafRequest(id))
      certificate = try Self.convert(["x509", "-in", credential.certificate])
      key = try Self.convert(["pkcs8", "-topk8", "-nocrypt", "-in", credential.privateKey])
      bundle = try Self.convert(["x509", "-in", authority.bundle])
    }

    private static func convert(_ arguments: [String]) throws -> [UInt8] {
      let directory = try TemporaryDirectory()
      let path = directory.path + "/der"
      try Program.check(["openssl"] + arguments + ["-outform", "DER", "-out", path])
      return contents(ofFile: path)
    }
  }

  private static let id = "spiffe://demo.mesh/ns/shop/sa/web"

  private func fetch(_ agent: GRPCAgent, _ flags: String...) throws -> Program.Outcome {
    try Program.run(
      [Machine.program("culvert"), "identity", "fetch", "--socket", agent.endpoint] + flags)
  }

  @Test func showsWhatCameAndThatItIsGood() throws {
    let issued = try Issued(Self.id)
    let agent = try GRPCAgent()
    try agent.send(
      Wire.svids(
        [
          Wire.svid(
            id: Self.id, certificates: issued.certificate, key: issued.key, bundle: issued.bundle,
            hint: "internal")
        ], federated: [("spiffe://partner.example", issued.bundle)]))
    let outcome = try fetch(agent)
    // The federated bundle is another trust domain's.
    #expect(outcome.exit == .code(1), "\(outcome.errors)")
    #expect(outcome.errors == "")
    let lines = outcome.output.split(separator: "\n").map(String.init)
    #expect(lines.first == "SVID        \(Self.id) (hint internal)")
    #expect(lines.contains("check       good"))
    #expect(lines.contains("bundle      demo.mesh: 1 authorities"))
    #expect(lines.contains("bundle      partner.example: 0 authorities"))
    #expect(outcome.output.contains("belongs to spiffe://demo.mesh, not to partner.example"))
    #expect(lines.last == "revocation  0 lists")
    #expect(agent.calls.first?.contains("FetchX509SVID") == true)
  }

  @Test func showsItAsJSONWithoutTheKey() throws {
    let issued = try Issued(Self.id)
    let agent = try GRPCAgent()
    try agent.send(
      Wire.svids([
        Wire.svid(
          id: Self.id, certificates: issued.certificate, key: issued.key, bundle: issued.bundle)
      ]))
    let outcome = try fetch(agent, "--json")
    #expect(outcome.exit == .code(0), "\(outcome.errors)")
    let object = try #require(
      try JSONSerialization.jsonObject(with: Data(outcome.output.utf8)) as? [String: Any])
    #expect(Set(object.keys) == ["svids", "bundles", "revocationLists"])
    let svid = try #require((object["svids"] as? [[String: Any]])?.first)
    #expect(Set(svid.keys) == ["id", "hint", "notAfter"])
    #expect(svid["id"] as? String == Self.id)
  }

  @Test func saysWhatIsWrongWithAnSVID() throws {
    let (issued, other) = (try Issued(Self.id), try Issued("spiffe://demo.mesh/other"))
    for (certificates, key, problem) in [
      (issued.certificate, other.key, "is not the key of the certificate"),
      (other.certificate, other.key, "the certificate names spiffe://demo.mesh/other"),
    ] {
      let agent = try GRPCAgent()
      try agent.send(
        Wire.svids([
          Wire.svid(id: Self.id, certificates: certificates, key: key, bundle: issued.bundle)
        ]))
      let outcome = try fetch(agent)
      #expect(outcome.exit == .code(1))
      #expect(outcome.output.contains(problem), "\(outcome.output)")
    }
  }

  @Test func asksForBundlesOnly() throws {
    let issued = try Issued(Self.id)
    let agent = try GRPCAgent()
    try agent.send(Wire.bundles([("spiffe://demo.mesh", issued.bundle)]))
    let outcome = try fetch(agent, "--bundles")
    #expect(outcome.exit == .code(0), "\(outcome.errors)")
    #expect(outcome.output == "bundle      demo.mesh: 1 authorities\nrevocation  0 lists\n")
    #expect(agent.calls.first?.contains("FetchX509Bundles") == true)
  }

  @Test func saysThatTheAgentRefuses() throws {
    let agent = try GRPCAgent()
    try agent.tell("fail PERMISSION_DENIED no identity issued")
    let outcome = try fetch(agent)
    #expect(outcome.exit == .code(2))
    #expect(outcome.output == "")
    #expect(
      outcome.errors.contains("permission_denied: PERMISSION_DENIED: no identity issued")
        || outcome.errors.contains("permission_denied: no identity issued"), "\(outcome.errors)")
    #expect(outcome.errors.count { $0 == "\n" } == 1)
  }

  @Test func saysThatAnAnswerIsNone() throws {
    let agent = try GRPCAgent()
    try agent.send([0xff, 0xff])
    let outcome = try fetch(agent)
    #expect(outcome.exit == .code(2))
    #expect(outcome.errors.contains("the answer cannot be used"), "\(outcome.errors)")
  }
}
