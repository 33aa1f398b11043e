internal import ArgumentParser
internal import Control
internal import Net

struct PinsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "pins",
    abstract: "Shows or clears the destinations that must not be spoken to in plaintext.",
    discussion: """
      With outbound.pins, an address and port that proved mesh is pinned for a while: if it does \
      not answer as mesh within that time, connections to it are refused (pinned_mesh_lost).

      EXAMPLES
        culvert pins list
        culvert pins clear 10.90.0.2
        culvert pins clear 10.90.0.2:3306
        culvert pins clear --all
      """,
    subcommands: [List.self, Clear.self])

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "list",
      abstract: "Show the pins of a running culvert-proxy.",
      discussion: "Exit codes: 0 the proxy answered; 1 it did not; 64 wrong usage.")

    @Option(help: "The proxy's admin.socket.")
    var adminSocket = "/run/culvert/admin.sock"

    @Flag(help: "Print one JSON list.")
    var json = false

    func run() throws {
      do throws(LoadError) {
        let pins = try AdminClient.pins(at: adminSocket)
        if json { return print(Output.json(pins)) }
        if pins.isEmpty { return print("no pins") }
        let rows = pins.map { pin in
          let isV6 = pin.address.contains(":")
          return (
            (isV6 ? "[\(pin.address)]" : pin.address) + ":\(pin.port)",
            "until \(pin.until), \(StatusText.duration(pin.secondsLeft))"
          )
        }
        print(Output.columns(rows), terminator: "")
      } catch {
        Output.fail(error.description)
        throw ExitCode.failure
      }
    }
  }

  struct Clear: ParsableCommand {
    static let configuration = CommandConfiguration(
      commandName: "clear",
      abstract: "Forget pins: of an address, of one port there, or all.",
      discussion: "Exit codes: 0 the proxy answered; 1 it did not; 64 wrong usage.")

    @Argument(help: "An address, or an address and port: 10.0.0.1, 10.0.0.1:80, [fd00::1]:80.")
    var destination: String?

    @Flag(help: "Forget all of them.")
    var all = false

    @Option(help: "The proxy's admin.socket.")
    var adminSocket = "/run/culvert/admin.sock"

    func validate() throws {
      guard all != (destination != nil) else {
        throw ValidationError("name a destination, or --all")
      }
      if let destination, Self.parse(destination) == nil {
        throw ValidationError("\(destination) is neither an address nor an address and port")
      }
    }

    func run() throws {
      let (address, port) = destination.flatMap(Self.parse) ?? (nil, nil)
      do throws(LoadError) {
        let request = AdminRequest(.clearPins, address: address?.description, port: port)
        let cleared = try AdminClient.ask(request, at: adminSocket).cleared ?? 0
        print("\(StatusText.counted(cleared, "pin")) cleared")
      } catch {
        Output.fail(error.description)
        throw ExitCode.failure
      }
    }

    private static func parse(_ text: String) -> (IPAddress?, UInt16?)? {
      if let address = IPAddress(text) { return (address, nil) }
      guard let destination = SocketAddress(text) else { return nil }
      return (destination.address, destination.port)
    }
  }
}
