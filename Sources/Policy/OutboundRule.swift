package import Identity
package import Net

/// What an explicit outbound rule does.
package enum OutboundAction: String, Hashable, Sendable, CaseIterable {
  case mtls
  /// TLS to a server outside the mesh; the application speaks plaintext.
  case tls
  /// The application brings its own TLS: bytes are relayed as they are.
  case passthrough
  case plaintext
  case deny
}

/// `outbound.rules[].sni`: a server name, or every name below a domain.
package struct ServerNamePattern: Hashable, Sendable {
  /// In lower case.
  private let name: String
  private let isSuffix: Bool

  /// Reads a DNS name, or `*.` and one; nil for anything else.
  package init?(_ text: String) {
    isSuffix = text.hasPrefix("*.")
    guard case .name(let name) = ServerName(isSuffix ? String(text.dropFirst(2)) : text) else {
      return nil
    }
    self.name = name
  }

  /// Whether a ClientHello's server name fits, whatever its case (RFC 6066 §3).
  package func matches(_ serverName: String) -> Bool {
    let serverName = serverName.lowercased()
    return isSuffix ? serverName.hasSuffix("." + name) : serverName == name
  }
}

/// `outbound.rules[].tls`: whom the server must prove to be, and what it is shown.
package struct TLSOrigination: Hashable, Sendable {
  /// PEM files, absolute paths.
  package struct Credential: Hashable, Sendable {
    package var certificate: String
    package var privateKey: String

    package init(certificate: String, privateKey: String) {
      self.certificate = certificate
      self.privateKey = privateKey
    }
  }

  /// What the end of a stream without close_notify is for the application.
  package enum MissingCloseNotify: String, Hashable, Sendable, CaseIterable {
    /// A reset: the stream may have been cut.
    case reset
    /// The end, as many HTTP servers mean it.
    case end
  }

  /// A DNS name, sent as SNI, or an IP address.
  package var serverName: String
  /// Absolute path of a PEM file; nil: the system's authorities.
  package var authorities: String?
  package var credential: Credential?
  package var missingCloseNotify = MissingCloseNotify.reset

  package init(serverName: String) { self.serverName = serverName }
}

/// One entry of `outbound.rules`; the first that matches wins.
package struct OutboundRule: Hashable, Sendable {
  /// Destination ranges; never empty.
  package var to: [CIDR]
  /// Destination ports; empty means every port.
  package var ports: PortSet
  /// Server names, one of which the client's TLS must ask for; empty means that it is not looked
  /// into.
  package var serverNames: [ServerNamePattern]
  package var action: OutboundAction
  /// SPIFFE IDs, one of which the peer must present; empty means any ID that verifies.
  package var expect: [SPIFFEID]
  /// With `tls` only.
  package var origination: TLSOrigination?

  package init(
    to: [CIDR], ports: PortSet = PortSet(), serverNames: [ServerNamePattern] = [],
    action: OutboundAction, expect: [SPIFFEID] = [], origination: TLSOrigination? = nil
  ) {
    self.to = to
    self.ports = ports
    self.serverNames = serverNames
    self.action = action
    self.expect = expect
    self.origination = origination
  }

  /// Whether address and port fit.
  package func covers(_ destination: SocketAddress) -> Bool {
    (ports.isEmpty || ports.contains(destination.port))
      && to.contains { $0.contains(destination.address) }
  }

  package func matches(_ destination: SocketAddress, serverName: String?) -> Bool {
    guard covers(destination) else { return false }
    guard !serverNames.isEmpty else { return true }
    guard let serverName else { return false }
    return serverNames.contains { $0.matches(serverName) }
  }
}
