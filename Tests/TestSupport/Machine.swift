internal import CLinux
internal import CTestSupport
internal import Foundation
internal import Net
package import Testing

/// What this machine can do, found out once by trying it.
package enum Machine {
  /// Root with CAP_SYS_ADMIN: network namespaces can be made.
  package static let canMakeNamespaces: Bool = {
    guard getuid() == 0 else { return false }
    return (try? Thread.detached { culvert_test_unshare_network() == 0 }) ?? false
  }()

  /// nftables with NAT in the `inet` family (kernel 5.2, CONFIG_NFT_NAT, CONFIG_NFT_REDIR).
  package static let hasNftablesNAT: Bool = {
    guard canMakeNamespaces else { return false }
    let rules =
      "table inet t { chain c { type nat hook output priority -100; tcp dport 1 redirect to :2; }; }"
    return succeeds(["unshare", "--net", "nft", rules])
  }()

  package static let hasIPv6 = FileManager.default.fileExists(atPath: "/proc/net/if_inet6")

  package static let hasTUN: Bool = {
    let device = unsafe culvert_open("/dev/net/tun", O_RDWR | O_CLOEXEC, 0)
    guard device >= 0 else { return false }
    close(device)
    return true
  }()

  /// Whether `io_uring_setup(2)` is answered with anything but a refusal.
  package static let hasIOUring: Bool = {
    let ring = culvert_test_make_ring()
    guard ring >= 0 else { return false }
    close(ring)
    return true
  }()

  /// Whether a connection takes the `tls` upper-layer protocol.
  package static let hasKernelTLS: Bool = {
    guard let pair = try? LoopbackPair(.v4) else { return false }
    let number = pair.client.number
    return unsafe setsockopt(number, Int32(IPPROTO_TCP), TCP_ULP, "tls", 3) == 0
  }()

  /// The soft limit becomes the hard one, for the test and for what it starts.
  static let raiseDescriptorLimit: Void = {
    let descriptors = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
    var limit = rlimit()
    guard unsafe getrlimit(descriptors, &limit) == 0 else { return }
    limit.rlim_cur = limit.rlim_max
    unsafe setrlimit(descriptors, &limit)
  }()

  package static func has(_ program: String) -> Bool { path(of: program) != nil }

  /// Finds a program in PATH and where Debian puts servers.
  package static func path(of program: String) -> String? {
    let path = ProcessInfo.processInfo.environment["PATH"] ?? "/usr/bin:/bin"
    let directories = path.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin"]
    return directories.map { "\($0)/\(program)" }
      .first { FileManager.default.isExecutableFile(atPath: $0) }
  }

  /// The newest PostgreSQL's program directory; Debian keeps it out of PATH.
  package static let postgresqlDirectory: String? = {
    let root = "/usr/lib/postgresql"
    let versions = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    return versions.compactMap(Int.init).max().map { "\(root)/\($0)/bin" }
  }()

  /// libfaketime, where Debian puts it, for whichever architecture this is.
  package static let faketimeLibrary: String? = {
    let root = "/usr/lib"
    let directories = (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
    return directories.map { "\(root)/\($0)/faketime/libfaketimeMT.so.1" }
      .first { FileManager.default.fileExists(atPath: $0) }
  }()

  /// Envoy from the virtual environment that Scripts/test prepares, or from PATH.
  package static let envoyPath: String? = {
    if let named = ProcessInfo.processInfo.environment["CULVERT_ENVOY"] { return named }
    let prepared = packageDirectory + "/.build/envoy/envoy"
    return FileManager.default.isExecutableFile(atPath: prepared) ? prepared : path(of: "envoy")
  }()

  static let packageDirectory = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().path

  /// A program of this package: beside the test runner, or in the directory CULVERT_PROGRAMS names.
  package static func program(_ name: String) -> String {
    if let directory = ProcessInfo.processInfo.environment["CULVERT_PROGRAMS"] {
      return "\(directory)/\(name)"
    }
    let runner =
      (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? ""
    return URL(fileURLWithPath: runner).deletingLastPathComponent().appending(path: name).path
  }

  private static func succeeds(_ command: [String]) -> Bool {
    (try? Program.run(command).succeeded) ?? false
  }
}

/// Requirements that tests name; a test whose requirement is missing is skipped with that name.
extension Trait where Self == ConditionTrait {
  package static var needsNamespaces: Self {
    .enabled(if: Machine.canMakeNamespaces, "needs root and network namespaces")
  }

  package static var needsNftables: Self {
    .enabled(if: Machine.hasNftablesNAT, "needs nftables NAT in the inet family")
  }

  package static var needsIPv6: Self {
    .enabled(if: Machine.hasIPv6, "needs IPv6")
  }

  package static var needsIOUring: Self {
    .enabled(if: Machine.hasIOUring, "needs io_uring")
  }

  package static var needsKernelTLS: Self {
    .enabled(if: Machine.hasKernelTLS, "needs TLS sockets (CONFIG_TLS)")
  }

  package static var needsNoIOUring: Self {
    .enabled(if: !Machine.hasIOUring, "needs io_uring refused by the kernel")
  }

  package static func needs(program: String) -> Self {
    .enabled(if: Machine.has(program), "needs \(program)")
  }
}
