internal import COpenSSL
internal import Glibc
internal import Identity

/// The OpenSSL contexts of one identity, for both roles.
///
/// One per worker and epoch. Not thread-safe; its sessions keep it alive, so a worker lets go of an
/// epoch by dropping its own reference.
@safe package final class TLSContext {
  static let groups = "X25519:P-256:P-384"
  /// OpenSSL's level 2: at least 112 bits, so no RSA below 2048 and no SHA-1.
  static let securityLevel: Int32 = 2
  /// Bytes of certificates a peer may send: room for `maximumPeerCertificates` ordinary ones.
  static let maximumPeerCertificateBytes = 64 * 1024

  /// The identity that sessions of this context present.
  package let identity: IdentityMaterial
  let shared: SharedTLSState
  let verification: PeerVerification
  private let suites: [CipherSuite]
  let server: OpaquePointer
  let client: OpaquePointer

  /// - Parameters:
  ///   - suites: what is offered, or accepted, in this order of preference.
  ///   - shared: what it has in common with the contexts of other workers and epochs.
  package init(
    _ identity: IdentityMaterial, suites: [CipherSuite] = CipherSuite.allCases,
    shared: SharedTLSState = SharedTLSState()
  ) throws(TLSSetupError) {
    self.identity = identity
    self.shared = shared
    self.suites = suites
    verification = try PeerVerification(identity.bundles)
    guard let server = unsafe SSL_CTX_new(TLS_server_method()) else {
      throw TLSSetupError("SSL_CTX_new: \(OpenSSLError.takeReason())")
    }
    guard let client = unsafe SSL_CTX_new(TLS_client_method()) else {
      unsafe SSL_CTX_free(server)
      throw TLSSetupError("SSL_CTX_new: \(OpenSSLError.takeReason())")
    }
    unsafe self.server = unsafe server
    unsafe self.client = unsafe client
    try unsafe configureBoth(server)
    try unsafe configureBoth(client)
    try configureServer()
    try configureResumption()
    try unsafe require(
      Self.offer.withUnsafeBufferPointer {
        unsafe SSL_CTX_set_alpn_protos(client, $0.baseAddress, UInt32($0.count)) == 0
      }, "ALPN")
  }

  deinit {
    unsafe SSL_CTX_free(server)
    unsafe SSL_CTX_free(client)
  }

  private func configureBoth(_ context: OpaquePointer) throws(TLSSetupError) {
    try unsafe require(
      culvert_SSL_CTX_set_protocol_versions(context, TLS1_3_VERSION, TLS1_3_VERSION) == 1,
      "TLS 1.3")
    unsafe SSL_CTX_set_security_level(context, Self.securityLevel)
    try unsafe require(
      SSL_CTX_set_ciphersuites(context, suites.map(\.name).joined(separator: ":")) == 1,
      "cipher suites")
    try unsafe require(culvert_SSL_CTX_set1_groups_list(context, Self.groups) == 1, "groups")
    unsafe SSL_CTX_set_options(
      context,
      culvert_SSL_OP_NO_COMPRESSION | culvert_SSL_OP_NO_RENEGOTIATION
        | culvert_SSL_OP_SERVER_PREFERENCE)
    let mode =
      SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN
    unsafe culvert_SSL_CTX_set_mode(context, Int(mode))
    unsafe culvert_SSL_CTX_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
    unsafe culvert_SSL_CTX_set_max_cert_list(context, Self.maximumPeerCertificateBytes)
    // A record at a time, never beyond: the connection can be handed over at any boundary.
    unsafe culvert_SSL_CTX_set_read_ahead(context, 0)
    try unsafe presentIdentity(context)
    unsafe SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
    unsafe SSL_CTX_set_cert_verify_callback(context, TLSContext.verifyPeer, nil)
    unsafe SSL_CTX_set_info_callback(context, SessionState.noteAlert)
    unsafe SSL_CTX_set_keylog_callback(context, SessionState.captureSecret)
  }

  private func presentIdentity(_ context: OpaquePointer) throws(TLSSetupError) {
    try unsafe require(
      SSL_CTX_use_certificate(context, identity.chain[0].pointer) == 1, "certificate")
    try unsafe require(SSL_CTX_use_PrivateKey(context, identity.key.pointer) == 1, "private key")
    // The root stays out: whoever trusts it has it.
    for certificate in identity.chain.dropFirst() where !certificate.isSelfSigned {
      try unsafe require(
        culvert_SSL_CTX_add1_chain_cert(context, certificate.pointer) == 1, "certificate chain")
    }
  }

  private func configureServer() throws(TLSSetupError) {
    try unsafe require(SSL_CTX_set_max_early_data(server, 0) == 1, "early data")
    try unsafe require(SSL_CTX_set_recv_max_early_data(server, 0) == 1, "early data")
    unsafe SSL_CTX_set_client_hello_cb(server, TLSContext.requireALPN, nil)
    unsafe SSL_CTX_set_alpn_select_cb(server, TLSContext.selectALPN, nil)
  }
}

// MARK: - ALPN

extension TLSContext {
  package static let culvertProtocol = "culvert/1"
  package static let istioProtocol = "istio"

  /// What a client offers, in wire form: length, name, length, name.
  private static let offer: [UInt8] =
    meshPortOffer + [UInt8(istioProtocol.utf8.count)] + Array(istioProtocol.utf8)

  private static let meshPortOffer: [UInt8] =
    [UInt8(culvertProtocol.utf8.count)] + Array(culvertProtocol.utf8)

