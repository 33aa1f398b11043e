/// Why a document is not a SPIFFE bundle, or not a map of them.
package struct SPIFFEBundleError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The raw value is the word in logs and errors.
  package enum Reason: String, Hashable, Sendable, CaseIterable {
    case tooLarge = "bundle_too_large"
    case malformedJSON = "malformed_json"
    case duplicateMember = "duplicate_member"
    case tooDeep = "json_too_deep"
    case tooManyValues = "too_many_values"
    case notAnObject = "not_an_object"
    case invalidSequence = "invalid_sequence"
    case invalidRefreshHint = "invalid_refresh_hint"
    case keysMissing = "keys_missing"
    case tooManyKeys = "too_many_keys"
    case keyNotAnObject = "key_not_an_object"
    case invalidX5C = "invalid_x5c"
    case trustDomainsMissing = "trust_domains_missing"
    case tooManyTrustDomains = "too_many_trust_domains"
    case invalidTrustDomain = "invalid_trust_domain"
  }

  package let reason: Reason
  /// Where, or how much is too much; nothing of the document's own text but valid names.
  package let detail: String

  init(_ reason: Reason, _ detail: String = "") {
    self.reason = reason
    self.detail = detail
  }

  package var description: String {
    detail.isEmpty ? reason.rawValue : "\(reason.rawValue): \(detail)"
  }
}

/// What a SPIFFE bundle says of X509-SVIDs (SPIFFE Trust Domain and Bundle §4, X509-SVID §6).
///
/// A bundle does not name its trust domain: whoever fetches it knows that beforehand
/// (SPIFFE Federation §5.1).
package struct SPIFFEBundle: Hashable, Sendable {
  /// 4 MiB: a thousand keys with certificates of 3 KiB.
  package static let maximumDocumentBytes = 4 * 1024 * 1024
  package static let maximumKeys = 1024

  /// Orders two versions of a bundle (TB §4.1.1); nil if the publisher does not count.
  package let sequence: UInt64?
  /// How often to look for a newer version (TB §4.1.2); positive.
  package let refreshHintSeconds: Int?
  /// DER of each authority, in the document's order. If there is none, nobody in the trust domain
  /// is trusted (TB §4.1.3); that the DER is a CA certificate is for others to check.
  package let x509Authorities: [[UInt8]]
  /// Keys that mean nothing to us and must not: of an unknown type or use, or an `x509-svid`
  /// without a certificate. JWT-SVID keys, which are known, do not count.
  package let ignoredKeys: Int

  package init(
    sequence: UInt64?, refreshHintSeconds: Int?, x509Authorities: [[UInt8]], ignoredKeys: Int = 0
  ) {
    self.sequence = sequence
    self.refreshHintSeconds = refreshHintSeconds
    self.x509Authorities = x509Authorities
    self.ignoredKeys = ignoredKeys
  }

  /// Reads a JWK Set (RFC 7517 §5).
  ///
  /// What the standards say to ignore is ignored. Everything else that is wrong refuses the whole
  /// document, so that the last good bundle stays: in particular a key that says it is an
  /// `x509-svid` and has an `x5c` that is not base64. To skip it would distrust, without a word,
  /// an authority that the publisher meant to be trusted.
  package init(jwks document: [UInt8]) throws(SPIFFEBundleError) {
    try self.init(try BundleDocument.members(of: document))
  }

  init(_ members: [String: JSON]) throws(SPIFFEBundleError) {
    sequence = try Self.number(members["spiffe_sequence"], .invalidSequence)
    refreshHintSeconds = try Self.number(members["spiffe_refresh_hint"], .invalidRefreshHint)
    if refreshHintSeconds == 0 { throw SPIFFEBundleError(.invalidRefreshHint) }
    guard case .array(let keys) = members["keys"] else { throw SPIFFEBundleError(.keysMissing) }
    guard keys.count <= Self.maximumKeys else {
      throw SPIFFEBundleError(.tooManyKeys, "\(keys.count), at most \(Self.maximumKeys)")
    }
    var authorities: [[UInt8]] = []
    var ignored = 0
    for (index, key) in keys.enumerated() {
      guard case .object(let key) = key else {
        throw SPIFFEBundleError(.keyNotAnObject, "key \(index + 1)")
      }
      switch try Self.read(key, index) {
      case .authority(let der): authorities.append(der)
      case .notOurs: continue
      case .unknown: ignored += 1
      }
    }
    x509Authorities = authorities
    ignoredKeys = ignored
  }

  private static func number<Value: FixedWidthInteger>(
    _ value: JSON?, _ reason: SPIFFEBundleError.Reason
  ) throws(SPIFFEBundleError) -> Value? {
    guard let value else { return nil }
    guard let number = value.integer(Value.self) else { throw SPIFFEBundleError(reason) }
    return number
  }

  /// What one JWK is to us.
  private enum Key {
    case authority([UInt8])
    case notOurs
    case unknown
  }

  /// Key types whose parameters are known here (RFC 7518 §6.1).
  private static let keyTypes: Set<JSON?> = [.string("EC"), .string("RSA")]

  private static func read(
    _ key: [String: JSON], _ index: Int
  ) throws(SPIFFEBundleError) -> Key {
    guard keyTypes.contains(key["kty"]) else { return .unknown }
    switch key["use"] {
    case .string("x509-svid"): break
    case .string("jwt-svid"): return .notOurs
    default: return .unknown
    }
    guard let x5c = key["x5c"], x5c != .array([]) else { return .unknown }
    // "Only the first value is used" (X509-SVID §6.2), whatever the others are.
    guard case .array(let values) = x5c, case .string(let text) = values.first,
      let der = Base64.decode(text), !der.isEmpty
    else { throw SPIFFEBundleError(.invalidX5C, "key \(index + 1)") }
    return .authority(der)
  }
}

