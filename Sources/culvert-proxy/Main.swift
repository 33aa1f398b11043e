internal import ArgumentParser
internal import Configuration
internal import Control
internal import Glibc
internal import TLS

@main
struct CulvertProxy: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-proxy",
    abstract:
      "Gives a network namespace mutual TLS: takes its redirected connections and relays them.",
    discussion: """
      Runs inside the namespace it serves, in the foreground, as root or with CAP_NET_ADMIN. \
      Install the rules with culvert-init once it says "ready". Connections are logged on standard \
      output, everything else on standard error. SIGHUP or a changed file reloads; SIGTERM drains.

      EXAMPLES
        culvert-proxy --config /etc/culvert/web.yaml
        ip netns exec web culvert-proxy --config web.yaml
        culvert-proxy --config web.yaml --check
      """,
    version: Culvert.version)

  @Option(help: "The configuration file (YAML), see Docs/CONFIGURATION.md.")
  var config: String

  @Flag(help: "Read the configuration and every file it names, say what is wrong, and exit.")
  var check = false

  func run() throws {
    try OpenSSLMemory.cleanseWhatIsFreed()
    do throws(LoadError) {
      if check { return try checkOnly() }
      var loop = try ControlLoop(path: config)
      loop.run()
    } catch {
      Diagnostics.write(error.description)
      throw ExitCode.failure
    }
  }

  private func checkOnly() throws(LoadError) {
    print("\(config): valid; \(try Settings.check(path: config))")
  }
}
