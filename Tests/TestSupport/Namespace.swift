internal import CLinux
internal import CTestSupport
internal import Foundation
internal import Net

/// A network namespace of the test's own: `lo` is up, and everything started in it ends with it.
package final class Namespace: @unchecked Sendable {
  package let name: String
  private let descriptor: Int32
  private let programs = Box<[Program]>([])
  private let servers = Box<[Server]>([])
  private let kept = Box<[TemporaryDirectory]>([])
  private let isOpen = Box(true)
  private static let counter = Box(0)

  /// Makes a namespace. `label` is only for people who look at `ip netns`.
  package init(_ label: String) throws {
    Self.sweep()
    let number = Self.counter.update {
      $0 += 1
      return $0
    }
    name = "culvert-test-\(getpid())-\(number)-\(label)"
    try Program.check(["ip", "netns", "add", name])
    descriptor = unsafe culvert_open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC, 0)
    guard descriptor >= 0 else { throw Trouble("cannot open namespace \(name)") }
    try Program.check(["ip", "-n", name, "link", "set", "lo", "up"])
  }

  deinit {
    close()
    _ = Glibc.close(descriptor)
  }

  /// Ends everything in the namespace and removes it.
  package func close() {
    let isFirst = isOpen.update { isOpen in
      defer { isOpen = false }
      return isOpen
    }
    guard isFirst else { return }
    for server in servers.value { server.stop() }
    for program in programs.value { program.kill() }
    Self.remove(name)
    servers.update { $0 = [] }
    kept.update { $0 = [] }
  }

  /// Has a server live as long as the namespace.
  func keep(_ server: Server) { servers.update { $0.append(server) } }

  /// Has a directory live as long as the namespace.
  package func keep(_ directory: TemporaryDirectory) { kept.update { $0.append(directory) } }

  /// Joins two namespaces by a veth pair, each end named `device` there, with the addresses given
  /// (`10.90.0.1/24`). Duplicate address detection is off: IPv6 works at once.
  package static func join(
    _ one: Namespace, _ other: Namespace, devices: (String, String) = ("eth0", "eth0"),
    addresses: ([String], [String])
  ) throws {
    try Program.check([
      "ip", "link", "add", devices.0, "netns", one.name, "type", "veth", "peer", "name", devices.1,
      "netns", other.name,
    ])
    for (namespace, device, addresses) in [
      (one, devices.0, addresses.0), (other, devices.1, addresses.1),
    ] {
      let commands =
        ["link set \(device) up"]
        + addresses.map { address in
          "addr add \(address) dev \(device)" + (address.contains(":") ? " nodad" : "")
        }
      try Program.check(
        ["ip", "-n", namespace.name, "-batch", "-"],
        input: commands.joined(separator: "\n") + "\n")
    }
    // The carrier comes up a moment after the second end does; until then a route is not used.
    try eventually("carrier on \(devices.0)") {
      try Program.check(["ip", "-n", one.name, "-o", "link", "show", "dev", devices.0, "up"])
        .contains("LOWER_UP")
    }
  }

  /// Starts a program in the namespace; it is killed with the namespace.
  package func start(
    _ command: [String], environment: [String: String] = [:], refusingIOUring: Bool = false
  ) throws -> Program {
    let command = inside(command)
    let program = try Thread.detached {
      // A filter is inherited by what the thread starts and ends with the thread.
      if refusingIOUring, culvert_test_refuse_io_uring() != 0 {
        throw Trouble("seccomp: \(Errno.current)")
      }
      return try Program(command, environment: environment)
    }
    programs.update { $0.append(program) }
    return program
  }

  /// Runs a program in the namespace to its end.
  package func run(_ command: [String], input: String = "", seconds: Double = 60) throws
    -> Program.Outcome
  {
    try Program.run(inside(command), input: input, seconds: seconds)
  }

  /// Runs a program that must succeed and returns its output.
  @discardableResult
  package func check(_ command: [String], input: String = "") throws -> String {
    try Program.check(inside(command), input: input)
  }

  /// Runs a closure on a thread that is in the namespace: sockets made there stay there.
  package func enter<Value: Sendable>(
    _ body: @escaping @Sendable () throws -> Value
  ) throws -> Value {
    let descriptor = descriptor
    return try Thread.detached {
      guard culvert_test_enter_network(descriptor) == 0 else {
        throw Trouble("setns: \(Errno.current)")
      }
      return try body()
    }
  }

  /// Waits until something in the namespace listens on a TCP port, on either family.
  package func waitForListener(port: UInt16, seconds: Double = patience) throws {
    try eventually("a listener on port \(port) in \(name)", seconds: seconds) {
      try listeners().contains(port)
    }
  }

  /// The TCP ports something listens on.
  package func listeners() throws -> Set<UInt16> {
    try Set(sockets().filter { $0.state == 0x0a }.map(\.localPort))
  }

  /// How many TCP sockets with this local or remote port are in a state other than listening or
  /// TIME_WAIT.
  package func openSockets(port: UInt16) throws -> Int {
    try sockets().count {
      ![0x06, 0x0a].contains($0.state) && ($0.localPort == port || $0.remotePort == port)
    }
  }

  private struct SocketLine {
    let localPort: UInt16
    let remotePort: UInt16
    let state: UInt8
  }

  /// /proc/net/tcp and tcp6, see proc_net_tcp(5).
  private func sockets() throws -> [SocketLine] {
    let text = try enter {
      ["tcp", "tcp6"].map { table in
        String(decoding: contents(ofFile: "/proc/thread-self/net/\(table)"), as: UTF8.self)
      }.joined(separator: "\n")
    }
    return text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      guard fields.count > 4, let state = UInt8(fields[3], radix: 16),
        let local = fields[1].split(separator: ":").last.flatMap({ UInt16($0, radix: 16) }),
        let remote = fields[2].split(separator: ":").last.flatMap({ UInt16($0, radix: 16) })
      else { return nil }
      return SocketLine(localPort: local, remotePort: remote, state: state)
    }
  }

  private func inside(_ command: [String]) -> [String] { ["ip", "netns", "exec", name] + command }

  /// Removes what test runs that no longer exist left behind (they were killed).
  private static func sweep() { _ = sweepOnce }

  private static let sweepOnce: Void = {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
    for name in names where name.hasPrefix("culvert-test-") {
      let owner = name.split(separator: "-").dropFirst(2).first.flatMap { pid_t($0) }
      if let owner, Glibc.kill(owner, 0) != 0, errno == ESRCH { remove(name) }
    }
  }()

  private static func remove(_ name: String) {
    let inhabitants = try? Program.run(["ip", "netns", "pids", name]).output
    for line in (inhabitants ?? "").split(separator: "\n") {
      if let pid = pid_t(line) { _ = Glibc.kill(pid, SIGKILL) }
    }
    _ = try? Program.run(["ip", "netns", "del", name])
  }
}
