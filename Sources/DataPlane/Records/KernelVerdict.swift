package import TLS

/// What the kernel's record protection is good for here, as far as the self-test has shown.
package struct KernelVerdict: Sendable, Equatable {
  /// The suites it protects byte-exactly, in each direction on its own.
  package var send: Set<CipherSuite> = []
  package var receive: Set<CipherSuite> = []
  /// It takes a next key (Linux 6.14).
  package var canRekey = false
  /// Why something is missing from the above: one sentence for people.
  package var sendReason: String?
  package var receiveReason: String?

  package init() {}

  /// Nothing was tried.
  package static func unused(_ reason: String) -> KernelVerdict {
    var verdict = KernelVerdict()
    verdict.sendReason = reason
    verdict.receiveReason = reason
    return verdict
  }

  /// A direction that goes to the kernel cannot come back, so it must not need what the kernel
  /// lacks: our own key is updated when it wears out.
  func maySend(_ suite: CipherSuite) -> Bool {
    send.contains(suite) && (canRekey || !suite.keyWearsOut)
  }

  /// - Parameter peerUpdatesKeys: the peer is known to update a key that wears out, as a Culvert is.
  func mayReceive(_ suite: CipherSuite, peerUpdatesKeys: Bool) -> Bool {
    receive.contains(suite) && (canRekey || !suite.keyWearsOut || !peerUpdatesKeys)
  }

  /// The suites that go to the kernel, in order of preference.
  package var sendSuites: [CipherSuite] { CipherSuite.allCases.filter(maySend) }
  package var receiveSuites: [CipherSuite] { CipherSuite.allCases.filter(receive.contains) }

  /// The suites with which every connection can go to the kernel, both ways and for its whole life.
  package var sufficientSuites: [CipherSuite] {
    CipherSuite.allCases.filter { maySend($0) && mayReceive($0, peerUpdatesKeys: true) }
  }
}
