internal import COpenSSL
internal import Net

/// The OpenSSL context of connections to one outside server.
///
/// One per worker and epoch. Not thread-safe; its sessions keep it alive. Sessions are not resumed.
@safe package final class OriginationContext {
  package let material: OriginationMaterial
  let pointer: OpaquePointer

  package init(_ material: OriginationMaterial) throws(TLSSetupError) {
    self.material = material
    unsafe pointer = try unsafe HTTPSContext.make(TLS_client_method())
    let suites = CipherSuite.allCases.map(\.name).joined(separator: ":")
    try unsafe require(SSL_CTX_set_ciphersuites(pointer, suites) == 1, "cipher suites")
    try unsafe require(culvert_SSL_CTX_set1_groups_list(pointer, TLSContext.groups) == 1, "groups")
    // The server's authorities are not ours.
    unsafe culvert_SSL_CTX_set_mode(pointer, Int(SSL_MODE_NO_AUTO_CHAIN))
    try presentCredential()
    try offerProtocols()
    try expectServer()
    unsafe SSL_CTX_set_info_callback(pointer, SessionState.noteAlert)
    unsafe SSL_CTX_set_keylog_callback(pointer, SessionState.captureSecret)
  }

  deinit { unsafe SSL_CTX_free(pointer) }

  private func presentCredential() throws(TLSSetupError) {
    guard let credential = material.credential else { return }
    try unsafe require(
      SSL_CTX_use_certificate(pointer, credential.chain[0].pointer) == 1, "certificate")
    try unsafe require(
      SSL_CTX_use_PrivateKey(pointer, credential.key.pointer) == 1, "private key")
    for certificate in credential.chain.dropFirst() where !certificate.isSelfSigned {
      try unsafe require(
        culvert_SSL_CTX_add1_chain_cert(pointer, certificate.pointer) == 1, "certificate chain")
    }
  }

  private func offerProtocols() throws(TLSSetupError) {
    let list = material.protocolList
    guard !list.isEmpty else { return }
    try unsafe require(SSL_CTX_set_alpn_protos(pointer, list, UInt32(list.count)) == 0, "ALPN")
  }

  private func expectServer() throws(TLSSetupError) {
    unsafe SSL_CTX_set1_cert_store(pointer, material.authorities.store)
    guard let parameters = unsafe SSL_CTX_get0_param(pointer) else {
      throw TLSSetupError("SSL_CTX_get0_param")
    }
    switch material.serverName {
    case .name(let name):
      unsafe X509_VERIFY_PARAM_set_hostflags(
        parameters,
        UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT))
      try unsafe require(
        X509_VERIFY_PARAM_set1_host(parameters, name, name.utf8.count) == 1, "expected name")
    case .address(let address):
      try unsafe require(
        X509_VERIFY_PARAM_set1_ip_asc(parameters, address.description) == 1, "expected address")
    }
    if material.authorities.areAnchors {
      unsafe X509_VERIFY_PARAM_set_flags(parameters, UInt(X509_V_FLAG_PARTIAL_CHAIN))
    }
    unsafe SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, nil)
    unsafe SSL_CTX_set_verify_depth(pointer, PeerVerification.maximumIntermediates)
    unsafe SSL_CTX_set_cert_verify_callback(pointer, OriginationContext.verifyServer, nil)
  }

  /// An SSL object whose ClientHello says whom it is for; an address has no place there (RFC 6066
  /// §3).
  func makeSSL() throws(TLSSetupError) -> OpaquePointer? {
    let ssl = unsafe SSL_new(pointer)
    guard case .name(let name) = material.serverName, let ssl = unsafe ssl else {
      return unsafe ssl
    }
    guard unsafe culvert_SSL_set_tlsext_host_name(ssl, name) == 1 else {
      unsafe SSL_free(ssl)
      throw TLSSetupError("SNI: \(OpenSSLError.takeReason())")
    }
    return unsafe ssl
  }

  /// OpenSSL's own verification, of which the reason is kept.
  private static let verifyServer:
    @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32 = { store, _ in
      guard let store = unsafe store,
        let ssl = unsafe X509_STORE_CTX_get_ex_data(
          store, SSL_get_ex_data_X509_STORE_CTX_idx()),
        let state = unsafe SessionState.of(OpaquePointer(ssl)),
        case .origination(var origination) = unsafe state.pointee.purpose
      else { return 0 }
      do throws(Rejection) {
        try unsafe OriginationContext.verify(store)
        origination.isServerVerified = true
        unsafe state.pointee.purpose = .origination(origination)
        return 1
      } catch {
        unsafe X509_STORE_CTX_set_error(store, error.verifyError)
        unsafe state.pointee.rejection = error
        return 0
      }
    }

  private static func verify(_ store: OpaquePointer) throws(Rejection) {
    let sent = unsafe X509_STORE_CTX_get0_untrusted(store).map {
      unsafe Int(culvert_X509_stack_count($0))
    }
    guard sent ?? 0 <= PeerVerification.maximumPeerCertificates else {
      throw Rejection(.chainTooLong, error: X509_V_ERR_CERT_CHAIN_TOO_LONG)
    }
    guard unsafe X509_verify_cert(store) == 1 else {
      let depth = unsafe X509_STORE_CTX_get_error_depth(store)
      throw PeerVerification.rejection(unsafe X509_STORE_CTX_get_error(store), depth: depth)
    }
  }
}
