import Identity
import Net
import Policy
import Testing

private let web = "spiffe://demo.mesh/ns/shop/sa/web"

private func rule(
  _ action: AuthorizationAction, isAudit: Bool = false, _ edit: (inout AuthorizationRule) -> Void
) -> AuthorizationRule {
  var rule = AuthorizationRule(name: "rule", action: action, isAudit: isAudit)
  edit(&rule)
  return rule
}

private func facts(
  _ principal: String?, source: String = "10.0.0.9", port: UInt16 = 3306
) throws -> AuthorizationFacts {
  AuthorizationFacts(
    principal: try principal.map { try SPIFFEID($0) },
    source: try #require(IPAddress(source)), port: port)
}

@Suite struct `A text pattern` {
  @Test(
    arguments: [
      ("web", .exact("web")), ("*", .present), ("*b", .suffix("b")), ("w*", .prefix("w")),
      ("é", .exact("é")), ("*\u{301}", .suffix("\u{301}")), ("", nil), ("**", nil), ("a*b", nil),
      ("*a*", nil), ("a**", nil),
    ] as [(String, TextPattern?)])
  func `has a star at one end at most`(text: String, pattern: TextPattern?) {
    #expect(TextPattern(text) == pattern)
    if let pattern { #expect(pattern.description == text) }
  }

  @Test(arguments: [
    ("web", "web", true), ("web", "webs", false), ("web", "we", false), ("web", "WEB", false),
    ("w*", "w", true), ("w*", "web", true), ("w*", "aw", false), ("we*", "w", false),
    ("*b", "b", true), ("*b", "web", true), ("*b", "ba", false), ("*eb", "b", false),
    ("*", "x", true),
    // K as the Kelvin sign: the same character to Swift, another byte to a peer's certificate.
    ("\u{212a}", "K", false), ("\u{212a}*", "Kx", false), ("*\u{212a}", "xK", false),
  ])
  func `is compared byte by byte`(pattern: String, text: String, matches: Bool) throws {
    #expect(try #require(TextPattern(pattern)).matches(text) == matches)
  }
}

/// Who is let in by which rules, as Istio's AuthorizationPolicy has it.
@Suite struct `Authorization by rules` {
  @Test func `without rules lets everyone in`() throws {
    for principal in [nil, web] {
      #expect(
        Authorization().judge(try facts(principal))
          == AuthorizationVerdict(outcome: .allowed(rule: nil)))
    }
  }

  @Test func `with a rule that allows lets nobody else in`() throws {
    let policy = Authorization([rule(.allow) { $0.principals = [.exact(web)] }])
    #expect(policy.judge(try facts(web)).outcome == .allowed(rule: 0))
    #expect(policy.judge(try facts("spiffe://demo.mesh/ns/shop/sa/we")).outcome == .notAllowed)
    #expect(policy.judge(try facts(nil)).outcome == .notAllowed)
  }

  @Test func `with rules that only deny lets everyone else in`() throws {
    let policy = Authorization([rule(.deny) { $0.principals = [.exact(web)] }])
    #expect(policy.judge(try facts(web)).outcome == .denied(rule: 0))
    #expect(policy.judge(try facts(nil)).outcome == .allowed(rule: nil))
  }

  @Test func `asks rules that deny before those that allow, wherever they stand`() throws {
    let policy = Authorization([
      rule(.allow) { $0.principals = [.exact(web)] }, rule(.allow) { _ in },
      rule(.deny) { $0.ports = PortSet([3306...3306]) },
    ])
    #expect(policy.judge(try facts(web)).outcome == .denied(rule: 2))
    #expect(policy.judge(try facts(web, port: 80)).outcome == .allowed(rule: 0))
    #expect(policy.judge(try facts(nil, port: 80)).outcome == .allowed(rule: 1))
  }

  @Test func `matches everything by a rule without fields`() throws {
    #expect(Authorization([rule(.deny) { _ in }]).judge(try facts(nil)).outcome == .denied(rule: 0))
    #expect(
      Authorization([rule(.allow) { _ in }]).judge(try facts(nil)).outcome == .allowed(rule: 0))
  }

  @Test func `names the first rule that matches, however it is found`() throws {
    let general = rule(.allow) { $0.principals = [.prefix("spiffe://demo.mesh/")] }
    let byPrincipal = rule(.allow) { $0.principals = [.exact(web)] }
    let byPort = rule(.allow) { $0.ports = PortSet([3306...3306]) }
    let byBoth = rule(.allow) {
      $0.principals = [.exact(web)]
      $0.ports = PortSet([3306...3306])
    }
    let manyPorts = rule(.allow) {
      $0.principals = [.exact(web)]
      $0.ports = PortSet([1...65535])
    }
    let all = [general, byPrincipal, byPort, byBoth, manyPorts]
    let other = rule(.allow) { $0.principals = [.exact("spiffe://demo.mesh/other")] }
    for start in all.indices {
      let order = [other] + all[start...] + all[..<start]
      #expect(Authorization(order).judge(try facts(web)).outcome == .allowed(rule: 1))
    }
  }

  @Test func `wants every field of a rule, and one value of each`() throws {
    let policy = Authorization([
      rule(.allow) {
        $0.namespaces = [.exact("shop"), .exact("billing")]
        $0.serviceAccounts = [.exact("web")]
        $0.sources = [CIDR("10.0.0.0/24")!, CIDR("fd00::/64")!]
        $0.notSources = [CIDR("10.0.0.13")!]
        $0.notPorts = PortSet([22...22])
      }
    ])
    func outcome(_ principal: String?, _ source: String, _ port: UInt16) throws -> Bool {
      policy.judge(try facts(principal, source: source, port: port)).outcome.isAllowed
    }
    #expect(try outcome(web, "10.0.0.9", 80))
    #expect(try outcome("spiffe://other.mesh/ns/billing/sa/web", "fd00::1", 80))
    #expect(try outcome(web, "::ffff:10.0.0.9", 80))
    #expect(try !outcome("spiffe://demo.mesh/ns/shop/sa/db", "10.0.0.9", 80))
    #expect(try !outcome(web, "10.0.1.9", 80))
    #expect(try !outcome(web, "10.0.0.13", 80))
    #expect(try !outcome(web, "10.0.0.9", 22))
    #expect(try !outcome(nil, "10.0.0.9", 80))
  }

  @Test(arguments: [
    "spiffe://demo.mesh", "spiffe://demo.mesh/shop/web", "spiffe://demo.mesh/ns/shop/sa/web/x",
    "spiffe://demo.mesh/x/ns/shop/sa/web", "spiffe://demo.mesh/sa/web/ns/shop",
    "spiffe://demo.mesh/NS/shop/SA/web", "spiffe://demo.mesh/ns/shop",
  ])
  func `finds a namespace and an account in one form of path only`(id: String) throws {
    let inside = Authorization([rule(.allow) { $0.namespaces = [.present] }])
    #expect(inside.judge(try facts(web)).outcome == .allowed(rule: 0))
    #expect(inside.judge(try facts(id)).outcome == .notAllowed)
    let account = Authorization([rule(.allow) { $0.serviceAccounts = [.present] }])
    #expect(account.judge(try facts(web)).outcome == .allowed(rule: 0))
    #expect(account.judge(try facts(id)).outcome == .notAllowed)
    let outside = Authorization([rule(.deny) { $0.notNamespaces = [.exact("shop")] }])
    #expect(outside.judge(try facts(web)).outcome == .allowed(rule: nil))
    #expect(outside.judge(try facts(id)).outcome == .denied(rule: 0))
  }
}

