import COpenSSL
import Foundation
import Identity

@testable import TLS

/// What a test certificate says. The default is a leaf that every check accepts; a test changes one
/// thing.
struct Recipe {
  /// An `openssl` extension value; nil leaves the extension out.
  var names: String? = "URI:spiffe://demo.mesh/ns/shop/sa/web"
  var basicConstraints: String? = "critical,CA:FALSE"
  var keyUsage: String? = "critical,digitalSignature"
  var extendedKeyUsage: String? = "serverAuth,clientAuth"
  var nameConstraints: String?
  /// Subject alternative names once more, in a second extension.
  var secondNames: String?
  var keyIdentifiers = true
  var commonName: String? = "leaf"
  /// Seconds from now.
  var begins = -60
  var ends = 3600
  var key = KeyKind.p256

  enum KeyKind { case p256, p384, rsa, weakRSA }

  static func leaf(_ names: String) -> Recipe { Recipe(names: names) }

  static func authority(_ domain: String) -> Recipe {
    Recipe(
      names: "URI:spiffe://\(domain)", basicConstraints: "critical,CA:TRUE",
      keyUsage: "critical,keyCertSign,cRLSign", extendedKeyUsage: nil,
      commonName: "CA of \(domain)")
  }

  func with(_ change: (inout Recipe) -> Void) -> Recipe {
    var copy = self
    change(&copy)
    return copy
  }
}

/// A certificate made with libcrypto, and its key.
@safe final class TestCertificate {
  let certificate: Certificate
  let key: PrivateKey
  /// From this certificate's issuer up to, not including, the root.
  let intermediates: [Certificate]

  init(_ recipe: Recipe, issuer: TestCertificate? = nil) {
    let pkey: OpaquePointer? =
      switch recipe.key {
      case .p256: unsafe culvert_EVP_EC_gen("P-256")
      case .p384: unsafe culvert_EVP_EC_gen("P-384")
      case .rsa: unsafe culvert_EVP_RSA_gen(2048)
      case .weakRSA: unsafe culvert_EVP_RSA_gen(1024)
      }
    let x509 = unsafe X509_new()!
    unsafe key = PrivateKey(owning: pkey!)
    unsafe X509_set_version(x509, 2)
    unsafe ASN1_INTEGER_set_uint64(
      X509_get_serialNumber(x509), UInt64.random(in: 1..<UInt64(Int64.max)))
    unsafe X509_gmtime_adj(X509_getm_notBefore(x509), recipe.begins)
    unsafe X509_gmtime_adj(X509_getm_notAfter(x509), recipe.ends)
    if let commonName = recipe.commonName {
      unsafe X509_NAME_add_entry_by_txt(
        X509_get_subject_name(x509), "CN", MBSTRING_UTF8, commonName, -1, -1, 0)
    }
    let parent = unsafe issuer?.certificate.pointer ?? x509
    unsafe X509_set_issuer_name(x509, X509_get_subject_name(parent))
    unsafe X509_set_pubkey(x509, key.pointer)
    let extensions: [(Int32, String?)] = [
      (NID_subject_key_identifier, recipe.keyIdentifiers ? "hash" : nil),
      (NID_authority_key_identifier, recipe.keyIdentifiers && issuer != nil ? "keyid" : nil),
      (NID_basic_constraints, recipe.basicConstraints), (NID_key_usage, recipe.keyUsage),
      (NID_ext_key_usage, recipe.extendedKeyUsage), (NID_subject_alt_name, recipe.names),
      (NID_name_constraints, recipe.nameConstraints),
      (NID_subject_alt_name, recipe.secondNames),
    ]
    for (nid, value) in extensions {
      guard let value else { continue }
      var context = unsafe X509V3_CTX()
      unsafe X509V3_set_ctx(&context, parent, x509, nil, nil, 0)
      let item = unsafe X509V3_EXT_conf_nid(nil, &context, nid, value)
      precondition(unsafe item != nil, "\(value): \(OpenSSLError.takeReason())")
      unsafe X509_add_ext(x509, item, -1)
      unsafe X509_EXTENSION_free(item)
    }
    precondition(unsafe X509_sign(x509, issuer?.key.pointer ?? key.pointer, EVP_sha256()) > 0)
    unsafe certificate = Certificate(owning: x509)
    if let issuer, !issuer.certificate.isSelfSigned {
      intermediates = [issuer.certificate] + issuer.intermediates
    } else {
      intermediates = []
    }
  }

  var chain: [Certificate] { [certificate] + intermediates }

  static func pem(_ certificates: [Certificate]) -> String {
    var text = ""
    for certificate in certificates {
      let bio = unsafe BIO_new(BIO_s_mem())
      unsafe PEM_write_bio_X509(bio, certificate.pointer)
      unsafe text += take(bio)
    }
    return text
  }

  var pem: String { Self.pem(chain) }

  var keyPEM: String {
    let bio = unsafe BIO_new(BIO_s_mem())
    unsafe PEM_write_bio_PrivateKey(bio, key.pointer, nil, nil, 0, nil, nil)
    return unsafe Self.take(bio)
  }

  func encryptedKeyPEM(password: String) -> String {
    let bio = unsafe BIO_new(BIO_s_mem())
    let length = Int32(password.utf8.count)
    unsafe password.withCString { text in
      _ = unsafe PEM_write_bio_PKCS8PrivateKey(
        bio, key.pointer, EVP_aes_256_cbc(), text, length, nil, nil)
    }
    return unsafe Self.take(bio)
  }

  private static func take(_ bio: OpaquePointer?) -> String {
    var bytes: UnsafeMutablePointer<CChar>?
    let count = unsafe culvert_BIO_get_mem_data(bio, &bytes)
    let text = unsafe String(
      decoding: UnsafeRawBufferPointer(start: bytes, count: count), as: UTF8.self)
    unsafe BIO_free(bio)
    return text
  }

  /// An identity that skips the checks on one's own certificate, to present bad ones.
  func presented(trusting bundles: [TrustBundle]) -> IdentityMaterial {
    let nobody = try! SPIFFEID("spiffe://demo.mesh/unchecked")
    return IdentityMaterial(id: nobody, chain: chain, key: key, bundles: bundles)
  }
}

extension TrustBundle {
  init(_ name: String, _ authorities: [TestCertificate]) {
    self.init(
      trustDomain: try! TrustDomain(name), certificates: authorities.map(\.certificate))
  }
}
