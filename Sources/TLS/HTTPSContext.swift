internal import COpenSSL
package import Identity
package import Net

/// Who the server of an HTTPS connection must prove to be.
package enum HTTPSServer: Sendable {
  /// The host of a URL, vouched for by the system's certificate authorities (RFC 6125). The
  /// authorities are OpenSSL's own default; SSL_CERT_FILE and SSL_CERT_DIR change it.
  case web(HTTPSURL)
  /// A workload, vouched for by its trust domain's bundle and nothing else.
  case workload(SPIFFEID, TrustBundle)
}

/// What a server presents to anyone who connects; whom it serves it does not ask (SPIFFE Federation
/// §5.2.1.3, §5.2.2.3).
///
/// Its connections keep it alive. Not thread-safe.
@safe package final class HTTPSServerContext {
  let pointer: OpaquePointer

  package init(_ identity: IdentityMaterial) throws(TLSSetupError) {
    unsafe pointer = try unsafe HTTPSContext.make(TLS_server_method())
    try unsafe require(culvert_SSL_CTX_set1_groups_list(pointer, TLSContext.groups) == 1, "groups")
    try unsafe require(SSL_CTX_set_num_tickets(pointer, 0) == 1, "tickets")
    try unsafe require(
      SSL_CTX_use_certificate(pointer, identity.chain[0].pointer) == 1, "certificate")
    try unsafe require(SSL_CTX_use_PrivateKey(pointer, identity.key.pointer) == 1, "private key")
    for certificate in identity.chain.dropFirst() where !certificate.isSelfSigned {
      try unsafe require(
        culvert_SSL_CTX_add1_chain_cert(pointer, certificate.pointer) == 1, "certificate chain")
    }
    unsafe SSL_CTX_set_verify(pointer, SSL_VERIFY_NONE, nil)
  }

  deinit { unsafe SSL_CTX_free(pointer) }
}

/// What one client connection asks of its server.
@safe final class HTTPSClientContext {
  let pointer: OpaquePointer
  let verifier: SVIDVerifier?

  init(_ server: HTTPSServer) throws(TLSSetupError) {
    if case .workload(let id, let bundle) = server {
      verifier = try SVIDVerifier(id, bundle)
    } else {
      verifier = nil
    }
    unsafe pointer = try unsafe HTTPSContext.make(TLS_client_method())
    if let verifier {
      // The connection holds the verifier for as long as its SSL object can call back.
      unsafe SSL_CTX_set_cert_verify_callback(
        pointer, SVIDVerifier.verify, Unmanaged.passUnretained(verifier).toOpaque())
    } else {
      try unsafe require(SSL_CTX_set_default_verify_paths(pointer) == 1, "system authorities")
    }
    unsafe SSL_CTX_set_verify(pointer, SSL_VERIFY_PEER, nil)
  }

  deinit { unsafe SSL_CTX_free(pointer) }
}

/// What both roles have in common, and origination with them: Mozilla's intermediate profile as far as it has forward secrecy
/// from elliptic curves (SPIFFE Federation §5.2).
enum HTTPSContext {
  /// Of TLS 1.2; those of TLS 1.3 are OpenSSL's default.
  static let cipherList = "ECDHE+AESGCM:ECDHE+CHACHA20"

  static func make(_ method: OpaquePointer?) throws(TLSSetupError) -> OpaquePointer {
    guard let context = unsafe SSL_CTX_new(method) else {
      throw TLSSetupError("SSL_CTX_new: \(OpenSSLError.takeReason())")
    }
    do throws(TLSSetupError) {
      try unsafe require(
        culvert_SSL_CTX_set_protocol_versions(context, TLS1_2_VERSION, TLS1_3_VERSION) == 1,
        "TLS 1.2")
      try unsafe require(SSL_CTX_set_cipher_list(context, cipherList) == 1, "ciphers")
    } catch {
      unsafe SSL_CTX_free(context)
      throw error
    }
    unsafe SSL_CTX_set_security_level(context, TLSContext.securityLevel)
    unsafe SSL_CTX_set_options(
      context,
      culvert_SSL_OP_NO_COMPRESSION | culvert_SSL_OP_NO_RENEGOTIATION | culvert_SSL_OP_NO_TICKET)
    let mode = SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER
    unsafe culvert_SSL_CTX_set_mode(context, Int(mode))
    // A step ends with each record, so that a flood of tickets or key updates cannot keep the caller
    // from looking at its deadline.
    unsafe SSL_CTX_ctrl(context, SSL_CTRL_CLEAR_MODE, Int(SSL_MODE_AUTO_RETRY), nil)
    unsafe culvert_SSL_CTX_set_read_ahead(context, 0)
    unsafe culvert_SSL_CTX_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
    unsafe culvert_SSL_CTX_set_max_cert_list(context, TLSContext.maximumPeerCertificateBytes)
    return unsafe context
  }
}

/// Judges one server's certificate as an X509-SVID of one workload.
final class SVIDVerifier {
  private let id: SPIFFEID
  private let verification: PeerVerification
  private(set) var rejection: Rejection?

  init(_ id: SPIFFEID, _ bundle: TrustBundle) throws(TLSSetupError) {
    self.id = id
    verification = try PeerVerification([bundle])
  }

  private func judge(_ store: OpaquePointer) -> Int32 {
    guard let leaf = unsafe X509_STORE_CTX_get0_cert(store) else {
      rejection = Rejection(.noCertificate)
      return 0
    }
    do throws(Rejection) {
      _ = try unsafe verification.verify(
        leaf, untrusted: X509_STORE_CTX_get0_untrusted(store), expect: [id])
      unsafe X509_STORE_CTX_set_error(store, X509_V_OK)
      return 1
    } catch {
      unsafe X509_STORE_CTX_set_error(store, error.verifyError)
      rejection = error
      return 0
    }
  }

  static let verify: @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32 = {
    store, verifier in
    guard let store = unsafe store, let verifier = unsafe verifier else { return 0 }
    return unsafe Unmanaged<SVIDVerifier>.fromOpaque(verifier).takeUnretainedValue().judge(store)
  }
}
