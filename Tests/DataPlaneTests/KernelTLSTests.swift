import TLS
import Testing

@testable import DataPlane

/// Whether this kernel has kTLS at all. In the kernel lab it must have.
let kernelHasTLS = KernelSelfTest.isAvailable

@Suite(.enabled(if: kernelHasTLS, "this kernel has no TLS sockets (CONFIG_TLS)"))
struct `KernelTLS self-test` {
  @Test func `passes for every suite in both directions`() {
    let verdict = KernelSelfTest.run()
    #expect(verdict.send == Set(CipherSuite.allCases), "\(verdict.sendReason ?? "")")
    #expect(verdict.receive == Set(CipherSuite.allCases), "\(verdict.receiveReason ?? "")")
  }
}
