/// PEM of what is not secret (RFC 7468).
enum PEMText {
  private static let lineCharacters = 64

  /// - Parameter base64: of the DER, in one line.
  static func certificate(_ base64: String) -> String {
    let text = Array(base64.utf8)
    let lines = stride(from: 0, to: text.count, by: lineCharacters).map {
      String(decoding: text[$0..<min($0 + lineCharacters, text.count)], as: UTF8.self)
    }
    return
      "-----BEGIN CERTIFICATE-----\n\(lines.joined(separator: "\n"))\n-----END CERTIFICATE-----\n"
  }
}
