internal import ArgumentParser
internal import Control

@main
struct CulvertTool: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert",
    abstract: "Looks after culvert-proxy.",
    version: Culvert.version,
    subcommands: [
      StatusCommand.self, IdentityCommand.self, MetricsCommand.self, DoctorCommand.self,
      MigrateCommand.self, PinsCommand.self, PolicyCommand.self, CACommand.self,
    ])
}
