import ArgumentParser
internal import Glibc
import Netfilter

/// Installs, removes, shows and verifies the rules of a network namespace.
@main
struct CulvertInit: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-init",
    abstract: "Sends a network namespace's TCP to culvert-proxy with nftables rules.",
    discussion: """
      EXAMPLES
        culvert-init install --config /etc/culvert/culvert.yaml
        culvert-init install --netns web --exclude-outbound-ports 53,8125-8126
        culvert-init install --dry-run --block-udp
        culvert-init verify --config /etc/culvert/culvert.yaml
        culvert-init remove --netns web

      EXIT CODES
        0   done; verify: all is well
        1   it could not be done; the error says what to do
        2   verify, show: rules missing
        3   verify: rules incomplete
        4   verify: listener absent
        64  wrong usage
      """,
    subcommands: [Install.self, Remove.self, Show.self, Verify.self])
}

/// Exit codes that other programs rely on.
enum Exit {
  static let failure = ExitCode(1)
  static let rulesMissing = ExitCode(2)
  static let rulesIncomplete = ExitCode(3)
  static let listenerAbsent = ExitCode(4)
}

/// Prints one line to standard error and ends.
func fail(_ reason: some CustomStringConvertible, _ code: ExitCode = Exit.failure) -> ExitCode {
  let line = "culvert-init: \(reason)\n"
  _ = unsafe line.withCString { unsafe write(STDERR_FILENO, $0, strlen($0)) }
  return code
}

struct Namespace: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Work in this network namespace instead of the current one.", valueName: "name|path"))
  var netns: String?

  func enter() throws(NetfilterError) {
    if let netns { try NetworkNamespace.enter(netns) }
  }
}

struct Install: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Install the rules, or replace them at one moment.",
    discussion: """
      Running it again is harmless. Connections that the rules should have intercepted, but are \
      older than them, are closed.

      EXAMPLES
        culvert-init install --config culvert.yaml
        culvert-init install --include-inbound-ports 8080,9000-9099 --exclude-uids 0
        culvert-init install --config culvert.yaml --dry-run
      """)

  @OptionGroup var plan: PlanOptions
  @OptionGroup var namespace: Namespace

  @Flag(help: "Do not close connections older than the rules; the guard then stops them.")
  var keepConnections = false

  @Flag(help: "Print the rules as nft text and touch nothing.")
  var dryRun = false

  func run() throws {
    do {
      let plan = try plan.plan()
      if dryRun {
        print(Table(plan), terminator: "")
        return
      }
      try namespace.enter()
      try Interceptor.install(plan, keepsConnections: keepConnections)
    } catch let error as ExitCode {
      throw error
    } catch {
      throw fail("\(error)")
    }
  }
}

struct Remove: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Remove the rules.",
    discussion: """
      Connections that live by the rules are closed first: without the rules their bytes would \
      leave in plaintext. Without rules it does nothing.

      EXAMPLES
        culvert-init remove
        culvert-init remove --netns web
      """)

  @OptionGroup var namespace: Namespace

  @Flag(
    help:
      "Do not close connections that live by the rules. Their bytes may then leave in plaintext.")
  var keepConnections = false

  func run() throws {
    do {
      try namespace.enter()
      if try !Interceptor.remove(keepsConnections: keepConnections) {
        print("no rules are installed")
      }
    } catch {
      throw fail("\(error)")
    }
  }
}

struct Show: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Print the installed rules, as nft text or as JSON.",
    discussion: """
      EXAMPLES
        culvert-init show
        culvert-init show --netns web --json
      """)

  @OptionGroup var namespace: Namespace

  @Flag(help: "Print JSON: family, name and chains, whose rules are nft text.")
  var json = false

  func run() throws {
    let installed: InstalledTable?
    do {
      try namespace.enter()
      installed = try Interceptor.installed()
    } catch {
      throw fail("\(error)")
    }
    guard let installed else { throw fail("no rules are installed", Exit.rulesMissing) }
    print(json ? installed.table.json : installed.table.description, terminator: "")
    if let unknown = installed.unknown.first {
      throw fail("rules that culvert-init did not make are left out: \(unknown)")
    }
  }
}

struct Verify: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Check that the rules are complete and lead to the proxy.",
    discussion: """
      Give it the options the rules were installed with. It exits with 2 if the rules are missing, \
      3 if they are incomplete, 4 if nothing listens where they lead to, 1 if it cannot tell.

      EXAMPLES
        culvert-init verify --config culvert.yaml
        culvert-init verify --config culvert.yaml --rules-only
      """)

  @OptionGroup var plan: PlanOptions
  @OptionGroup var namespace: Namespace

  @Flag(help: "Check the rules only, not the listener: for use before the proxy runs.")
  var rulesOnly = false

  func run() throws {
    let failure: VerificationFailure?
    do {
      let plan = try plan.plan()
      try namespace.enter()
      var found = try Interceptor.verifyRules(plan)
      if found == nil, !rulesOnly { found = try Interceptor.probe(plan) }
      failure = found
    } catch let error as ExitCode {
      throw error
    } catch {
      throw fail("\(error)")
    }
    switch failure {
    case .rulesMissing?: throw fail("\(VerificationFailure.rulesMissing)", Exit.rulesMissing)
    case .rulesIncomplete(let differences)?:
      throw fail(VerificationFailure.rulesIncomplete(differences), Exit.rulesIncomplete)
    case let other?: throw fail(other, Exit.listenerAbsent)
    case nil: break
    }
  }
}
