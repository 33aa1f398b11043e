/// Why a text is not an `https` URL that we would follow; the raw value is the word in errors.
package enum HTTPSURLError: String, Error, Hashable, Sendable, CaseIterable {
  case tooLong = "url_too_long"
  case invalidCharacter = "invalid_url_character"
  case notHTTPS = "scheme_not_https"
  case userInfo = "url_has_userinfo"
  case fragment = "url_has_fragment"
  case invalidHost = "invalid_host"
  case invalidPort = "invalid_port"
}

/// An `https` URL as SPIFFE Federation §5.2.1.1 and §5.2.2.1 want it: no userinfo, and no fragment,
/// which would mean nothing.
package struct HTTPSURL: Hashable, Sendable, CustomStringConvertible {
  package static let maximumBytes = 2048
  package static let defaultPort: UInt16 = 443

  /// A DNS name in lower case, or an address; an IPv6 address is in brackets.
  package let host: String
  package let port: UInt16
  /// Begins with `/`; the query is part of it.
  package let path: String

  package init(_ text: String) throws(HTTPSURLError) {
    try Self.checkCharacters(text)
    let scheme = "https://"
    guard text.utf8.count > scheme.utf8.count, text.lowercased().hasPrefix(scheme) else {
      throw .notHTTPS
    }
    let rest = text.dropFirst(scheme.count)
    let end = rest.firstIndex { $0 == "/" || $0 == "?" } ?? rest.endIndex
    (host, port) = try Self.readAuthority(rest[..<end])
    path = (rest[end...].hasPrefix("/") ? "" : "/") + rest[end...]
  }

  private init(host: String, port: UInt16, path: String) {
    self.host = host
    self.port = port
    self.path = path
  }

  package var description: String { "https://\(authority)\(path)" }

  /// Host and port as in a Host field (RFC 9112 §3.2).
  package var authority: String { port == Self.defaultPort ? host : "\(host):\(port)" }

  /// The host, if it is an address.
  package var address: IPAddress? {
    IPAddress(host.hasPrefix("[") ? String(host.dropFirst().dropLast()) : host)
  }

  // MARK: Reading

  /// Visible ASCII only, and none of what RFC 3986 allows nowhere.
  private static func checkCharacters(_ text: String) throws(HTTPSURLError) {
    guard text.utf8.count <= maximumBytes else { throw .tooLong }
    let isPlain = text.utf8.allSatisfy {
      (0x21...0x7e).contains($0) && !#"\"<>^`{|}"#.utf8.contains($0)
    }
    guard isPlain else { throw .invalidCharacter }
    guard !text.utf8.contains(UInt8(ascii: "#")) else { throw .fragment }
  }

  private static func readAuthority(
    _ text: Substring
  ) throws(HTTPSURLError) -> (String, UInt16) {
    guard !text.contains("@") else { throw .userInfo }
    let host: String
    let rest: Substring
    if text.hasPrefix("[") {
      guard let end = text.firstIndex(of: "]") else { throw .invalidHost }
      guard let address = IPAddress(String(text[..<end].dropFirst())),
        text[..<end].contains(":")
      else { throw .invalidHost }
      host = address.family == .v6 ? "[\(address)]" : address.description
      rest = text[end...].dropFirst()
    } else {
      let end = text.firstIndex(of: ":") ?? text.endIndex
      host = text[..<end].lowercased()
      guard ServerName(host) != nil else { throw .invalidHost }
      rest = text[end...]
    }
    guard !rest.isEmpty else { return (host, defaultPort) }
    let digits = rest.dropFirst()
    guard rest.hasPrefix(":"), (1...5).contains(digits.utf8.count),
      digits.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }),
      let port = UInt16(digits), port > 0
    else { throw .invalidPort }
    return (host, port)
  }
}

// MARK: - Redirects

extension HTTPSURL {
  /// Where a Location field leads (RFC 9110 §10.2.2, RFC 3986 §5.2), held to the same rules as a URL
  /// that was configured.
  package func resolve(location: String) throws(HTTPSURLError) -> HTTPSURL {
    try Self.checkCharacters(location)
    if Self.hasScheme(location) { return try HTTPSURL(location) }
    if location.hasPrefix("//") { return try HTTPSURL("https:" + location) }
    let (reference, query) = Self.split(location)
    let (path, ownQuery) = Self.split(self.path)
    let target: String
    if reference.isEmpty {
      target = String(path + (query.isEmpty ? ownQuery : query))
    } else if reference.hasPrefix("/") {
      target = Self.removeDotSegments(reference) + query
    } else {
      let slash = path.lastIndex(of: "/") ?? path.startIndex
      target = Self.removeDotSegments(path[..<slash] + "/" + reference) + query
    }
    let result = HTTPSURL(host: host, port: port, path: target)
    guard result.description.utf8.count <= Self.maximumBytes else { throw .tooLong }
    return result
  }

  /// Whether a colon comes before anything that ends a scheme (RFC 3986 §4.2).
  private static func hasScheme(_ location: String) -> Bool {
    location.first { $0 == ":" || $0 == "/" || $0 == "?" } == ":"
  }

  /// The path, and the query with its question mark.
  private static func split(_ text: String) -> (Substring, Substring) {
    let end = text.firstIndex(of: "?") ?? text.endIndex
    return (text[..<end], text[end...])
  }

  /// RFC 3986 §5.2.4, of a path that begins with `/`.
  private static func removeDotSegments(_ path: some StringProtocol) -> String {
    let segments = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
    var kept: [String] = []
    for segment in segments {
      switch segment {
      case ".": continue
      case "..": _ = kept.popLast()
      default: kept.append(String(segment))
      }
    }
    // A final `.` or `..` leaves the directory it names.
    if segments.last == "." || segments.last == ".." { kept.append("") }
    return "/" + kept.joined(separator: "/")
  }
}
