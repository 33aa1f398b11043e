package import Testing

extension Namespace {
  /// Joins two namespaces by a path on which packets take `milliseconds` each way, with the
  /// addresses given (`10.90.2.1/24`).
  package static func joinSlowly(
    _ one: Namespace, _ other: Namespace, milliseconds: Int, addresses: ([String], [String])
  ) throws {
    // Ends with its input, at the latest when the first namespace closes.
    let program = try one.start([
      "python3", Python.script("delay"), "\(milliseconds)", one.name, "slow0", other.name, "slow0",
    ])
    try program.waitForOutput(containing: "ready")
    for (namespace, addresses) in [(one, addresses.0), (other, addresses.1)] {
      let commands =
        ["link set slow0 up"]
        + addresses.map { address in
          "addr add \(address) dev slow0" + (address.contains(":") ? " nodad" : "")
        }
      try Program.check(
        ["ip", "-n", namespace.name, "-batch", "-"],
        input: commands.joined(separator: "\n") + "\n")
    }
  }
}

extension Trait where Self == ConditionTrait {
  package static var needsSlowPath: Self {
    .enabled(
      if: Machine.has("python3") && Machine.hasTUN, "needs python3 and TUN devices (CONFIG_TUN)")
  }
}
