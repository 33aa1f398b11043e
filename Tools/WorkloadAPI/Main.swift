import ArgumentParser
import CLinux
import Configuration
import Identity
import Net
import TLS

/// A SPIFFE Workload API agent for one machine, from the embedded CA.
@main struct WorkloadAgentCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-workload-agent",
    abstract: "Serves the SPIFFE Workload API from the CA that culvert ca init made.",
    discussion: """
      Issues X.509-SVIDs to the processes that connect, by what the kernel says of them: their \
      user, their group and the program they run. It renews SVIDs at half their life and pushes \
      them, and reads its files again when they change. It is meant for one machine, for tests and \
      for trying things out; SPIRE is meant for more.

      Only unix sockets are served: of a TCP client the kernel tells nothing.

      THE ENTRIES FILE
        entries:
          - id: spiffe://demo.mesh/ns/shop/sa/web
            selectors: ["unix:uid:1000", "unix:path:/usr/bin/web"]   # all must fit
            lifetimeSeconds: 3600
            hint: internal
            federatesWith: [partner.example]
        federatedBundles:
          - { trustDomain: partner.example, pem: partner.pem }
        crls: [demo.crl]

      EXAMPLES
        culvert ca init --directory ca --trust-domain demo.mesh
        culvert-workload-agent --ca ca --entries entries.yaml \\
                               --endpoint unix:///run/culvert/workload.sock
        SPIFFE_ENDPOINT_SOCKET=unix:///run/culvert/workload.sock some-workload
      """)

  @Option(help: ArgumentHelp("The directory of the CA.", valueName: "dir"))
  var ca: String

  @Option(help: ArgumentHelp("Who gets which identity.", valueName: "file"))
  var entries: String

  @Option(help: ArgumentHelp("Where to listen: unix:///PATH.", valueName: "uri"))
  var endpoint: String

  @Option(help: ArgumentHelp("The socket's mode: who may ask.", valueName: "octal"))
  var mode = "0666"

  func run() throws {
    try OpenSSLMemory.cleanseWhatIsFreed()
    let path = try Self.path(endpoint)
    let mode = try Self.mode(mode)
    let issuer = try Issuer(
      authority: try CertificateAuthority.load(directory: ca), entriesPath: entries)
    var agent = try Agent(path: path, mode: mode, issuer: issuer)
    agent.run()
  }

  private static func path(_ text: String) throws(CommandError) -> String {
    do throws(WorkloadEndpointError) {
      if case .unix(let path) = try WorkloadEndpoint(text).address { return path }
    } catch {
      throw CommandError("--endpoint: \(error)")
    }
    throw CommandError("--endpoint: only unix:///PATH: of a TCP client the kernel tells nothing")
  }

  private static func mode(_ text: String) throws(CommandError) -> UInt32 {
    guard text.utf8.allSatisfy({ (48...55).contains($0) }), let mode = UInt32(text, radix: 8),
      mode <= 0o777
    else { throw CommandError("--mode: an octal number such as 0666 or 0600") }
    return mode
  }
}

/// Wrong use, or something the agent cannot start with; one line.
struct CommandError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
