internal import CLinux
internal import Net

enum KernelTLSChecks {
  private enum Attempt {
    case taken
    /// There was no connection to try it on.
    case notTried(Errno)
    case refused(Errno)
  }

  static func kernelTLS() -> Check {
    switch attempt() {
    case .taken: kernelTLS(refusal: nil)
    case .refused(let error): kernelTLS(refusal: error)
    case .notTried(let error):
      Check(
        name: "kTLS", verdict: .limited, seen: "not tried: no connection over 127.0.0.1: \(error)",
        consequence: "see loopback; records are protected in the proxy itself")
    }
  }

  /// - Parameter refusal: what `setsockopt(TCP_ULP, "tls")` on a connection ended with.
  static func kernelTLS(refusal: Errno?) -> Check {
    guard let refusal else {
      return Check(
        name: "kTLS", verdict: .found, seen: "a connection took the tls ULP",
        consequence: "the kernel could protect records; this version does so in the proxy itself")
    }
    let cause =
      refusal == .noEntry
      ? "the module tls is not loaded (modprobe tls), or the kernel lacks CONFIG_TLS"
      : "the kernel refuses the tls ULP"
    return Check(
      name: "kTLS", verdict: .missing, seen: "TCP_ULP tls: \(refusal): \(cause)",
      consequence: "records are protected in the proxy itself: as safe, at some cost in CPU")
  }

  private static func attempt() -> Attempt {
    let pair: LoopbackPair
    do throws(Errno) {
      pair = try LoopbackPair(.v4)
    } catch {
      return .notTried(error)
    }
    do throws(Errno) {
      let name = Array("tls".utf8)
      let number = pair.client.number
      try Errno.check {
        unsafe setsockopt(number, Int32(IPPROTO_TCP), TCP_ULP, name, socklen_t(name.count))
      }
      return .taken
    } catch {
      return .refused(error)
    }
  }
}
