internal import ArgumentParser
internal import Control

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Shows what a running culvert-proxy does.",
    discussion: """
      Asks the proxy on its admin socket: the configuration in force, listeners, modes, identity \
      and its expiry, and connections by how they are secured. Run it as the proxy's user.

      Exit codes: 0 the proxy answered; 1 it did not, with one line on standard error; 64 wrong \
      usage.

      EXAMPLES
        culvert status
        culvert status --admin-socket /run/culvert/web.sock
        culvert status --json | jq .identity.expiresInSeconds
      """)

  @Flag(help: "Print one JSON object, with sorted keys, in one line.")
  var json = false

  @Option(help: "The proxy's admin.socket.")
  var adminSocket = "/run/culvert/admin.sock"

  func run() throws {
    do throws(LoadError) {
      let report = try AdminClient.status(at: adminSocket)
      print(json ? Output.json(report) + "\n" : StatusText.text(report), terminator: "")
    } catch {
      Output.fail(error.description)
      throw ExitCode.failure
    }
  }
}
