internal import COpenSSL
internal import Glibc
package import Identity
internal import Net

/// The embedded CA: one key and one self-signed certificate in a directory, for one machine.
///
/// `ca.pem` (0644) is the trust domain's bundle; `ca.key` (0600) signs X.509-SVIDs. The directory
/// is made with mode 0700.
package final class CertificateAuthority {
  /// Ten years.
  package static let lifetimeSeconds: Int64 = 3650 * 86_400
  /// 24 hours.
  package static let defaultSVIDLifetimeSeconds: Int64 = 86_400
  /// How far in the past a certificate begins, so that a clock a little behind accepts it.
  static let backdateSeconds: Int64 = 60

  package let trustDomain: TrustDomain
  let certificate: Certificate
  private let key: PrivateKey
  let directory: String

  private init(
    _ trustDomain: TrustDomain, _ certificate: Certificate, _ key: PrivateKey, _ directory: String
  ) {
    self.trustDomain = trustDomain
    self.certificate = certificate
    self.key = key
    self.directory = directory
  }

  static func certificatePath(_ directory: String) -> String { directory + "/ca.pem" }
  static func keyPath(_ directory: String) -> String { directory + "/ca.key" }

  // MARK: Making and loading

  /// Makes a CA in `directory`; refuses to replace one.
  package static func create(
    directory: String, trustDomain: TrustDomain
  ) throws(IdentityError) -> CertificateAuthority {
    let certificatePath = certificatePath(directory)
    if unsafe mkdir(directory, 0o700) != 0, errno != EEXIST {
      throw IdentityError(file: directory, reason: "cannot be made: \(Errno.current)")
    }
    for path in [certificatePath, keyPath(directory)] where unsafe access(path, F_OK) == 0 {
      throw IdentityError(
        file: path,
        reason: "exists already: a new CA would make every certificate of it worthless; "
          + "choose another directory")
    }
    let certificate: Certificate
    let key: PrivateKey
    do throws(TLSSetupError) {
      key = try CertificateBuilder.makeKey()
      certificate = try CertificateBuilder.authority(
        trustDomain, key: key, lifetimeSeconds: lifetimeSeconds, backdateSeconds: backdateSeconds)
      let keyText = try SecretText(privateKey: key)
      try keyText.write(to: keyPath(directory), mode: 0o600, replacing: false)
      let text = try SecretText(certificates: [certificate])
      try text.write(to: certificatePath, mode: 0o644, replacing: false)
    } catch {
      throw IdentityError(file: directory, reason: "cannot make a CA: \(error)")
    }
    return CertificateAuthority(trustDomain, certificate, key, directory)
  }

  package static func load(directory: String) throws(IdentityError) -> CertificateAuthority {
    let path = certificatePath(directory)
    let key = try PEMFile.privateKey(keyPath(directory))
    let certificates = try PEMFile.certificates(path, limit: 1)
    let trustDomain: TrustDomain
    do throws(Rejection) {
      trustDomain = try unsafe LeafProfile.spiffeID(certificates[0].pointer).trustDomain
    } catch {
      throw IdentityError(
        file: path, reason: "is not a CA made by culvert ca init: \(error.detail)")
    }
    guard certificates[0].isCA,
      unsafe X509_check_private_key(
        certificates[0].pointer, key.pointer) == 1
    else {
      ERR_clear_error()
      throw IdentityError(file: path, reason: "is not the certificate of \(keyPath(directory))")
    }
    return CertificateAuthority(trustDomain, certificates[0], key, directory)
  }

  // MARK: Issuing

  /// Makes a key and an X.509-SVID for `id` and writes both; what was there is replaced, each file
  /// at once and the key first, as a rotation needs it.
  ///
  /// - Parameter lifetimeSeconds: from now; never beyond the CA's own end.
  package func issue(
    _ id: SPIFFEID, lifetimeSeconds: Int64 = defaultSVIDLifetimeSeconds, certificate path: String,
    privateKey keyPath: String
  ) throws(IdentityError) {
    guard path != keyPath else {
      throw IdentityError(file: path, reason: "cannot hold both the certificate and the key")
    }
    let pair = try issue(id, lifetimeSeconds: lifetimeSeconds)
    do throws(TLSSetupError) {
      let keyText = try SecretText(privateKey: pair.key)
      try keyText.write(to: keyPath, mode: 0o600, replacing: true)
      let text = try SecretText(certificates: pair.chain)
      try text.write(to: path, mode: 0o644, replacing: true)
    } catch {
      throw IdentityError(file: path, reason: "cannot issue: \(error)")
    }
  }

  /// Makes a key and an X.509-SVID for `id`, in memory only.
  package func issue(_ id: SPIFFEID, lifetimeSeconds: Int64) throws(IdentityError) -> KeyPair {
    guard id.trustDomain == trustDomain else {
      throw IdentityError(
        file: directory, reason: "signs for \(trustDomain), not for \(id.trustDomain)")
    }
    guard !id.path.isEmpty else {
      throw IdentityError(
        file: directory, reason: "\(id) names a trust domain; a workload's ID has a path")
    }
    // Clipped to the CA's own end, a certificate would be over before it began.
    guard certificate.notAfterSeconds > Int64(time(nil)) else {
      throw IdentityError(
        file: Self.certificatePath(directory),
        reason: "has expired: make a new CA in another directory and give its bundle to all peers")
    }
    do throws(TLSSetupError) {
      let key = try CertificateBuilder.makeKey()
      let leaf = try CertificateBuilder.leaf(
        id, key: key, issuer: certificate, issuerKey: self.key, lifetimeSeconds: lifetimeSeconds,
        backdateSeconds: Self.backdateSeconds)
      return try Self.pair(leaf, key, directory)
    } catch {
      throw IdentityError(file: directory, reason: "cannot issue: \(error)")
    }
  }

  private static func pair(
    _ leaf: Certificate, _ key: PrivateKey, _ directory: String
  ) throws(TLSSetupError) -> KeyPair {
    do throws(IdentityError) {
      return try KeyPair([leaf], key, from: directory, keyFrom: directory)
    } catch {
      throw TLSSetupError(error.description)
    }
  }

  /// The trust domain's bundle.
  package var trustBundle: TrustBundle {
    TrustBundle(trustDomain: trustDomain, certificates: [certificate])
  }

  /// The trust domain's bundle as PEM text.
  package func bundle() throws(IdentityError) -> String {
    do throws(TLSSetupError) {
      return unsafe try SecretText(certificates: [certificate]).withBytes {
        unsafe String(decoding: $0, as: UTF8.self)
      }
    } catch {
      throw IdentityError(file: directory, reason: error.description)
    }
  }

  /// Writes the bundle to a file.
  package func writeBundle(to path: String) throws(IdentityError) {
    do throws(TLSSetupError) {
      let text = try SecretText(certificates: [certificate])
      try text.write(to: path, mode: 0o644, replacing: true)
    } catch {
      throw IdentityError(file: path, reason: error.description)
    }
  }
}