@Suite struct `Who has no identity` {
  private static let fields: [any WritableKeyPath<AuthorizationRule, [TextPattern]> & Sendable] = [
    \.principals, \.trustDomains, \.namespaces, \.serviceAccounts,
  ]
  private static let notFields: [any WritableKeyPath<AuthorizationRule, [TextPattern]> & Sendable] =
    [
      \.notPrincipals, \.notTrustDomains, \.notNamespaces, \.notServiceAccounts,
    ]
  private static let any: [TextPattern] = [
    .present, .prefix(""), .suffix(""), .exact(""), .exact(web), .prefix("s"), .suffix("b"),
  ]

  @Test(arguments: any) func `matches nothing, not even a star`(pattern: TextPattern) throws {
    for field in Self.fields {
      let deny = Authorization([rule(.deny) { $0[keyPath: field] = [pattern] }])
      #expect(deny.judge(try facts(nil)).outcome == .allowed(rule: nil))
      let allow = Authorization([rule(.allow) { $0[keyPath: field] = [pattern] }])
      #expect(allow.judge(try facts(nil)).outcome == .notAllowed)
    }
  }

  @Test(arguments: any) func `is denied by what it is not`(pattern: TextPattern) throws {
    for field in Self.notFields {
      let policy = Authorization([rule(.deny) { $0[keyPath: field] = [pattern] }])
      #expect(policy.judge(try facts(nil)).outcome == .denied(rule: 0))
    }
  }

