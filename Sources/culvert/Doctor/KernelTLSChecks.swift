internal import DataPlane
internal import TLS

enum KernelTLSChecks {
  /// The proxy's own start-up self-test.
  static func kernelTLS() -> Check { kernelTLS(KernelSelfTest.run()) }

  static func kernelTLS(_ verdict: KernelVerdict) -> Check {
    let send = verdict.sendSuites
    let receive = verdict.receiveSuites
    guard !send.isEmpty || !receive.isEmpty else {
      return Check(
        name: "kTLS", verdict: .missing,
        seen: verdict.sendReason ?? verdict.receiveReason ?? "no cipher suite passed",
        consequence: "records are protected in the proxy itself: as safe, at some cost in CPU")
    }
    let isWhole = verdict.sufficientSuites.count == CipherSuite.allCases.count
    let reasons = Set([verdict.sendReason, verdict.receiveReason].compactMap { $0 }).sorted()
    return Check(
      name: "kTLS", verdict: isWhole ? .found : .limited,
      seen: "sends \(words(send)); receives \(words(receive))"
        + (reasons.isEmpty ? "" : "; " + reasons.joined(separator: "; ")),
      consequence: isWhole
        ? "long connections hand their records to the kernel"
        : "the rest of the records is protected in the proxy itself")
  }

  private static func words(_ suites: [CipherSuite]) -> String {
    suites.isEmpty ? "nothing" : suites.map(\.name).joined(separator: ", ")
  }
}
