internal import COpenSSL
package import Net

/// What TLS to one outside server takes: whom we expect there, who vouches for it, and whom we are
/// ourselves if it asks. Made and checked on the control thread, immutable, shared by all workers.
package final class OriginationMaterial: Sendable {
  /// Bytes of the protocols offered, in wire form.
  package static let maximumProtocolBytes = 256

  package let serverName: ServerName
  /// What is offered by ALPN, in this order; if nothing, the extension is not sent.
  package let protocols: [String]
  let authorities: OriginationAuthorities
  /// Presented if the server asks for a certificate.
  let credential: KeyPair?

  /// - Parameters:
  ///   - serverName: a DNS name, which is sent (SNI, RFC 6066 §3) and must be among the DNS names of
  ///     the server's certificate (RFC 6125 §6.4; the subject does not count, a wildcard stands for
  ///     one whole label); or an address, which is not sent and must be among its IP addresses.
  ///   - protocols: names of 1 to 255 bytes; a server that selects none of them is accepted.
  /// - Throws: what is wrong, with the file or the name it is wrong in.
  package init(
    serverName: String, authorities: OriginationAuthorities, credential: KeyPair? = nil,
    protocols: [String] = []
  ) throws(IdentityError) {
    guard let name = ServerName(serverName) else {
      throw IdentityError(file: serverName, reason: "is neither a DNS name nor an IP address")
    }
    guard protocols.allSatisfy({ (1...255).contains($0.utf8.count) }),
      protocols.reduce(0, { $0 + 1 + $1.utf8.count }) <= Self.maximumProtocolBytes
    else {
      throw IdentityError(
        file: serverName,
        reason: "an ALPN protocol is empty, or all are longer than \(Self.maximumProtocolBytes)")
    }
    self.serverName = name
    self.authorities = authorities
    self.credential = credential
    self.protocols = protocols
    try check()
  }

  /// OpenSSL's own objections, such as to a key that is too weak, are to be known before a worker
  /// meets them.
  private func check() throws(IdentityError) {
    do throws(TLSSetupError) {
      _ = try OriginationContext(self)
    } catch {
      throw IdentityError(
        file: credential?.source ?? serverName.description, reason: error.description)
    }
  }

  /// The protocols as ALPN has them: length, name, length, name (RFC 7301 §3.1).
  var protocolList: [UInt8] {
    protocols.flatMap { [UInt8(truncatingIfNeeded: $0.utf8.count)] + Array($0.utf8) }
  }
}
