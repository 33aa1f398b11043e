internal import ArgumentParser
internal import Control

extension IdentityCommand {
  /// `culvert identity fetch`.
  struct Fetch: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "fetch",
      abstract: "Ask a SPIFFE Workload API once, as the proxy would.",
      discussion: """
        Calls FetchX509SVID, or with --bundles FetchX509Bundles, waits for the first answer and \
        shows what it holds; every SVID is checked against its bundle. Private keys are received, \
        checked and forgotten; they are never shown or written. The agent sees this command as the \
        workload: it attests its user and its process, not the proxy's.

        Exit codes: 0 an answer came and everything in it is usable; 1 it is not; 2 none came.

        EXAMPLES
          culvert identity fetch
          culvert identity fetch --socket unix:///run/spire/agent.sock --json
          culvert identity fetch --bundles --socket tcp://127.0.0.1:8081
        """)

    @Option(help: "unix:///PATH or tcp://IP:PORT (default: what SPIFFE_ENDPOINT_SOCKET names).")
    var socket: String?

    @Flag(help: "Ask for bundles only.")
    var bundles = false

    @Flag(help: "Print one JSON object: svids, bundles, revocationLists.")
    var json = false

    @Option(help: "How long to wait for the answer.")
    var timeoutMilliseconds = 10_000

    func validate() throws {
      guard (1...600_000).contains(timeoutMilliseconds) else {
        throw ValidationError("--timeout-milliseconds is a number from 1 to 600000")
      }
    }

    func run() throws {
      let answer: FetchedIdentity
      do throws(LoadError) {
        answer = try FetchedIdentity.fetch(
          socket: socket, bundlesOnly: bundles, timeoutMilliseconds: timeoutMilliseconds)
      } catch {
        Output.fail(error.description)
        throw ExitCode(2)
      }
      print(json ? Output.json(answer) + "\n" : Self.text(answer), terminator: "")
      if !answer.isUsable { throw ExitCode.failure }
    }

    private static func text(_ answer: FetchedIdentity) -> String {
      var rows: [(String, String)] = []
      for svid in answer.svids {
        let hint = svid.hint.isEmpty ? "" : " (hint \(svid.hint))"
        rows.append(("SVID", svid.id + hint))
        rows.append(("expires", svid.notAfter ?? "unknown"))
        rows.append(("check", svid.problem ?? "good"))
      }
      for bundle in answer.bundles {
        rows.append(("bundle", "\(bundle.trustDomain): \(bundle.authorities) authorities"))
        if let problem = bundle.problem { rows.append(("check", problem)) }
      }
      rows.append(("revocation", "\(answer.revocationLists) lists"))
      return Output.columns(rows)
    }
  }
}
