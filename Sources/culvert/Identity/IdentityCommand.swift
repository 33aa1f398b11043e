internal import ArgumentParser
internal import Control

struct IdentityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "identity",
    abstract: "Shows and checks X.509-SVIDs and trust bundles.",
    discussion: """
      EXAMPLES
        culvert identity show
        culvert identity show --pem > own-chain.pem
        culvert identity verify peer.pem
        culvert identity verify --config /etc/culvert/web.yaml peer.pem
        culvert identity fetch --socket unix:///run/spire/agent.sock
      """,
    subcommands: [Show.self, Verify.self, Fetch.self])

  /// `culvert identity show`.
  struct Show: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "show",
      abstract: "Show a running proxy's SVID and the bundles it trusts.",
      discussion: """
        Asks the proxy on its admin socket. Nothing secret is shown: the private key never leaves \
        the proxy.

        Exit codes: 0 the identity is ready; 1 it is not, or the proxy did not answer.
        """)

    @Flag(
      help: "Print one JSON object, with sorted keys, in one line; certificates in base64 (DER).")
    var json = false

    @Flag(help: "Print the own certificates as PEM, the leaf first.")
    var pem = false

    @Option(help: "The proxy's admin.socket.")
    var adminSocket = "/run/culvert/admin.sock"

    func validate() throws {
      guard !(json && pem) else { throw ValidationError("--json and --pem exclude each other") }
    }

    func run() throws {
      let report: IdentityReport
      do throws(LoadError) {
        report = try AdminClient.identity(at: adminSocket)
      } catch {
        Output.fail(error.description)
        throw ExitCode.failure
      }
      if pem {
        print(report.chain.map(PEMText.certificate).joined(), terminator: "")
      } else {
        print(json ? Output.json(report) + "\n" : IdentityText.text(report), terminator: "")
      }
      if report.identity.state != "ready" { throw ExitCode.failure }
    }
  }
}
