internal import COpenSSL
internal import Glibc
internal import Identity

/// What a successful verification has found.
struct VerifiedPath {
  let id: SPIFFEID
  let leafNotAfterSeconds: Int64
  /// The earliest end and the latest beginning of any certificate of the path, in Unix seconds.
  let notAfterSeconds: Int64
  let notBeforeSeconds: Int64
}

/// The trust bundles as OpenSSL stores: one per trust domain, never merged, and none of the
/// system's own certificates in any (SPIFFE Federation §7.3).
///
/// Holds its own references to the certificates. Not thread-safe: one per worker.
@safe final class PeerVerification {
  /// Certificates a peer may send, its leaf included. Bounds what building a path can cost.
  static let maximumPeerCertificates = 9
  /// Intermediates allowed between a leaf and its trust anchor.
  static let maximumIntermediates: Int32 = 8

  private var stores: [TrustDomain: Store] = [:]

  @safe private struct Store {
    let pointer: OpaquePointer
    let hasRevocationLists: Bool
  }

  /// Which checks a path must pass.
  enum Occasion {
    case handshake
    /// A peer whose connections live may have outlived its certificate; whether that ends them is
    /// `connectionLifetime`'s to say.
    case again
  }

  init(_ bundles: [TrustBundle]) throws(TLSSetupError) {
    for bundle in bundles {
      guard let store = unsafe X509_STORE_new() else {
        throw TLSSetupError("X509_STORE_new: \(OpenSSLError.takeReason())")
      }
      stores[bundle.trustDomain] = unsafe Store(
        pointer: store, hasRevocationLists: !bundle.revocationLists.isEmpty)
      unsafe X509_STORE_set_verify_cb(store, Self.tolerate)
      for certificate in bundle.certificates {
        try unsafe require(
          X509_STORE_add_cert(store, certificate.pointer) == 1, "X509_STORE_add_cert")
      }
      for list in bundle.revocationLists {
        try unsafe require(X509_STORE_add_crl(store, list.pointer) == 1, "X509_STORE_add_crl")
      }
    }
  }

  deinit {
    while let (_, store) = stores.popFirst() { unsafe X509_STORE_free(store.pointer) }
  }

  /// Who the peer is, by everything SPIFFE and RFC 5280 ask.
  ///
  /// - Parameters:
  ///   - untrusted: the certificates the peer sent, the leaf among them; borrowed.
  ///   - expect: if not empty, the IDs of which the peer's must be one.
  func verify(
    _ leaf: OpaquePointer, untrusted: OpaquePointer?, expect: [SPIFFEID],
    on occasion: Occasion = .handshake
  ) throws(Rejection) -> VerifiedPath {
    if let untrusted = unsafe untrusted,
      unsafe Int(culvert_X509_stack_count(untrusted)) > Self.maximumPeerCertificates
    {
      throw Rejection(.chainTooLong, error: X509_V_ERR_CERT_CHAIN_TOO_LONG)
    }
    let id = try unsafe LeafProfile.check(leaf)
    guard let store = stores[id.trustDomain] else {
      throw Rejection(
        .unknownTrustDomain, id.description, error: X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY)
    }
    let path = try unsafe validatePath(id, leaf, untrusted, store, occasion)
    try Self.check(id, isOneOf: expect)
    return path
  }

  static func check(_ id: SPIFFEID, isOneOf expect: [SPIFFEID]) throws(Rejection) {
    guard expect.isEmpty || expect.contains(id) else {
      throw Rejection(.unexpectedIdentity, id.description)
    }
  }

  /// Verifies a peer again that was verified before, and notes on it what came of it. That a
  /// certificate has ended meanwhile is no reason to refuse it.
  ///
  /// - Returns: why it is refused; nil if it is not.
  func verifyAgain(_ peer: VerifiedPeer, trustEpoch: UInt64) -> PeerRefusal? {
    do throws(Rejection) {
      let path = try pathAgain(peer)
      // By other certificates than before it may be good for another time: its connections go on,
      // but the next handshake is verified anew.
      if path.notAfterSeconds == peer.notAfterSeconds,
        path.notBeforeSeconds == peer.notBeforeSeconds
      {
        peer.confirm(trustEpoch: trustEpoch)
      }
      return nil
    } catch {
      peer.revoke(error.refusal)
      return error.refusal
    }
  }

  private func pathAgain(_ peer: VerifiedPeer) throws(Rejection) -> VerifiedPath {
    let certificates = Certificate.list(der: peer.chain)
    let stack = unsafe culvert_X509_stack_new()
    defer {
      unsafe culvert_X509_stack_free(stack)
      withExtendedLifetime(certificates) {}
    }
    guard let certificates, let leaf = certificates.first, let stack = unsafe stack else {
      throw Rejection(.pathInvalid, "out of memory")
    }
    for certificate in certificates {
      guard unsafe culvert_X509_stack_push(stack, certificate.pointer) > 0 else {
        throw Rejection(.pathInvalid, "out of memory")
      }
    }
    guard let store = stores[peer.id.trustDomain] else { throw Rejection(.unknownTrustDomain) }
    return try unsafe validatePath(peer.id, leaf.pointer, stack, store, .again)
  }

