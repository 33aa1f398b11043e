/// Why a text is not a SPIFFE ID; the raw value is the word used in logs and errors.
package enum SPIFFEIDError: String, Error, Hashable, Sendable {
  case tooLong = "spiffe_id_too_long"
  case notSPIFFEScheme = "scheme_not_spiffe"
  case emptyTrustDomain = "empty_trust_domain"
  case trustDomainTooLong = "trust_domain_too_long"
  case invalidTrustDomain = "invalid_trust_domain"
  case emptyPathSegment = "empty_path_segment"
  case dotPathSegment = "dot_path_segment"
  case trailingSlash = "trailing_slash"
  case invalidPathCharacter = "invalid_path_character"
}

/// A SPIFFE ID: `spiffe://trust-domain/path` (SPIFFE-ID §2).
///
/// Text that is not already in the one valid form is rejected, never normalised, so that comparing
/// two IDs is comparing bytes. Query, fragment, userinfo, port and percent-encoding cannot occur:
/// their delimiters are not allowed characters.
package struct SPIFFEID: Hashable, Sendable, CustomStringConvertible {
  /// 2048 bytes must be accepted (SPIFFE-ID §2.3); nothing longer is.
  package static let maximumBytes = 2048
  package static let scheme = "spiffe://"

  package let trustDomain: TrustDomain
  /// Empty, or `/` and segments: `/ns/shop/sa/web`.
  package let path: String

  package init(_ text: String) throws(SPIFFEIDError) {
    guard text.utf8.count <= Self.maximumBytes else { throw .tooLong }
    guard text.utf8.starts(with: Self.scheme.utf8) else { throw .notSPIFFEScheme }
    let rest = text.utf8.dropFirst(Self.scheme.utf8.count)
    let slash = rest.firstIndex(of: UInt8(ascii: "/")) ?? rest.endIndex
    trustDomain = try TrustDomain(String(Substring(rest[..<slash])))
    path = String(Substring(rest[slash...]))
    try Self.validate(path: path.utf8)
  }

  package var description: String { Self.scheme + trustDomain.name + path }

  private static func validate(path: String.UTF8View) throws(SPIFFEIDError) {
    guard !path.isEmpty else { return }
    let segments = path.dropFirst().split(
      separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
    if segments.last?.isEmpty == true { throw .trailingSlash }
    for segment in segments {
      if segment.isEmpty { throw .emptyPathSegment }
      if segment.elementsEqual(".".utf8) || segment.elementsEqual("..".utf8) {
        throw .dotPathSegment
      }
      guard segment.allSatisfy(isAllowed) else { throw .invalidPathCharacter }
    }
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"),
      UInt8(ascii: "_"):
      true
    default: false
    }
  }
}
