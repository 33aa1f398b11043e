internal import ArgumentParser
internal import Configuration
internal import Identity
internal import Net

struct PolicyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy",
    abstract: "Explains what a configuration lets in, and takes over policies of other meshes.",
    discussion: """
      EXAMPLES
        culvert policy test --config db.yaml --from spiffe://demo.mesh/ns/shop/sa/web \\
                            --to 10.90.0.2:3306
        culvert policy import --namespace shop --labels app=db istio.yaml
      """,
    subcommands: [Test.self, PolicyImportCommand.self])

  /// `culvert policy test`.
  struct Test: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "test",
      abstract: "Say whether an inbound connection would be let in, rule by rule.",
      discussion: """
        Reads the configuration of the workload that is connected to; no proxy is asked. Each rule \
        of `authorization` is shown with its action and whether it matches, or the field that does \
        not hold. The SPIFFE ID is taken as proven if its trust domain can be.

        Exit codes: 0 it would be let in; 1 it would be refused; 2 nothing could be judged; 64 \
        wrong usage.

        EXAMPLES
          culvert policy test --config db.yaml --from spiffe://demo.mesh/ns/shop/sa/web \\
                              --to 10.90.0.2:3306
          culvert policy test --config db.yaml --from none --source 10.90.0.9 --to 10.90.0.2:9104
          culvert policy test --config db.yaml --from none --to '[fd00::2]:3306' --json
        """)

    @Option(help: ArgumentHelp("The configuration of the workload.", valueName: "file"))
    var config: String

    @Option(
      help: ArgumentHelp(
        "Who connects: a SPIFFE ID, or none for plaintext and the application's own TLS.",
        valueName: "id"))
    var from: String

    @Option(
      help: ArgumentHelp(
        "Where from; needed if a rule looks at it.", valueName: "address"))
    var source: String?

    @Option(help: ArgumentHelp("The destination: ADDRESS:PORT, [ADDRESS]:PORT.", valueName: "to"))
    var to: String

    @Flag(
      help: """
        Print one JSON object: allowed, verdict, rule, audited, from, source, to, mode, plaintext, \
        rules.
        """)
    var json = false

    func run() throws {
      let judgement: PolicyJudgement
      do {
        judgement = try PolicyJudgement(
          settings: try Settings.load(path: config), from: try principal(), source: try address(),
          to: try destination())
      } catch {
        Output.fail("\(error)")
        throw ExitCode(2)
      }
      print(json ? Output.json(judgement) + "\n" : PolicyText.text(judgement), terminator: "")
      if !judgement.allowed { throw ExitCode.failure }
    }

    /// nil for `none`.
    private func principal() throws(CommandError) -> SPIFFEID? {
      if from == "none" { return nil }
      let id: SPIFFEID
      do throws(SPIFFEIDError) { id = try SPIFFEID(from) } catch {
        throw CommandError("--from: neither \"none\" nor a SPIFFE ID: \(error.rawValue)")
      }
      guard !id.path.isEmpty else {
        throw CommandError("--from: names a trust domain, not a workload: it has no path")
      }
      return id
    }

    private func address() throws(CommandError) -> IPAddress? {
      guard let source else { return nil }
      guard let address = IPAddress(source) else {
        throw CommandError("--source: not an IP address")
      }
      return address
    }

    private func destination() throws(CommandError) -> SocketAddress {
      guard let destination = SocketAddress(to) else {
        throw CommandError("--to: expected ADDRESS:PORT, IPv6 in brackets")
      }
      return destination
    }
  }
}
