// swift-tools-version: 6.2
import PackageDescription

/// Every Swift target is built the same way: memory-unsafe constructs are marked, a warning is an
/// error, and an import is visible to the importing module only unless it says otherwise.
let strict: [SwiftSetting] = [
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

func module(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
  .target(name: name, dependencies: dependencies, swiftSettings: strict)
}

func program(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
  .executableTarget(
    name: name,
    dependencies: dependencies + [
      .product(name: "ArgumentParser", package: "swift-argument-parser")
    ],
    swiftSettings: strict)
}

/// What several test targets share.
func testSupport(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = [])
  -> Target
{
  .target(
    name: name, dependencies: dependencies, path: "Tests/\(name)", resources: resources,
    swiftSettings: strict)
}

func tests(_ name: String, _ dependencies: [Target.Dependency], resources: [Resource] = [])
  -> Target
{
  .testTarget(
    name: name, dependencies: dependencies, resources: resources, swiftSettings: strict)
}

/// A header-only view of one C library.
func shim(_ name: String, links libraries: [String]) -> Target {
  .target(name: name, linkerSettings: libraries.map { .linkedLibrary($0) })
}

let package = Package(
  name: "culvert",
  products: [
    .executable(name: "culvert-init", targets: ["culvert-init"]),
    .executable(name: "culvert-proxy", targets: ["culvert-proxy"]),
    .executable(name: "culvert", targets: ["culvert"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2")
  ],
  targets: [
    shim("CLinux", links: ["uring"]),
    shim("COpenSSL", links: ["ssl", "crypto"]),
    shim("CNetfilter", links: ["nftnl", "mnl"]),
    shim("CYAML", links: ["yaml"]),
    shim("CHTTPParser", links: ["http_parser"]),
    shim("CHTTP2", links: ["nghttp2"]),
    .target(
      name: "CWorkloadAPI", exclude: ["workload.proto"],
      linkerSettings: [.linkedLibrary("protobuf-c")]),

    module("Net", ["CLinux"]),
    module("Identity"),
    module("Sniff"),
    module("Policy", ["Identity", "Net"]),
    module("Configuration", ["CLinux", "CYAML", "Identity", "Net", "Policy"]),
    module("Netfilter", ["CLinux", "CNetfilter", "Net"]),
    module("Announcement", ["CLinux", "Net"]),
    module("TLS", ["CLinux", "COpenSSL", "Identity", "Net"]),
    module("Federation", ["CHTTPParser", "CLinux", "Identity", "Net", "TLS"]),
    module("WorkloadAPI", ["CHTTP2", "CLinux", "CWorkloadAPI", "Identity", "Net"]),
    module("Telemetry", ["CLinux", "Identity", "Net", "Policy"]),
    module(
      "DataPlane",
      ["CLinux", "COpenSSL", "Identity", "Net", "Policy", "Sniff", "TLS", "Telemetry"]),
    module(
      "Control",
      [
        "Announcement", "CLinux", "Configuration", "DataPlane", "Federation", "Identity", "Net",
        "Policy", "TLS", "Telemetry", "WorkloadAPI",
      ]),

    program("culvert-init", ["Configuration", "Net", "Netfilter", "Policy"]),
    program("culvert-proxy", ["Configuration", "Control", "TLS"]),
    program(
      "culvert",
      [
        "Announcement", "CLinux", "Configuration", "Control", "DataPlane", "Identity", "Net",
        "Netfilter", "Policy", "TLS",
      ]),

    .executableTarget(
      name: "culvert-microbench",
      dependencies: [
        "DataPlane", "Identity", "Net", "Policy", "Sniff", "TLS",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Tools/Bench/Micro", swiftSettings: strict),
    .executableTarget(
      name: "culvert-workload-agent",
      dependencies: [
        "CLinux", "Configuration", "Identity", "Net", "TLS", "WorkloadAPI",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "Tools/WorkloadAPI", swiftSettings: strict),

    tests("NetTests", ["CLinux", "Net"]),
    tests("AnnouncementTests", ["Announcement", "CLinux", "Net", "TestSupport"]),
    tests(
      "NetfilterTests",
      ["Configuration", "Identity", "Net", "Netfilter", "Policy", "culvert-init"],
      resources: [.copy("Golden"), .copy("Scripts")]),
    tests(
      "ControlTests",
      [
        "CLinux", "Configuration", "Control", "DataPlane", "Federation", "Identity", "Net",
        "Netfilter", "TLS", "Telemetry", "TestSupport", "WorkloadAPI", "culvert",
      ]),
    tests("IdentityTests", ["Identity"]),
    tests("PolicyTests", ["Identity", "Net", "Policy"]),
    tests("TelemetryTests", ["Identity", "Net", "Policy", "Telemetry"]),
    tests(
      "DataPlaneTests",
      [
        "CLinux", "COpenSSL", "DataPlane", "Identity", "Net", "Policy", "RelaySupport", "TLS",
        "Telemetry",
      ]),
    testSupport(
      "RelaySupport",
      ["CLinux", "DataPlane", "Identity", "Net", "Policy", "TLS", "Telemetry"]),
    .target(name: "AllocationCounter", path: "Tests/AllocationCounter"),
    tests(
      "AllocationTests",
      ["AllocationCounter", "DataPlane", "Identity", "Net", "RelaySupport", "TLS"]),
    tests("TLSTests", ["COpenSSL", "DataPlane", "Identity", "Net", "TLS"]),
    tests(
      "FederationTests", ["CLinux", "Federation", "Identity", "Net", "TLS", "TestSupport"],
      resources: [.copy("Scripts")]),
    tests(
      "WorkloadAPITests",
      [
        "CLinux", "Identity", "Net", "TLS", "TestSupport", "WorkloadAPI", "culvert-workload-agent",
      ]),
    tests("SniffTests", ["Sniff"]),
    tests("ConfigurationTests", ["Configuration", "Identity", "Net", "Policy"]),

    .target(name: "CTestSupport", path: "Tests/CTestSupport"),
    testSupport(
      "TestSupport", ["CLinux", "CTestSupport", "Net"], resources: [.copy("Scripts")]),
    tests("NamespaceTests", ["Net", "TestSupport"]),
    tests("InteroperabilityTests", ["TestSupport"]),
  ],
  swiftLanguageModes: [.v6]
)
