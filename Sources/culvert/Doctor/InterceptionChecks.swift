internal import CLinux
internal import Net
internal import Netfilter

/// What trying to intercept came to.
struct InterceptionFacts {
  enum Redirect: Sendable {
    /// A connection was redirected, and its original destination recovered.
    case proven
    /// The family is off, with what the kernel said.
    case unavailable(Errno)
    case failed(String)
  }

  struct Trial: Sendable {
    /// nil: the rules of culvert-init were taken.
    var rulesFailure: NetfilterError?
    var closesConnections = true
    var v4: Redirect?
    var v6: Redirect?
  }

  enum Asked {
    case answered(rulesAreInstalled: Bool)
    case failed(NetfilterError)
  }

  /// In a namespace of its own; the error if none can be made.
  var trial: Result<Trial, Errno>
  /// What nf_tables answers in the caller's namespace.
  var asked: Asked

  var rulesAreInstalled: Bool {
    if case .answered(true) = asked { true } else { false }
  }

  static func gather() -> InterceptionFacts {
    let trial: Result<Trial, Errno>
    do throws(Errno) {
      trial = .success(try PrivateNamespace.run { InterceptionTrial.run() })
    } catch {
      trial = .failure(error)
    }
    do throws(NetfilterError) {
      let installed = try Interceptor.installed()
      return InterceptionFacts(
        trial: trial, asked: .answered(rulesAreInstalled: installed != nil))
    } catch .foreignTable {
      return InterceptionFacts(trial: trial, asked: .answered(rulesAreInstalled: false))
    } catch {
      return InterceptionFacts(trial: trial, asked: .failed(error))
    }
  }
}

/// What is done in the private namespace.
private enum InterceptionTrial {
  /// Nobody listens there: only a redirect leads a connection to it anywhere.
  private static let originalPort: UInt16 = 80

  static func run() -> InterceptionFacts.Trial {
    var trial = InterceptionFacts.Trial()
    do throws(NetfilterError) {
      do throws(NetfilterError) {
        try Interceptor.install(InterceptionPlan(), keepsConnections: false)
      } catch .cannotDestroyConnections {
        trial.closesConnections = false
        try Interceptor.install(InterceptionPlan(), keepsConnections: true)
      }
    } catch {
      trial.rulesFailure = error
      return trial
    }
    trial.v4 = redirect(.v4)
    trial.v6 = redirect(.v6)
    return trial
  }

  /// culvert-init leaves loopback alone, so this uses a rule of its own.
  private static func redirect(_ family: IPAddress.Family) -> InterceptionFacts.Redirect {
    do throws(Errno) {
      let listener = try LoopbackListener(family)
      let original = SocketAddress(listener.address.address, port: originalPort)
      let ports = PortSet([originalPort...originalPort])
      let rule = Rule(
        [.transport(.tcp), .port(.destination, ports)], .redirect(listener.address.port))
      let table = Table(chains: [Chain("trial", .nat, .output, [rule])])
      do throws(NetfilterError) {
        try Interceptor.replaceRules(with: table)
      } catch {
        return .failed(error.description)
      }
      let pair = try listener.pair(connectingTo: original)
      let recovered = try Socket.originalDestination(pair.server.number, family: family)
      return recovered == original
        ? .proven : .failed("a connection to \(original) gave back \(recovered)")
    } catch {
      switch error {
      case .addressNotAvailable, Errno(EAFNOSUPPORT): return .unavailable(error)
      default: return .failed("a redirected connection: \(error)")
      }
    }
  }
}

enum InterceptionChecks {
  static func nftables(_ facts: InterceptionFacts) -> Check {
    var check = Check(
      name: "nftables", verdict: .missing, seen: "", consequence: "", isEssential: true)
    if case .failed(let error) = facts.asked {
      check.seen = "asking for the rules here: \(error)"
      check.consequence = "culvert-init installs nothing; mend this first"
      return check
    }
    let here =
      facts.rulesAreInstalled ? "culvert-init's rules are installed here" : "none installed here"
    switch facts.trial {
    case .failure(let error):
      check.verdict = .limited
      check.seen =
        "nf_tables answers, \(here); installing was not tried, since a network "
        + "namespace of one's own could not be made: \(error)"
      check.consequence =
        "culvert-init says itself what the kernel lacks; "
        + "to try it now run doctor with CAP_SYS_ADMIN"
    case .success(let trial):
      if let failure = trial.rulesFailure {
        check.seen = "installing culvert-init's rules in a namespace of one's own: \(failure)"
        check.consequence = "culvert-init installs nothing; mend this first"
      } else if !trial.closesConnections {
        check.verdict = .limited
        check.seen =
          "culvert-init's rules install, \(here); connections cannot be closed "
          + "(CONFIG_INET_DIAG_DESTROY is off)"
        check.consequence =
          "close connections older than the rules yourself and pass "
          + "--keep-connections; the guard chain drops what they send"
      } else {
        check.verdict = .found
        check.seen = "culvert-init's rules install in a namespace of one's own; \(here)"
        check.consequence = "culvert-init install works here"
      }
    }
    return check
  }

  static func originalDestination(_ facts: InterceptionFacts) -> Check {
    var check = Check(
      name: "original destination", verdict: .missing, seen: "",
      consequence: "the proxy refuses every redirected connection (no_original_destination); "
        + "it needs CONFIG_NF_CONNTRACK and CONFIG_NFT_REDIR", isEssential: true)
    let trial: InterceptionFacts.Trial
    switch facts.trial {
    case .success(let value):
      trial = value
    case .failure(let error):
      check.verdict = .limited
      check.seen = "not tried: a network namespace of one's own could not be made: \(error)"
      check.consequence =
        "the proxy refuses connections whose destination it cannot recover; "
        + "to try it now run doctor with CAP_SYS_ADMIN"
      return check
    }
    switch (trial.v4, trial.v6) {
    case (.proven, .proven):
      check.verdict = .found
      check.seen = "redirected connections over IPv4 and IPv6 gave back where they were going"
      check.consequence = "interception works for both families"
    case (.proven, .unavailable(let error)):
      check.verdict = .limited
      check.seen =
        "a redirected connection over IPv4 gave back where it was going; "
        + "IPv6 is not available: \(error)"
      check.consequence = "interception works for IPv4; with IPv6 off there is nothing else"
    case (.failed(let reason), _):
      check.seen = "IPv4: \(reason)"
    case (_, .failed(let reason)):
      check.seen = "IPv6: \(reason)"
    case (.unavailable(let error), _):
      check.seen = "IPv4 is not available: \(error)"
    case (nil, _), (_, nil):
      check.seen = "not tried: the rules do not install"
      check.consequence = "see nftables"
    }
    return check
  }
}
