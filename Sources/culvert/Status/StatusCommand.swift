internal import ArgumentParser
internal import Control

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status",
    abstract: "Shows what a running culvert-proxy does.",
    discussion: """
      Asks the proxy on its admin socket: the configuration in force, listeners, modes, identity \
      and its expiry, and connections by how they are secured. Run it as the proxy's user.

      With --wait it returns once the proxy answers, is not draining and has an identity: what a \
      container's postStart hook, or a unit ordered behind the proxy, waits for.

      Exit codes: 0 the proxy answered; 1 it did not, or was not ready in time, with one line on \
      standard error; 64 wrong usage.

      EXAMPLES
        culvert status
        culvert status --admin-socket /run/culvert/web.sock
        culvert status --wait 30 && exec some-application
        culvert status --json | jq .identity.expiresInSeconds
      """)

  @Flag(help: "Print one JSON object, with sorted keys, in one line.")
  var json = false

  @Option(help: "The proxy's admin.socket.")
  var adminSocket = "/run/culvert/admin.sock"

  @Option(
    help: ArgumentHelp("Wait so many seconds until the proxy is ready.", valueName: "seconds"))
  var wait: Int?

  func validate() throws {
    if let wait, !(0...86_400).contains(wait) {
      throw ValidationError("--wait is a number of seconds from 0 to 86400")
    }
  }

  func run() throws {
    do throws(LoadError) {
      let report =
        if let wait { try AdminClient.readyStatus(at: adminSocket, withinSeconds: wait) } else {
          try AdminClient.status(at: adminSocket)
        }
      print(json ? Output.json(report) + "\n" : StatusText.text(report), terminator: "")
    } catch {
      Output.fail(error.description)
      throw ExitCode.failure
    }
  }
}
