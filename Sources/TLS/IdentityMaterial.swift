internal import COpenSSL
internal import Glibc
package import Identity

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
  /// Counts the pairs of certificate and key, and separately the sets of bundles and revocation
  /// lists, from 1. A verification, a ticket and a session are good for the numbers they were made
  /// under.
  package let svidEpoch: UInt64
  package let trustEpoch: UInt64

  let chain: [Certificate]
  let key: PrivateKey

  /// Our own certificates, the leaf first, in DER.
  package var chainDER: [[UInt8]] { chain.map(\.der) }

  /// Checks an identity: our own leaf must be one that we would accept from a peer.
  ///
  /// - Parameter mayHaveEnded: the pair is in use already, and only the trust is another: that it
  ///   has ended meanwhile must not keep the old trust alive.
  /// - Throws: what is wrong, with the place it is wrong in.
  package init(
    _ pair: KeyPair, bundles: [TrustBundle], svidEpoch: UInt64, trustEpoch: UInt64,
    mayHaveEnded: Bool = false
  ) throws(IdentityError) {
    id = try Self.verify(pair.chain, bundles, pair.source, mayHaveEnded)
    chain = pair.chain
    key = pair.key
    self.bundles = bundles
    self.svidEpoch = svidEpoch
    self.trustEpoch = trustEpoch
    notBeforeSeconds = chain[0].notBeforeSeconds
    notAfterSeconds = chain[0].notAfterSeconds
  }

  /// Loads and checks an identity.
  ///
  /// - Parameters:
  ///   - certificate: a PEM file, the leaf first, then its intermediates.
  ///   - privateKey: an unencrypted PEM file of mode 0600 or stricter.
  ///   - bundles: one PEM file for each trust domain; the leaf's own must be among them.
  /// - Throws: what is wrong, with the file it is wrong in. Nothing is kept of what was read.
  package static func load(
    certificate: String, privateKey: String, bundles: [(trustDomain: TrustDomain, pem: String)]
  ) throws(IdentityError) -> IdentityMaterial {
    let pair = try KeyPair(certificate: certificate, privateKey: privateKey)
    var loaded: [TrustBundle] = []
    for bundle in bundles {
      guard !loaded.contains(where: { $0.trustDomain == bundle.trustDomain }) else {
        throw IdentityError(
          file: bundle.pem, reason: "is a second bundle for \(bundle.trustDomain)")
      }
      loaded.append(try TrustBundle(bundle.trustDomain, pem: bundle.pem))
    }
    return try IdentityMaterial(pair, bundles: loaded, svidEpoch: 1, trustEpoch: 1)
  }

  /// From what has been checked already.
  init(id: SPIFFEID, chain: [Certificate], key: PrivateKey, bundles: [TrustBundle]) {
    self.id = id
    self.chain = chain
    self.key = key
    self.bundles = bundles
    svidEpoch = 1
    trustEpoch = 1
    notBeforeSeconds = chain[0].notBeforeSeconds
    notAfterSeconds = chain[0].notAfterSeconds
  }

  private static func verify(
    _ chain: [Certificate], _ bundles: [TrustBundle], _ path: String, _ mayHaveEnded: Bool
  ) throws(IdentityError) -> SPIFFEID {
    let untrusted = unsafe culvert_X509_stack_new()
    defer { unsafe culvert_X509_stack_free(untrusted) }
    for certificate in chain { unsafe culvert_X509_stack_push(untrusted, certificate.pointer) }
    do {
      // That others refuse us is theirs to find out; a list that names us must still keep out the
      // others it names.
      let bundles = bundles.map {
        TrustBundle(trustDomain: $0.trustDomain, certificates: $0.certificates)
      }
      return try unsafe PeerVerification(bundles).verify(
        chain[0].pointer, untrusted: untrusted, expect: [],
        on: mayHaveEnded ? .again : .handshake
      ).id
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
