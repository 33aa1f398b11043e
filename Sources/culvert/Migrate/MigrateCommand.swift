internal import ArgumentParser
internal import Control

struct MigrateCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate",
    abstract: "Says what would break if a namespace switched to strict now.",
    discussion: """
      A running culvert-proxy keeps in mind who was really seen without mesh mTLS since it started, \
      in both directions: clients in plaintext, with TLS of their own, or silent while the \
      application spoke first; and servers that were spoken to in plaintext. Shown is whom it would \
      refuse with strict in the place of permissive and auto; what a rule, a peer entry or a \
      declared probe lets pass is shown with --all.

      The switch is one field, inbound.mode or outbound.mode, and counts for new connections as \
      soon as the file is saved. --enforce then ends the live ones that would not be let in any \
      more.

      Exit codes: 0 nothing would break; 1 the proxy did not answer; 2 somebody would be refused, \
      or the proxy has not run for as long as --since asks; 64 wrong usage.

      EXAMPLES
        culvert migrate
        culvert migrate --since 86400 && echo "a day without plaintext"
        culvert migrate --json | jq '.entries[] | select(.breaks)'
        sed -i 's/mode: permissive/mode: strict/' db.yaml && culvert migrate --enforce
      """)

  @Option(help: "The proxy's admin.socket.")
  var adminSocket = "/run/culvert/admin.sock"

  @Option(help: ArgumentHelp("Only what was seen in so many seconds.", valueName: "seconds"))
  var since: Int64?

  @Flag(help: "Show what would go on as well.")
  var all = false

  @Flag(help: "End live connections that the configuration in force would not let in.")
  var enforce = false

  @Flag(help: "Print one JSON object; every entry says whether it breaks.")
  var json = false

  func validate() throws {
    if let since, since < 0 { throw ValidationError("--since is a number of seconds from 0") }
    if enforce, since != nil || all || json {
      throw ValidationError("--enforce goes alone")
    }
  }

  func run() throws {
    var report: MigrationReport
    do throws(LoadError) {
      if enforce {
        _ = try AdminClient.ask(AdminRequest(.enforce), at: adminSocket)
        return print("live connections that would not be let in now are ended")
      }
      report = try AdminClient.migration(at: adminSocket)
    } catch {
      Output.fail(error.description)
      throw ExitCode.failure
    }
    if let since { report.keepWhatWasSeen(inSeconds: since) }
    print(json ? Output.json(report) + "\n" : MigrateText.text(report, all: all), terminator: "")
    let isTooYoung = since.map { $0 > report.uptimeSeconds } ?? false
    if isTooYoung {
      Output.fail("the proxy started \(report.uptimeSeconds) s ago, and has seen no more than that")
    }
    if report.somethingBreaks || isTooYoung { throw ExitCode(2) }
  }
}

extension MigrationReport {
  mutating func keepWhatWasSeen(inSeconds seconds: Int64) {
    entries.removeAll { $0.secondsAgo > seconds }
    if withoutEntrySecondsAgo ?? .max > seconds { withoutEntry = 0 }
  }

  /// What was counted without its address may be anybody.
  var somethingBreaks: Bool { withoutEntry > 0 || entries.contains(where: \.breaks) }
}
