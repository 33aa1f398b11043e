internal import COpenSSL
package import Identity

/// What would become of a peer that presents the certificates of a file.
package struct PeerVerdict: Sendable {
  /// Whom the leaf names, if it can be read.
  package let id: SPIFFEID?
  /// nil: it would be accepted.
  package let refusal: PeerRefusal?
  package let detail: String

  /// - Parameters:
  ///   - pem: a file with the leaf first, then its intermediates.
  ///   - expect: if not empty, the IDs of which the peer's must be one.
  /// - Throws: if the file cannot be read, or is no PEM.
  package init(
    pem path: String, bundles: [TrustBundle], expect: [SPIFFEID]
  ) throws(IdentityError) {
    // One more than a peer may send, so that it is refused in the handshake's own words.
    let chain = try PEMFile.certificates(
      path, limit: PeerVerification.maximumPeerCertificates + 1)
    let stack = unsafe culvert_X509_stack_new()
    defer {
      unsafe culvert_X509_stack_free(stack)
      withExtendedLifetime(chain) {}
    }
    for certificate in chain { unsafe culvert_X509_stack_push(stack, certificate.pointer) }
    id = try? unsafe LeafProfile.spiffeID(chain[0].pointer)
    let verification: PeerVerification
    do throws(TLSSetupError) {
      verification = try PeerVerification(bundles)
    } catch {
      throw IdentityError(file: path, reason: "cannot be checked: \(error)")
    }
    do throws(Rejection) {
      _ = try unsafe verification.verify(chain[0].pointer, untrusted: stack, expect: expect)
      refusal = nil
      detail = ""
    } catch {
      refusal = error.refusal
      detail = error.detail
    }
  }
}
