internal import Identity
package import Net

/// What an authorization rule does with the connections it matches.
package enum AuthorizationAction: String, Hashable, Sendable, CaseIterable {
  case allow, deny
}

/// How a text must look; compared byte by byte.
package enum TextPattern: Hashable, Sendable {
  case exact(String)
  /// `x*`
  case prefix(String)
  /// `*x`
  case suffix(String)
  /// `*`: any text, but not the absence of one.
  case present

  package func matches(_ text: String) -> Bool {
    switch self {
    case .exact(let whole):
      whole.utf8.count == text.utf8.count && Self.stands(whole.utf8, in: text.utf8, at: 0)
    case .prefix(let start): Self.stands(start.utf8, in: text.utf8, at: 0)
    case .suffix(let end):
      Self.stands(end.utf8, in: text.utf8, at: text.utf8.count - end.utf8.count)
    case .present: true
    }
  }

  /// - Parameter offset: negative if the part is longer than the text.
  private static func stands(
    _ part: String.UTF8View, in text: String.UTF8View, at offset: Int
  ) -> Bool {
    let (part, text) = (part.span, text.span)
    guard offset >= 0, part.count <= text.count - offset else { return false }
    // Identities begin alike and end differently.
    for index in stride(from: part.count - 1, through: 0, by: -1)
    where part[index] != text[offset + index] {
      return false
    }
    return true
  }
}

extension TextPattern: CustomStringConvertible, LosslessStringConvertible {
  /// Reads a text with at most one star, at its start or its end; an empty text is an error.
  package init?(_ text: String) {
    let star = UInt8(ascii: "*")
    let bytes = text.utf8
    guard let first = bytes.first, let last = bytes.last else { return nil }
    switch bytes.count(where: { $0 == star }) {
    case 0: self = .exact(text)
    case 1 where bytes.count == 1: self = .present
    case 1 where first == star: self = .suffix(String(Substring(bytes.dropFirst())))
    case 1 where last == star: self = .prefix(String(Substring(bytes.dropLast())))
    default: return nil
    }
  }

  package var description: String {
    switch self {
    case .exact(let text): text
    case .prefix(let text): "\(text)*"
    case .suffix(let text): "*\(text)"
    case .present: "*"
    }
  }
}

/// One property of a connection that a rule can ask for; the raw value is the field's name in the
/// configuration.
package enum AuthorizationField: String, Hashable, Sendable, CaseIterable {
  case principals, notPrincipals
  case trustDomains, notTrustDomains
  case namespaces, notNamespaces
  case serviceAccounts, notServiceAccounts
  case sources, notSources
  case ports, notPorts
}

/// One entry of `authorization`. It matches if all its fields hold; an empty field is not given and
/// holds. A field holds if one of its values fits, a `not` field if none does.
///
/// What a connection does not have (a principal, or a namespace in it) fits no pattern, not even
/// `*`. A `not` field then holds in a rule that denies and fails in one that allows: neither lets
/// the nameless in by what they are not.
package struct AuthorizationRule: Hashable, Sendable {
  package var name: String
  package var action: AuthorizationAction
  /// The rule only says what it would have done.
  package var isAudit: Bool
  /// Of whole SPIFFE IDs: `spiffe://demo.mesh/ns/shop/sa/web`.
  package var principals: [TextPattern] = []
  package var notPrincipals: [TextPattern] = []
  package var trustDomains: [TextPattern] = []
  package var notTrustDomains: [TextPattern] = []
  /// Of the NS in a path that is exactly `/ns/NS/sa/SA`.
  package var namespaces: [TextPattern] = []
  package var notNamespaces: [TextPattern] = []
  /// Of the SA in a path that is exactly `/ns/NS/sa/SA`.
  package var serviceAccounts: [TextPattern] = []
  package var notServiceAccounts: [TextPattern] = []
  /// Where the connection comes from.
  package var sources: [CIDR] = []
  package var notSources: [CIDR] = []
  /// The port the client wanted to reach.
  package var ports = PortSet()
  package var notPorts = PortSet()

  package init(name: String, action: AuthorizationAction, isAudit: Bool = false) {
    self.name = name
    self.action = action
    self.isAudit = isAudit
  }
}

// MARK: - Matching

extension AuthorizationRule {
  func matches(_ subject: AuthorizationSubject) -> Bool { unmet(by: subject) == nil }

  /// The first field that does not hold; nil if the rule matches. The cheap ones come first.
  func unmet(by subject: AuthorizationSubject) -> AuthorizationField? {
    if !ports.isEmpty, !ports.contains(subject.port) { return .ports }
    if notPorts.contains(subject.port) { return .notPorts }
    if !sources.isEmpty, !sources.contains(where: { $0.contains(subject.source) }) {
      return .sources
    }
    if notSources.contains(where: { $0.contains(subject.source) }) { return .notSources }
    return unmet(subject.principal, principals, .principals, notPrincipals, .notPrincipals)
      ?? unmet(subject.trustDomain, trustDomains, .trustDomains, notTrustDomains, .notTrustDomains)
      ?? unmet(subject.namespace, namespaces, .namespaces, notNamespaces, .notNamespaces)
      ?? unmet(
        subject.serviceAccount, serviceAccounts, .serviceAccounts, notServiceAccounts,
        .notServiceAccounts)
  }

  private func unmet(
    _ text: String?, _ wanted: [TextPattern], _ wantedField: AuthorizationField,
    _ unwanted: [TextPattern], _ unwantedField: AuthorizationField
  ) -> AuthorizationField? {
    guard let text else {
      if !wanted.isEmpty { return wantedField }
      return unwanted.isEmpty || action == .deny ? nil : unwantedField
    }
    if !wanted.isEmpty, !wanted.contains(where: { $0.matches(text) }) { return wantedField }
    return unwanted.contains(where: { $0.matches(text) }) ? unwantedField : nil
  }
}

/// What rules compare with, taken from the facts once for all of them.
struct AuthorizationSubject {
  let principal: String?
  let trustDomain: String?
  let namespace: String?
  let serviceAccount: String?
  let source: IPAddress
  let port: UInt16

  init(_ facts: AuthorizationFacts) {
    principal = facts.principal?.description
    trustDomain = facts.principal?.trustDomain.name
    let account = facts.principal.flatMap(Self.account)
    namespace = account?.namespace
    serviceAccount = account?.name
    source = facts.source
    port = facts.port
  }

  /// The parts of a path of the form `/ns/NS/sa/SA`.
  private static func account(of id: SPIFFEID) -> (namespace: String, name: String)? {
    // What is before the first slash is the first of the five.
    let parts = id.path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
    guard parts.count == 5, parts[0].isEmpty, parts[1].elementsEqual("ns".utf8),
      parts[3].elementsEqual("sa".utf8)
    else { return nil }
    return (String(Substring(parts[2])), String(Substring(parts[4])))
  }
}