  @Test(arguments: any) func `is not allowed by what it is not`(pattern: TextPattern) throws {
    for field in Self.notFields {
      let policy = Authorization([rule(.allow) { $0[keyPath: field] = [pattern] }])
      #expect(policy.judge(try facts(nil)).outcome == .notAllowed)
    }
  }

  @Test func `is all that notPrincipals [*] denies`() throws {
    let policy = Authorization([rule(.deny) { $0.notPrincipals = [.present] }])
    #expect(policy.judge(try facts(nil)).outcome == .denied(rule: 0))
    for principal in [web, "spiffe://demo.mesh", "spiffe://other.mesh/a"] {
      #expect(policy.judge(try facts(principal)).outcome == .allowed(rule: nil))
    }
  }

  @Test func `is among those who are not X where they are denied`() throws {
    let policy = Authorization([rule(.deny) { $0.notPrincipals = [.exact(web)] }])
    #expect(policy.judge(try facts(nil)).outcome == .denied(rule: 0))
    #expect(policy.judge(try facts("spiffe://demo.mesh/x")).outcome == .denied(rule: 0))
    #expect(policy.judge(try facts(web)).outcome == .allowed(rule: nil))
  }

  @Test func `is not among those who are not X where they are allowed`() throws {
    let policy = Authorization([rule(.allow) { $0.notPrincipals = [.exact(web)] }])
    #expect(policy.judge(try facts(nil)).outcome == .notAllowed)
    #expect(policy.judge(try facts("spiffe://demo.mesh/x")).outcome == .allowed(rule: 0))
    #expect(policy.judge(try facts(web)).outcome == .notAllowed)
  }

  @Test func `may be judged by where it comes from`() throws {
    let policy = Authorization([rule(.allow) { $0.sources = [CIDR("10.0.0.9")!] }])
    #expect(policy.judge(try facts(nil)).outcome == .allowed(rule: 0))
    #expect(policy.judge(try facts(nil, source: "10.0.0.8")).outcome == .notAllowed)
  }
}

/// CVE-2020-16844: Istio did not deny by `*x` on plain TCP; and what goes wrong when a trust domain
/// is not compared whole.
@Suite struct `A pattern with a star` {
  @Test(arguments: [
    "spiffe://demo.mesh/ns/shop/sa/web-batch", "spiffe://other.mesh/ns/a/sa/b-batch",
    "spiffe://other.mesh/-batch",
  ])
  func `denies by the end of a name`(id: String) throws {
    let policy = Authorization([
      rule(.deny) { $0.principals = [.suffix("-batch")] }, rule(.allow) { _ in },
    ])
    #expect(policy.judge(try facts(id)).outcome == .denied(rule: 0))
    #expect(policy.judge(try facts(id + "2")).outcome == .allowed(rule: 1))
    let byNamespace = Authorization([rule(.deny) { $0.namespaces = [.suffix("-ns")] }])
    #expect(
      byNamespace.judge(try facts("spiffe://a/ns/my-ns/sa/b")).outcome == .denied(rule: 0))
    #expect(byNamespace.judge(try facts("spiffe://a/ns/ns/sa/b")).outcome.isAllowed)
  }

  @Test func `takes a longer trust domain for the shorter only where it says so`() throws {
    let evil = "spiffe://demo.mesh.evil/ns/shop/sa/web"
    func outcome(_ edit: @escaping (inout AuthorizationRule) -> Void) throws -> Bool {
      Authorization([rule(.allow, edit)]).judge(try facts(evil)).outcome.isAllowed
    }
    #expect(try !outcome { $0.principals = [.prefix("spiffe://demo.mesh/")] })
    #expect(try !outcome { $0.trustDomains = [.exact("demo.mesh")] })
    #expect(try !outcome { $0.principals = [.exact(web)] })
    #expect(try outcome { $0.principals = [.prefix("spiffe://demo.mesh")] })
    #expect(try outcome { $0.principals = [.suffix("/ns/shop/sa/web")] })
    #expect(try outcome { $0.trustDomains = [.prefix("demo.mesh")] })
  }

  @Test func `does not find one trust domain in the path of another`() throws {
    let sly = "spiffe://evil.mesh/demo.mesh/ns/shop/sa/web"
    let policy = Authorization([
      rule(.allow) { $0.principals = [.prefix("spiffe://demo.mesh/")] },
      rule(.allow) { $0.trustDomains = [.suffix("demo.mesh")] },
      rule(.allow) { $0.namespaces = [.exact("shop")] },
    ])
    #expect(policy.judge(try facts(sly)).outcome == .notAllowed)
    #expect(policy.judge(try facts(web)).outcome == .allowed(rule: 0))
  }
}

