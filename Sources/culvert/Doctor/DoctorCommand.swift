internal import ArgumentParser
internal import Configuration

struct DoctorCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "doctor",
    abstract: "Tries what Culvert needs of this machine and namespace.",
    discussion: """
      Every line comes from an operation really performed: a ring is made, rules are installed and a \
      connection is redirected in a network namespace of the command's own, a socket is marked. \
      Nothing of the caller's namespace is changed. Run it as root in the namespace to be served; \
      with less, what could not be tried is said.

      Verdicts: found, missing, limited (less than Culvert can use, or it could not be tried). Below \
      each line stands what follows from it and what to do.

      Exit codes: 0 nothing essential is missing; 1 something is; 64 wrong usage. Essential are \
      nftables, the original destination, CAP_NET_ADMIN and, once rules are installed, lo.

      EXAMPLES
        culvert doctor
        ip netns exec web culvert doctor
        culvert doctor --json | jq '.checks[] | select(.verdict != "found")'
      """)

  @Flag(
    help: "Print one JSON object: version, checks (name, verdict, seen, consequence), ok.")
  var json = false

  @Option(help: "Open connections there must be room for (limits.maximumConnections).")
  var connections = Limits().maximumConnections

  func validate() throws {
    guard (1...10_000_000).contains(connections) else {
      throw ValidationError("--connections is a number from 1 to 10000000")
    }
  }

  func run() throws {
    let diagnosis = Doctor.examine(connections: connections)
    print(
      json ? Output.json(diagnosis) + "\n" : DoctorText.text(diagnosis), terminator: "")
    if !diagnosis.ok { throw ExitCode.failure }
  }
}

enum Doctor {
  static func examine(connections: Int) -> Diagnosis {
    let interception = InterceptionFacts.gather()
    return Diagnosis(
      [
        KernelChecks.version(),
        KernelChecks.ioUring(),
        InterceptionChecks.nftables(interception),
        InterceptionChecks.originalDestination(interception),
        CapabilityChecks.capabilities(),
        NetworkChecks.loopback(rulesAreInstalled: interception.rulesAreInstalled),
        NetworkChecks.ipv6(),
        KernelTLSChecks.kernelTLS(),
        AnnouncementChecks.announcing(),
      ] + LimitChecks.all(connections: connections))
  }
}
