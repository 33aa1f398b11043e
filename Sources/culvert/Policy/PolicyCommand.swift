internal import ArgumentParser

struct PolicyCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy",
    abstract: "Looks at what the policy allows.",
    subcommands: [PolicyImportCommand.self])
}
