internal import Foundation

/// A certificate and its key, as files.
package struct Credential: Sendable {
  /// PEM, the leaf first.
  package let certificate: String
  /// PEM, mode 0600.
  package let privateKey: String
  /// The first URI SAN.
  package let identity: String

  package init(certificate: String, privateKey: String, identity: String) {
    self.certificate = certificate
    self.privateKey = privateKey
    self.identity = identity
  }
}

/// What to put in a leaf certificate; the defaults make a valid X.509-SVID.
package struct LeafRequest: Sendable {
  package var uris: [String]
  package var dnsNames: [String] = []
  package var ipAddresses: [String] = []
  /// Hours from now; negative ones are in the past.
  package var notBeforeHours = -1
  package var notAfterHours = 24
  package var isCA = false
  package var keyUsage = "critical,digitalSignature"
  package var extendedKeyUsage: String? = "serverAuth,clientAuth"

  package init(_ uri: String) { uris = [uri] }

  /// An ordinary web certificate, as an application's own TLS uses.
  package init(dnsName: String) {
    uris = []
    dnsNames = [dnsName]
  }

  package func with(_ change: (inout LeafRequest) -> Void) -> LeafRequest {
    var copy = self
    change(&copy)
    return copy
  }
}

/// A certification authority run by the `openssl` program, so that nothing of Culvert's own judges
/// or makes what the tests present to it.
package final class Authority: Sendable {
  package let trustDomain: String
  /// PEM of the root.
  package let bundle: String
  private let directory: TemporaryDirectory
  private let counter = Box(0)
  /// Held while `openssl ca` runs, which keeps its database in a file.
  private let database = Box(())

  package init(trustDomain: String) throws {
    self.trustDomain = trustDomain
    directory = try TemporaryDirectory()
    bundle = directory.path + "/ca.pem"
    let configuration = try directory.write(
      """
      [req]
      distinguished_name = name
      x509_extensions = root
      prompt = no
      [name]
      O = \(trustDomain)
      [root]
      basicConstraints = critical,CA:true
      keyUsage = critical,keyCertSign,cRLSign
      subjectKeyIdentifier = hash
      subjectAltName = URI:spiffe://\(trustDomain)
      """, to: "root.cnf")
    try Program.check([
      "openssl", "req", "-x509", "-config", configuration, "-newkey", "ec", "-pkeyopt",
      "ec_paramgen_curve:P-256", "-nodes", "-days", "3650", "-keyout", directory.path + "/ca.key",
      "-out", bundle,
    ])
    try directory.write("", to: "index.txt")
  }

  /// Issues a leaf with exactly what the request says, sound or not.
  package func issue(_ request: LeafRequest) throws -> Credential {
    let number = counter.update {
      $0 += 1
      return $0
    }
    let base = "\(directory.path)/leaf\(number)"
    let configuration = try directory.write(configuration(for: request), to: "leaf\(number).cnf")
    try Program.check([
      "openssl", "req", "-new", "-config", configuration, "-newkey", "ec", "-pkeyopt",
      "ec_paramgen_curve:P-256", "-nodes", "-keyout", base + ".key", "-out", base + ".csr",
    ])
    try database.update { _ in
      _ = try Program.check([
        "openssl", "ca", "-config", configuration, "-batch", "-notext", "-in",
        base + ".csr", "-out", base + ".pem", "-startdate", Self.time(request.notBeforeHours),
        "-enddate", Self.time(request.notAfterHours),
      ])
    }
    return Credential(
      certificate: base + ".pem", privateKey: base + ".key", identity: request.uris.first ?? "")
  }

  /// Revokes certificates of this CA, for good.
  ///
  /// - Returns: the path of a PEM file with the list of all that were.
  package func revoke(_ credentials: [Credential]) throws -> String {
    let number = counter.update {
      $0 += 1
      return $0
    }
    let path = "\(directory.path)/list\(number).crl"
    let configuration = try directory.write(
      configuration(for: LeafRequest("spiffe://\(trustDomain)/nobody")), to: "list\(number).cnf")
    try database.update { _ in
      for credential in credentials {
        try Program.check([
          "openssl", "ca", "-config", configuration, "-revoke", credential.certificate,
        ])
      }
      try Program.check([
        "openssl", "ca", "-config", configuration, "-gencrl", "-crldays", "1", "-out", path,
      ])
    }
    return path
  }

  private func configuration(for request: LeafRequest) -> String {
    let names =
      request.uris.map { "URI:\($0)" } + request.dnsNames.map { "DNS:\($0)" }
      + request.ipAddresses.map { "IP:\($0)" }
    return """
      [req]
      distinguished_name = name
      prompt = no
      [name]
      O = SPIFFE
      [ca]
      default_ca = authority
      [authority]
      database = \(directory.path)/index.txt
      new_certs_dir = \(directory.path)
      certificate = \(bundle)
      private_key = \(directory.path)/ca.key
      default_md = sha256
      rand_serial = yes
      policy = anything
      unique_subject = no
      x509_extensions = leaf
      [anything]
      O = optional
      [leaf]
      basicConstraints = critical,CA:\(request.isCA)
      keyUsage = \(request.keyUsage)
      \(request.extendedKeyUsage.map { "extendedKeyUsage = \($0)" } ?? "")
      subjectKeyIdentifier = hash
      authorityKeyIdentifier = keyid
      subjectAltName = \(names.joined(separator: ","))
      """
  }

  private static func time(_ hours: Int) -> String {
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    formatter.timeZone = TimeZone(identifier: "UTC")
    formatter.dateFormat = "yyyyMMddHHmmss'Z'"
    return formatter.string(from: Date(timeIntervalSinceNow: Double(hours) * 3600))
  }
}

/// The identities of the standard mesh; made once for a whole test run.
package enum Identities {
  package static let authority = Result { try Authority(trustDomain: "demo.mesh") }
  /// Another trust domain, which nobody trusts unless a test says so.
  package static let stranger = Result { try Authority(trustDomain: "stranger.example") }
  package static let client = Result { try authority.get().issue(LeafRequest(clientID)) }
  package static let server = Result { try authority.get().issue(LeafRequest(serverID)) }
  package static let web = Result {
    try authority.get().issue(LeafRequest(dnsName: "app.example"))
  }

  package static let clientID = "spiffe://demo.mesh/ns/shop/sa/web"
  package static let serverID = "spiffe://demo.mesh/ns/shop/sa/db"
}
