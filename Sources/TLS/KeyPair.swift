internal import COpenSSL
package import Identity

/// A certificate chain and the private key of its leaf, read as one and belonging together.
package struct KeyPair: Sendable {
  /// The leaf first, then its intermediates.
  let chain: [Certificate]
  let key: PrivateKey
  /// What errors call the place they came from.
  let source: String

  /// - Parameters:
  ///   - certificate: a PEM file, the leaf first, then its intermediates.
  ///   - privateKey: an unencrypted PEM file of mode 0600 or stricter.
  package init(certificate: String, privateKey: String) throws(IdentityError) {
    let chain = try PEMFile.certificates(
      certificate, limit: IdentityMaterial.maximumChainCertificates)
    try self.init(
      chain, try PEMFile.privateKey(privateKey), from: certificate, keyFrom: privateKey)
  }

  /// - Parameters:
  ///   - certificates: the leaf first, then its intermediates, one behind the other (DER).
  ///   - privateKey: PKCS#8 (DER); the caller cleanses it.
  ///   - source: what errors call the place they came from.
  package init(
    certificates: [UInt8], privateKey: UnsafeRawBufferPointer, from source: String
  ) throws(IdentityError) {
    guard let chain = Certificate.list(der: certificates) else {
      throw IdentityError(file: source, reason: "holds bytes that are no certificate")
    }
    guard chain.count <= IdentityMaterial.maximumChainCertificates else {
      throw IdentityError(
        file: source,
        reason: "holds more than \(IdentityMaterial.maximumChainCertificates) certificates")
    }
    guard let key = unsafe PrivateKey(pkcs8: privateKey) else {
      throw IdentityError(file: source, reason: "holds no usable private key (PKCS#8)")
    }
    try self.init(chain, key, from: source, keyFrom: source)
  }

  init(
    _ chain: [Certificate], _ key: PrivateKey, from source: String, keyFrom keySource: String
  ) throws(IdentityError) {
    guard unsafe X509_check_private_key(chain[0].pointer, key.pointer) == 1 else {
      ERR_clear_error()
      throw IdentityError(
        file: keySource, reason: "is not the key of the certificate in \(source)")
    }
    let bytes = chain.reduce(0) { unsafe $0 + Int(i2d_X509($1.pointer, nil)) }
    guard bytes <= IdentityMaterial.maximumChainBytes else {
      throw IdentityError(
        file: source, reason: "holds more than \(IdentityMaterial.maximumChainBytes) bytes (DER)")
    }
    self.chain = chain
    self.key = key
    self.source = source
  }

  /// The certificates, one behind the other (DER).
  package var certificatesDER: [UInt8] { chain.flatMap(\.der) }

  /// Shows the private key, PKCS#8 in DER, for as long as `body` runs.
  package func withPrivateKey<Result>(
    _ body: (UnsafeRawBufferPointer) -> Result
  ) throws(IdentityError) -> Result {
    do throws(TLSSetupError) {
      return try unsafe SecretText(pkcs8: key).withBytes { bytes throws(TLSSetupError) in
        unsafe body(bytes)
      }
    } catch {
      throw IdentityError(file: source, reason: error.description)
    }
  }

  /// Whether both are the same certificates.
  package func isSame(as other: KeyPair) -> Bool { chain.map(\.der) == other.chain.map(\.der) }

  package var trustDomain: TrustDomain? { try? spiffeID.trustDomain }

  /// Whom the leaf names; not verified yet.
  package var spiffeID: SPIFFEID {
    get throws(IdentityError) {
      do throws(Rejection) {
        return try unsafe LeafProfile.spiffeID(chain[0].pointer)
      } catch {
        throw IdentityError(file: source, reason: error.refusal.rawValue)
      }
    }
  }

  /// When the leaf begins and ends, in Unix seconds.
  package var notBeforeSeconds: Int64 { chain[0].notBeforeSeconds }
  package var notAfterSeconds: Int64 { chain[0].notAfterSeconds }
}
