internal import ArgumentParser
internal import Control
internal import Identity
internal import TLS

extension IdentityCommand {
  /// `culvert identity verify`.
  struct Verify: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "verify",
      abstract: "Say whether a peer with these certificates would be accepted, and why not.",
      discussion: """
        Checks a PEM file, the leaf first and then its intermediates, by everything the proxy checks \
        in a handshake: the SPIFFE profile of the leaf, the bundle of its own trust domain, the path \
        (RFC 5280) and revocation lists. The bundles are those of a running proxy, or of the files \
        that a configuration names; of a configuration, endpoints are not asked.

        Exit codes: 0 it would be accepted; 1 it would be refused; 2 nothing could be checked.

        EXAMPLES
          culvert identity verify peer.pem
          culvert identity verify --config /etc/culvert/web.yaml peer.pem
          culvert identity verify --expect spiffe://demo.mesh/ns/shop/sa/db peer.pem --json
        """)

    @Argument(
      help: ArgumentHelp("The peer's certificates (PEM), the leaf first.", valueName: "file"))
    var peer: String

    @Option(help: "Take the bundles that this configuration names.")
    var config: String?

    @Option(help: "Take the bundles of the proxy at this admin.socket (the default).")
    var adminSocket: String?

    @Option(help: "The SPIFFE ID that is expected; may be repeated.")
    var expect: [String] = []

    @Flag(help: "Print one JSON object: accepted, id, refusal, detail.")
    var json = false

    func validate() throws {
      guard config == nil || adminSocket == nil else {
        throw ValidationError("--config and --admin-socket exclude each other")
      }
    }

    func run() throws {
      let verdict: PeerVerdict
      do {
        let bundles = try loadBundles()
        let expected = try expect.map { text in
          do throws(SPIFFEIDError) { return try SPIFFEID(text) } catch {
            throw CommandError("--expect: not a SPIFFE ID: \(error.rawValue)")
          }
        }
        verdict = try PeerVerdict(pem: peer, bundles: bundles, expect: expected)
      } catch {
        Output.fail("\(error)")
        throw ExitCode(2)
      }
      print(json ? Output.json(Answer(verdict)) : Self.text(verdict))
      if verdict.refusal != nil { throw ExitCode.failure }
    }

    private func loadBundles() throws -> [TrustBundle] {
      if let config { return try TrustedBundles.load(configuration: config) }
      return try TrustedBundles.load(
        adminSocket: adminSocket ?? "/run/culvert/admin.sock")
    }

    private static func text(_ verdict: PeerVerdict) -> String {
      guard let refusal = verdict.refusal else {
        return "accepted: \(Output.printable(verdict.id?.description ?? ""))"
      }
      let detail = verdict.detail.isEmpty ? "" : ": \(Output.printable(verdict.detail))"
      return "refused: \(refusal.rawValue)\(detail)"
    }

    private struct Answer: Encodable {
      let accepted: Bool
      let id: String?
      let refusal: String?
      let detail: String?

      init(_ verdict: PeerVerdict) {
        accepted = verdict.refusal == nil
        id = verdict.id?.description
        refusal = verdict.refusal?.rawValue
        detail = verdict.detail.isEmpty ? nil : verdict.detail
      }
    }
  }
}