  /// RFC 5280 §6 against one trust domain's anchors, at the present time.
  private func validatePath(
    _ id: SPIFFEID, _ leaf: OpaquePointer, _ untrusted: OpaquePointer?, _ store: Store,
    _ occasion: Occasion
  ) throws(Rejection) -> VerifiedPath {
    let context = unsafe X509_STORE_CTX_new()
    defer { unsafe X509_STORE_CTX_free(context) }
    guard let context = unsafe context,
      unsafe X509_STORE_CTX_init(context, store.pointer, leaf, untrusted) == 1,
      let parameters = unsafe X509_STORE_CTX_get0_param(context)
    else { throw Rejection(.pathInvalid, "out of memory", error: X509_V_ERR_OUT_OF_MEM) }
    // A bundle may hold a CA that is not self-signed; it is an anchor all the same. No leaf can
    // become one: bundles hold CA certificates only, and a leaf must not be a CA.
    var flags = UInt(X509_V_FLAG_X509_STRICT | X509_V_FLAG_PARTIAL_CHAIN)
    if store.hasRevocationLists {
      flags |= UInt(X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL)
    }
    if occasion == .again { flags |= UInt(X509_V_FLAG_NO_CHECK_TIME) }
    unsafe X509_VERIFY_PARAM_set_flags(parameters, flags)
    unsafe X509_VERIFY_PARAM_set_purpose(parameters, X509_PURPOSE_ANY)
    unsafe X509_VERIFY_PARAM_set_depth(parameters, Self.maximumIntermediates)
    unsafe X509_VERIFY_PARAM_set_auth_level(parameters, TLSContext.securityLevel)
    guard unsafe X509_verify_cert(context) == 1 else {
      let error = unsafe X509_STORE_CTX_get_error(context)
      throw Self.rejection(error, depth: unsafe X509_STORE_CTX_get_error_depth(context))
    }
    return unsafe Self.path(id, leaf, X509_STORE_CTX_get0_chain(context))
  }

  private static func path(
    _ id: SPIFFEID, _ leaf: OpaquePointer, _ chain: OpaquePointer?
  ) -> VerifiedPath {
    let leafEnd = unsafe Certificate.seconds(X509_get0_notAfter(leaf))
    var end = leafEnd
    var begin = unsafe Certificate.seconds(X509_get0_notBefore(leaf))
    for index in unsafe 0..<(chain.map { unsafe culvert_X509_stack_count($0) } ?? 0) {
      let certificate = unsafe culvert_X509_stack_value(chain, index)
      end = min(end, unsafe Certificate.seconds(X509_get0_notAfter(certificate)))
      begin = max(begin, unsafe Certificate.seconds(X509_get0_notBefore(certificate)))
    }
    return VerifiedPath(
      id: id, leafNotAfterSeconds: leafEnd, notAfterSeconds: end, notBeforeSeconds: begin)
  }

  /// Lets pass what X509_STRICT demands and SPIFFE does not: key identifiers, which help to find a
  /// path and prove nothing. And that an issuer has no revocation list, one whose successor is
  /// late, or one from a clock ahead of ours: what a list names is revoked, and its dates must not
  /// stop a whole mesh
  /// (Docs/THREAT_MODEL.md).
  private static let tolerate: @convention(c) (Int32, OpaquePointer?) -> Int32 = {
    succeeded, context in
    guard succeeded == 0 else { return 1 }
    switch unsafe X509_STORE_CTX_get_error(context) {
    case X509_V_ERR_MISSING_AUTHORITY_KEY_IDENTIFIER,
      X509_V_ERR_MISSING_SUBJECT_KEY_IDENTIFIER,
      X509_V_ERR_UNABLE_TO_GET_CRL, X509_V_ERR_CRL_HAS_EXPIRED, X509_V_ERR_CRL_NOT_YET_VALID:
      unsafe X509_STORE_CTX_set_error(context, X509_V_OK)
      return 1
    default: return 0
    }
  }

  /// What a failure of path validation, an `X509_V_ERR_*`, is called.
  static func rejection(_ error: Int32, depth: Int32) -> Rejection {
    let text = unsafe X509_verify_cert_error_string(Int(error)).map { unsafe String(cString: $0) }
    let detail = "\(text ?? "error \(error)") at depth \(depth)"
    let refusal: PeerRefusal =
      switch error {
      case X509_V_ERR_CERT_REVOKED: .certificateRevoked
      case X509_V_ERR_CERT_HAS_EXPIRED where depth == 0: .certificateExpired
      case X509_V_ERR_CERT_NOT_YET_VALID where depth == 0: .certificateNotYetValid
      case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, X509_V_ERR_CERT_SIGNATURE_FAILURE,
        X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN,
        X509_V_ERR_CERT_UNTRUSTED:
        .untrustedChain
      case X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH: .serverNameMismatch
      default: .pathInvalid
      }
    return Rejection(refusal, detail, error: error)
  }
}