/// The bundles of several trust domains in one document (TB §5.1):
/// `{"trust_domains": {"example.org": {"keys": […]}}}`.
package struct SPIFFEBundleMap: Hashable, Sendable {
  package static let maximumTrustDomains = 1024

  package let bundles: [TrustDomain: SPIFFEBundle]

  /// Reads a whole map; one bundle that cannot be read refuses all of it, and so does a trust domain
  /// that occurs twice (`duplicate_member`).
  package init(document: [UInt8]) throws(SPIFFEBundleError) {
    let members = try BundleDocument.members(of: document)
    guard case .object(let domains) = members["trust_domains"] else {
      throw SPIFFEBundleError(.trustDomainsMissing)
    }
    guard domains.count <= Self.maximumTrustDomains else {
      throw SPIFFEBundleError(
        .tooManyTrustDomains, "\(domains.count), at most \(Self.maximumTrustDomains)")
    }
    var bundles: [TrustDomain: SPIFFEBundle] = [:]
    for (name, bundle) in domains.sorted(by: { $0.key < $1.key }) {
      guard let domain = try? TrustDomain(name) else {
        throw SPIFFEBundleError(.invalidTrustDomain)
      }
      guard case .object(let members) = bundle else {
        throw SPIFFEBundleError(.notAnObject, domain.name)
      }
      do throws(SPIFFEBundleError) {
        bundles[domain] = try SPIFFEBundle(members)
      } catch {
        throw SPIFFEBundleError(
          error.reason, error.detail.isEmpty ? domain.name : "\(domain.name), \(error.detail)")
      }
    }
    self.bundles = bundles
  }
}

/// What both kinds of document have in common.
private enum BundleDocument {
  static func members(of document: [UInt8]) throws(SPIFFEBundleError) -> [String: JSON] {
    guard document.count <= SPIFFEBundle.maximumDocumentBytes else {
      throw SPIFFEBundleError(
        .tooLarge, "\(document.count) bytes, at most \(SPIFFEBundle.maximumDocumentBytes)")
    }
    let value: JSON
    do throws(JSON.Failure) {
      value = try JSON(document)
    } catch {
      let reason: SPIFFEBundleError.Reason =
        switch error.reason {
        case .malformed: .malformedJSON
        case .duplicateName: .duplicateMember
        case .tooDeep: .tooDeep
        case .tooManyValues: .tooManyValues
        }
      throw SPIFFEBundleError(reason, "at byte \(error.byte)")
    }
    guard case .object(let members) = value else { throw SPIFFEBundleError(.notAnObject) }
    return members
  }
}
