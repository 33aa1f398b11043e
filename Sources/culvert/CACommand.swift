internal import ArgumentParser
internal import Identity
internal import TLS

/// The embedded CA, for one machine and for trying things out.
struct CACommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "ca",
    abstract: "A small SPIFFE CA for one machine: makes keys, X.509-SVIDs and the trust bundle.",
    discussion: """
      EXAMPLES
        culvert ca init   --directory ca --trust-domain demo.mesh
        culvert ca issue  --directory ca --id spiffe://demo.mesh/ns/shop/sa/web \\
                          --certificate web.pem --private-key web.key
        culvert ca bundle --directory ca --output demo.pem
      """,
    subcommands: [InitCommand.self, IssueCommand.self, BundleCommand.self])

  struct InitCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "init",
      abstract: "Make a CA: a P-256 key and a certificate for ten years.",
      discussion: "Writes ca.pem (0644) and ca.key (0600); never replaces a CA.")

    @Option(help: ArgumentHelp("Where the CA lives; made with mode 0700.", valueName: "dir"))
    var directory: String

    @Option(help: ArgumentHelp("The trust domain it signs for.", valueName: "name"))
    var trustDomain: String

    func run() throws {
      let trustDomain: TrustDomain
      do throws(SPIFFEIDError) {
        trustDomain = try TrustDomain(self.trustDomain)
      } catch {
        throw CommandError("--trust-domain: \(error.rawValue): only a-z, 0-9, '.', '-' and '_'")
      }
      _ = try CertificateAuthority.create(directory: directory, trustDomain: trustDomain)
      print("\(directory)/ca.pem: the CA of \(trustDomain)")
    }
  }

  struct IssueCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "issue",
      abstract: "Make a key and an X.509-SVID for one workload.",
      discussion: """
        Replaces the two files if they exist, each at once, the key first; a running culvert-proxy \
        takes the new pair up by itself.
        """)

    @Option(help: ArgumentHelp("Where the CA lives.", valueName: "dir"))
    var directory: String

    @Option(help: ArgumentHelp("For example spiffe://demo.mesh/ns/shop/sa/web.", valueName: "id"))
    var id: String

    @Option(help: ArgumentHelp("Where to write the certificate (PEM, 0644).", valueName: "file"))
    var certificate: String

    @Option(help: ArgumentHelp("Where to write the key (PEM, 0600).", valueName: "file"))
    var privateKey: String

    @Option(help: "How long it is valid: a number with s, m, h or d.")
    var lifetime = "24h"

    func run() throws {
      let id: SPIFFEID
      do throws(SPIFFEIDError) {
        id = try SPIFFEID(self.id)
      } catch {
        throw CommandError("--id: not a SPIFFE ID: \(error.rawValue)")
      }
      let authority = try CertificateAuthority.load(directory: directory)
      try authority.issue(
        id, lifetimeSeconds: try Self.seconds(lifetime), certificate: certificate,
        privateKey: privateKey)
      print("\(certificate): \(id), valid for \(lifetime)")
    }

    /// `90s`, `15m`, `24h` or `7d` as seconds.
    static func seconds(_ text: String) throws(CommandError) -> Int64 {
      let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
      guard let unit = text.last.flatMap({ units[$0] }),
        text.dropLast().utf8.allSatisfy({ (48...57).contains($0) }),
        let count = Int64(text.dropLast()), count > 0,
        case (let seconds, let overflow) = count.multipliedReportingOverflow(by: unit), !overflow,
        seconds <= CertificateAuthority.lifetimeSeconds
      else { throw CommandError("--lifetime: expected a time such as 90m, 24h or 7d") }
      return seconds
    }
  }

  struct BundleCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "bundle",
      abstract: "Print the CA's certificate: what peers need to trust it.")

    @Option(help: ArgumentHelp("Where the CA lives.", valueName: "dir"))
    var directory: String

    @Option(help: ArgumentHelp("Write to this file instead.", valueName: "file"))
    var output: String?

    func run() throws {
      let authority = try CertificateAuthority.load(directory: directory)
      if let output {
        try authority.writeBundle(to: output)
      } else {
        print(try authority.bundle(), terminator: "")
      }
    }
  }
}

/// Wrong use that only the command itself can tell; one line.
struct CommandError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
