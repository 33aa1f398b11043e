import TestSupport
import Testing

/// Everything here runs the real programs in network namespaces of its own. One test at a time:
/// each loads the machine enough by itself, and timing is part of what some of them check.
@Suite(
  "In namespaces", .serialized, .needsNamespaces, .needsNftables, .needsIPv6,
  .needs(program: "tcpdump"), .needs(program: "openssl"), .timeLimit(.minutes(4)))
enum InNamespaces {}