/// PEM text in memory that OpenSSL cleanses when it is let go.
@safe final class SecretText {
  private let bio: OpaquePointer

  init(privateKey: PrivateKey) throws(TLSSetupError) {
    unsafe bio = try unsafe Self.memory()
    let written = unsafe PEM_write_bio_PrivateKey(bio, privateKey.pointer, nil, nil, 0, nil, nil)
    try require(written == 1, "PEM_write_bio_PrivateKey")
  }

  /// PKCS#8 in DER, which is no text.
  init(pkcs8 key: PrivateKey) throws(TLSSetupError) {
    unsafe bio = try unsafe Self.memory()
    let written = unsafe i2d_PKCS8PrivateKey_bio(bio, key.pointer, nil, nil, 0, nil, nil)
    try require(written == 1, "i2d_PKCS8PrivateKey_bio")
  }

  init(certificates: [Certificate]) throws(TLSSetupError) {
    unsafe bio = try unsafe Self.memory()
    for certificate in certificates {
      let written = unsafe PEM_write_bio_X509(bio, certificate.pointer)
      try require(written == 1, "PEM_write_bio_X509")
    }
  }

  deinit { unsafe BIO_free(bio) }

  /// The text is there for as long as `body` runs.
  func withBytes<Result>(
    _ body: (UnsafeRawBufferPointer) throws(TLSSetupError) -> Result
  ) throws(TLSSetupError) -> Result {
    defer { withExtendedLifetime(self) {} }
    var start: UnsafeMutablePointer<CChar>?
    let count = unsafe culvert_BIO_get_mem_data(bio, &start)
    return try unsafe body(UnsafeRawBufferPointer(start: start, count: count))
  }

  func write(to path: String, mode: mode_t, replacing: Bool) throws(TLSSetupError) {
    unsafe try withBytes { bytes throws(TLSSetupError) in
      do throws(Errno) {
        unsafe try RegularFile.write(bytes, to: path, mode: mode, replacing: replacing)
      } catch {
        throw TLSSetupError("\(path): \(error)")
      }
    }
  }

  private static func memory() throws(TLSSetupError) -> OpaquePointer {
    guard let bio = unsafe BIO_new(BIO_s_secmem()) else { throw TLSSetupError("out of memory") }
    return unsafe bio
  }
}
