internal import ArgumentParser
internal import Control

struct MetricsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "metrics",
    abstract: "Prints a running culvert-proxy's metrics in the Prometheus text format.",
    discussion: """
      Exit codes: 0 the proxy answered; 1 it did not, with one line on standard error; 64 wrong \
      usage.

      EXAMPLES
        culvert metrics
        culvert metrics > /var/lib/node_exporter/culvert.prom.new
      """)

  @Option(help: "The proxy's admin.socket.")
  var adminSocket = "/run/culvert/admin.sock"

  func run() throws {
    do throws(LoadError) {
      print(try AdminClient.metrics(at: adminSocket), terminator: "")
    } catch {
      Output.fail(error.description)
      throw ExitCode.failure
    }
  }
}