  /// A new SSL object, or nil without memory.
  func makeSSL(_ role: TLSRole) throws(TLSSetupError) -> OpaquePointer? {
    let ssl = unsafe SSL_new(role.isClient ? client : server)
    guard role == .meshClient, unsafe ssl != nil else { return unsafe ssl }
    let isSet = unsafe Self.meshPortOffer.withUnsafeBufferPointer {
      unsafe SSL_set_alpn_protos(ssl, $0.baseAddress, UInt32($0.count)) == 0
    }
    guard !isSet else { return unsafe ssl }
    unsafe SSL_free(ssl)
    throw TLSSetupError("ALPN: \(OpenSSLError.takeReason())")
  }

  /// OpenSSL asks `selectALPN` only if the client offers something; offering nothing is no mesh
  /// client either.
  private static let requireALPN: SSL_client_hello_cb_fn = { ssl, alert, _ in
    var bytes: UnsafePointer<UInt8>?
    var count = 0
    let type = UInt32(TLSEXT_TYPE_application_layer_protocol_negotiation)
    guard unsafe SSL_client_hello_get0_ext(ssl, type, &bytes, &count) == 1 else {
      unsafe alert?.pointee = Int32(TLS1_AD_NO_APPLICATION_PROTOCOL)
      return SSL_CLIENT_HELLO_ERROR
    }
    return SSL_CLIENT_HELLO_SUCCESS
  }

  private static let selectALPN: SSL_CTX_alpn_select_cb_func = {
    ssl, selected, selectedCount, offered, offeredCount, _ in
    guard let ssl = unsafe ssl, let offered = unsafe offered,
      let state = unsafe SessionState.of(ssl)
    else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    let list = unsafe UnsafeBufferPointer(start: offered, count: Int(offeredCount))
    var range = unsafe find(culvertProtocol, in: list)
    if range == nil, unsafe state.pointee.mesh?.role == .server {
      range = unsafe find(istioProtocol, in: list)
    }
    guard let range else { return SSL_TLSEXT_ERR_ALERT_FATAL }
    unsafe selected?.pointee = unsafe offered + range.lowerBound
    unsafe selectedCount?.pointee = UInt8(range.count)
    return SSL_TLSEXT_ERR_OK
  }

  /// Where a name is in a client's list (RFC 7301 §3.1).
  private static func find(_ name: String, in list: UnsafeBufferPointer<UInt8>) -> Range<Int>? {
    var index = 0
    while index < list.count {
      let start = index + 1
      let end = unsafe start + Int(list[index])
      guard end <= list.count else { return nil }
      if unsafe list[start..<end].elementsEqual(name.utf8) { return start..<end }
      index = end
    }
    return nil
  }
}

// MARK: - Callbacks

extension TLSContext {
  private static let verifyPeer:
    @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32 = { store, _ in
      guard let store = unsafe store,
        let ssl = unsafe X509_STORE_CTX_get_ex_data(
          store, SSL_get_ex_data_X509_STORE_CTX_idx()),
        let state = unsafe SessionState.of(OpaquePointer(ssl)),
        let mesh = unsafe state.pointee.mesh
      else { return 0 }
      guard let leaf = unsafe X509_STORE_CTX_get0_cert(store) else {
        unsafe state.pointee.rejection = Rejection(.noCertificate)
        return 0
      }
      do throws(Rejection) {
        let peer = try unsafe mesh.context.verified(
          leaf, untrusted: X509_STORE_CTX_get0_untrusted(store), expect: mesh.expect)
        unsafe state.pointee.mesh?.peer = peer
        unsafe X509_STORE_CTX_set_error(store, X509_V_OK)
        return 1
      } catch {
        unsafe X509_STORE_CTX_set_error(store, error.verifyError)
        unsafe state.pointee.rejection = error
        return 0
      }
    }

  /// Who the peer is, from the registry if this leaf has been verified already.
  private func verified(
    _ leaf: OpaquePointer, untrusted: OpaquePointer?, expect: [SPIFFEID]
  ) throws(Rejection) -> VerifiedPeer {
    guard let hash = unsafe LeafHash(leaf) else {
      throw Rejection(.pathInvalid, "out of memory", error: X509_V_ERR_OUT_OF_MEM)
    }
    let epoch = identity.trustEpoch
    if let known = shared.peers.find(hash, trustEpoch: epoch, now: Int64(time(nil))) {
      try PeerVerification.check(known.id, isOneOf: expect)
      return known
    }
    let path = try unsafe verification.verify(leaf, untrusted: untrusted, expect: expect)
    var chain: [UInt8] = []
    for index in unsafe 0..<(untrusted.map { unsafe culvert_X509_stack_count($0) } ?? 0) {
      let certificate = unsafe culvert_X509_stack_value(untrusted, index)
      chain += unsafe DER.bytes { unsafe i2d_X509(certificate, $0) }
    }
    return shared.peers.keep(
      VerifiedPeer(path, leaf: hash, chain: chain, trustEpoch: epoch))
  }

  /// Why a peer verified by another context is not trusted by this one; nil if it is.
  package func refusal(of peer: VerifiedPeer) -> PeerRefusal? {
    if let refusal = peer.refusal { return refusal }
    guard peer.trustEpoch < identity.trustEpoch else { return nil }
    return verification.verifyAgain(peer, trustEpoch: identity.trustEpoch)
  }
}
