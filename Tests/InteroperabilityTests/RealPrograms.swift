import TestSupport
import Testing

/// Real programs, unchanged, through Culvert. One test at a time: they share two cores.
@Suite(
  "Real programs", .serialized, .needsNamespaces, .needsNftables, .needsIPv6,
  .needs(program: "tcpdump"), .needs(program: "openssl"), .timeLimit(.minutes(4)))
enum RealPrograms {}