@Suite struct `An audit rule` {
  private let deny = rule(.deny, isAudit: true) { $0.ports = PortSet([3306...3306]) }
  private let allow = rule(.allow, isAudit: true) { $0.principals = [.exact(web)] }

  @Test func `that would deny says so and denies nothing`() throws {
    let verdict = Authorization([deny]).judge(try facts(web))
    #expect(
      verdict == AuthorizationVerdict(outcome: .allowed(rule: nil), audited: .denied(rule: 0)))
    #expect(Authorization([deny]).judge(try facts(web, port: 80)).audited == nil)
  }

  @Test func `that would allow does not make a policy one that allows`() throws {
    let policy = Authorization([allow])
    #expect(
      policy.judge(try facts(web))
        == AuthorizationVerdict(outcome: .allowed(rule: nil), audited: .allowed(rule: 0)))
    #expect(
      policy.judge(try facts(nil))
        == AuthorizationVerdict(outcome: .allowed(rule: nil), audited: .notAllowed))
  }

  @Test func `that would let somebody in does not`() throws {
    let policy = Authorization([rule(.allow) { $0.ports = PortSet([80...80]) }, allow])
    #expect(
      policy.judge(try facts(web))
        == AuthorizationVerdict(outcome: .notAllowed, audited: .allowed(rule: 1)))
    #expect(
      policy.judge(try facts(nil)) == AuthorizationVerdict(outcome: .notAllowed, audited: nil))
  }

  @Test func `is not heard where a rule before it comes to the same`() throws {
    let denial = rule(.deny) { _ in }
    #expect(Authorization([denial, deny]).judge(try facts(web)).audited == nil)
    #expect(Authorization([deny, denial]).judge(try facts(web)).audited == .denied(rule: 0))
    #expect(Authorization([denial, allow]).judge(try facts(web)).audited == nil)
  }
}

@Suite struct `An explanation` {
  @Test func `names the field of each rule that does not hold`() throws {
    let edits: [(AuthorizationField?, (inout AuthorizationRule) -> Void)] = [
      (.principals, { $0.principals = [.exact("spiffe://demo.mesh/x")] }),
      (.notPrincipals, { $0.notPrincipals = [.exact(web)] }),
      (.trustDomains, { $0.trustDomains = [.exact("other.mesh")] }),
      (.notTrustDomains, { $0.notTrustDomains = [.prefix("demo")] }),
      (.namespaces, { $0.namespaces = [.exact("bank")] }),
      (.notNamespaces, { $0.notNamespaces = [.suffix("op")] }),
      (.serviceAccounts, { $0.serviceAccounts = [.exact("db")] }),
      (.notServiceAccounts, { $0.notServiceAccounts = [.present] }),
      (.sources, { $0.sources = [CIDR("10.0.0.8")!] }),
      (.notSources, { $0.notSources = [CIDR("10.0.0.0/8")!] }),
      (.ports, { $0.ports = PortSet([80...80]) }),
      (.notPorts, { $0.notPorts = PortSet([3300...3399]) }),
      (nil, { $0.principals = [.exact(web)] }), (nil, { _ in }),
    ]
    #expect(Set(edits.compactMap(\.0)).count == AuthorizationField.allCases.count)
    for action in AuthorizationAction.allCases {
      let policy = Authorization(edits.map { rule(action, $0.1) })
      #expect(policy.explain(try facts(web)) == edits.map(\.0))
    }
  }
}
