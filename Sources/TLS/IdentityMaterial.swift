internal import COpenSSL
internal import Glibc
package import Identity

/// The trust anchors of one trust domain.
package struct TrustBundle: Sendable {
  /// Far more than any real bundle holds.
  package static let maximumCertificates = 1024

  package let trustDomain: TrustDomain
  let certificates: [Certificate]

  /// Trust anchors in the bundle; at least 1.
  package var count: Int { certificates.count }

  /// Reads and checks a PEM file. Each certificate must be a CA; one that carries a SPIFFE ID must
  /// carry that of the trust domain itself, without a path (X509-SVID §3.2).
  package init(_ trustDomain: TrustDomain, pem path: String) throws(IdentityError) {
    let certificates = try PEMFile.certificates(path, limit: Self.maximumCertificates)
    for (index, certificate) in certificates.enumerated() {
      if let fault = Self.fault(certificate, trustDomain) {
        throw IdentityError(file: path, reason: "certificate \(index + 1) \(fault)")
      }
    }
    self.init(trustDomain: trustDomain, certificates: certificates)
  }

  /// From certificates already checked.
  init(trustDomain: TrustDomain, certificates: [Certificate]) {
    self.trustDomain = trustDomain
    self.certificates = certificates
  }

  private static func fault(_ certificate: Certificate, _ trustDomain: TrustDomain) -> String? {
    if certificate.isMalformed { return "has a malformed extension" }
    guard certificate.isCA else { return "is not a CA certificate" }
    do throws(Rejection) {
      let id = try unsafe LeafProfile.spiffeID(certificate.pointer)
      guard id.trustDomain == trustDomain else { return "belongs to \(id), not to \(trustDomain)" }
      guard id.path.isEmpty else { return "is no signing certificate: \(id) has a path" }
      return nil
    } catch {
      // A CA need not name its trust domain (X509-SVID §3.2 says SHOULD).
      return error.refusal == .noURISAN ? nil : "has \(error.refusal.rawValue): \(error.detail)"
    }
  }
}

/// The workload's certificate, key and trust bundles: loaded, checked together, immutable. Shared by
/// all workers.
package final class IdentityMaterial: Sendable {
  /// Certificates in the workload's own file, its leaf included.
  package static let maximumChainCertificates = PeerVerification.maximumPeerCertificates
  /// Bytes (DER) of them. With it the largest flight fits in `RecordBuffers.maximumOverflowBytes`.
  package static let maximumChainBytes = 24 * 1024

  package let id: SPIFFEID
  /// Of the leaf, in Unix seconds.
  package let notBeforeSeconds: Int64
  /// Of the leaf, in Unix seconds.
  package let notAfterSeconds: Int64
  /// Every trust domain whose members we can verify, in the order of the configuration.
  package let bundles: [TrustBundle]
  package var trustDomains: [TrustDomain] { bundles.map(\.trustDomain) }

  let chain: [Certificate]
  let key: PrivateKey

  /// Loads and checks an identity: our own leaf must be one that we would accept from a peer.
  ///
  /// - Parameters:
  ///   - certificate: a PEM file, the leaf first, then its intermediates.
  ///   - privateKey: an unencrypted PEM file of mode 0600 or stricter.
  ///   - bundles: one PEM file for each trust domain; the leaf's own must be among them.
  /// - Throws: what is wrong, with the file it is wrong in. Nothing is kept of what was read.
  package static func load(
    certificate: String, privateKey: String, bundles: [(trustDomain: TrustDomain, pem: String)]
  ) throws(IdentityError) -> IdentityMaterial {
    let chain = try loadChain(certificate)
    let key = try PEMFile.privateKey(privateKey)
    guard unsafe X509_check_private_key(chain[0].pointer, key.pointer) == 1 else {
      ERR_clear_error()
      throw IdentityError(
        file: privateKey, reason: "is not the key of the certificate in \(certificate)")
    }
    var loaded: [TrustBundle] = []
    for bundle in bundles {
      guard !loaded.contains(where: { $0.trustDomain == bundle.trustDomain }) else {
        throw IdentityError(
          file: bundle.pem, reason: "is a second bundle for \(bundle.trustDomain)")
      }
      loaded.append(try TrustBundle(bundle.trustDomain, pem: bundle.pem))
    }
    let id = try verify(chain, loaded, certificate)
    return IdentityMaterial(id: id, chain: chain, key: key, bundles: loaded)
  }

  init(id: SPIFFEID, chain: [Certificate], key: PrivateKey, bundles: [TrustBundle]) {
    self.id = id
    self.chain = chain
    self.key = key
    self.bundles = bundles
    notBeforeSeconds = chain[0].notBeforeSeconds
    notAfterSeconds = chain[0].notAfterSeconds
  }

  private static func loadChain(_ path: String) throws(IdentityError) -> [Certificate] {
    let chain = try PEMFile.certificates(path, limit: maximumChainCertificates)
    let bytes = chain.reduce(0) { unsafe $0 + Int(i2d_X509($1.pointer, nil)) }
    guard bytes <= maximumChainBytes else {
      throw IdentityError(file: path, reason: "holds more than \(maximumChainBytes) bytes (DER)")
    }
    return chain
  }

  private static func verify(_ chain: [Certificate], _ bundles: [TrustBundle], _ path: String)
    throws(IdentityError) -> SPIFFEID
  {
    let untrusted = unsafe culvert_X509_stack_new()
    defer { unsafe culvert_X509_stack_free(untrusted) }
    for certificate in chain { unsafe culvert_X509_stack_push(untrusted, certificate.pointer) }
    do {
      return try unsafe PeerVerification(bundles).verify(
        chain[0].pointer, untrusted: untrusted, expect: [])
    } catch let error as Rejection {
      throw IdentityError(file: path, reason: reason(error, chain[0]))
    } catch {
      throw IdentityError(file: path, reason: "cannot be checked: \(error)")
    }
  }

  private static func reason(_ rejection: Rejection, _ leaf: Certificate) -> String {
    let word = rejection.refusal.rawValue
    return switch rejection.refusal {
    case .certificateExpired: "\(word): it ended at \(date(leaf.notAfterSeconds))"
    case .certificateNotYetValid: "\(word): it begins at \(date(leaf.notBeforeSeconds))"
    case .unknownTrustDomain: "\(word): no bundle for the trust domain of \(rejection.detail)"
    default: rejection.detail.isEmpty ? word : "\(word): \(rejection.detail)"
    }
  }

  /// ISO 8601, UTC.
  private static func date(_ seconds: Int64) -> String {
    var time = time_t(seconds)
    var parts = unsafe tm()
    var text = [UInt8](repeating: 0, count: 32)
    unsafe gmtime_r(&time, &parts)
    let count = unsafe text.withUnsafeMutableBytes { buffer in
      unsafe strftime(
        buffer.baseAddress, buffer.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
    }
    return String(decoding: text[..<count], as: UTF8.self)
  }
}
