/// What a call came to (gRPC over HTTP/2, Status).
package struct GRPCStatus: Hashable, Sendable, CustomStringConvertible {
  package enum Code: Int, Sendable {
    case ok = 0
    case cancelled, unknown, invalidArgument, deadlineExceeded, notFound, alreadyExists
    case permissionDenied, resourceExhausted, failedPrecondition, aborted, outOfRange
    case unimplemented, `internal`, unavailable, dataLoss, unauthenticated

    /// As in the gRPC specification.
    package var name: String {
      let names = [
        "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
        "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
        "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS",
        "UNAUTHENTICATED",
      ]
      return names[rawValue]
    }
  }

  package let code: Code
  /// Printable and bounded, whatever the other end sent.
  package let message: String

  package init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }

  package var description: String { message.isEmpty ? code.name : "\(code.name): \(message)" }
}

extension GRPCStatus {
  /// Characters of a message that are kept.
  static let messageMaximumCharacters = 200

  /// From trailers, or from the only headers there are. A status that is missing is made from the
  /// HTTP status, one that is not known is UNKNOWN (gRPC, "HTTP to gRPC Status Code Mapping").
  init(_ headers: GRPCHeaders, httpStatus: String) {
    guard let text = headers[.grpcStatus] else {
      self.init(Self.code(httpStatus: httpStatus), "HTTP status \(httpStatus), no grpc-status")
      return
    }
    let isNumber = text.utf8.allSatisfy { (48...57).contains($0) }
    let code = isNumber ? Int(text).flatMap(Code.init) ?? .unknown : .unknown
    self.init(code, Self.text(percentEncoded: headers[.grpcMessage] ?? ""))
  }

  private static func code(httpStatus: String) -> Code {
    switch httpStatus {
    case "400": .internal
    case "401": .unauthenticated
    case "403": .permissionDenied
    case "404": .unimplemented
    case "429", "502", "503", "504": .unavailable
    default: .unknown
    }
  }

  /// For a stream that was reset (gRPC, "HTTP2 Transport Mapping", Errors).
  init(resetWith errorCode: UInt32) {
    let code: Code =
      switch errorCode {
      case 0x7: .unavailable  // REFUSED_STREAM
      case 0x8: .cancelled  // CANCEL
      case 0xb: .resourceExhausted  // ENHANCE_YOUR_CALM
      case 0xc: .permissionDenied  // INADEQUATE_SECURITY
      default: .internal
      }
    self.init(code, "the stream was reset, HTTP/2 error \(errorCode)")
  }

  /// Decodes Percent-Encoded (gRPC, Responses). What is not valid stays as it is; what is not
  /// printable becomes a question mark.
  static func text(percentEncoded text: String) -> String {
    let encoded = Array(text.utf8)
    var bytes: [UInt8] = []
    var index = 0
    while index < encoded.count {
      if encoded[index] == UInt8(ascii: "%"), index + 2 < encoded.count,
        let high = hexadecimal(encoded[index + 1]), let low = hexadecimal(encoded[index + 2])
      {
        bytes.append(high << 4 | low)
        index += 3
      } else {
        bytes.append(encoded[index])
        index += 1
      }
    }
    return printable(String(decoding: bytes, as: UTF8.self))
  }

  /// One line of bounded length, without control characters.
  static func printable(_ text: String) -> String {
    var result = ""
    for scalar in text.unicodeScalars.prefix(messageMaximumCharacters) {
      let isPrintable =
        switch scalar.properties.generalCategory {
        case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator,
          .paragraphSeparator:
          false
        default: true
        }
      result.unicodeScalars.append(isPrintable ? scalar : "?")
    }
    return result
  }

  /// The message as it is sent.
  var percentEncodedMessage: String {
    let digits = Array("0123456789ABCDEF".utf8)
    var bytes: [UInt8] = []
    for byte in message.utf8 {
      if (0x20...0x7e).contains(byte), byte != UInt8(ascii: "%") {
        bytes.append(byte)
      } else {
        bytes += [UInt8(ascii: "%"), digits[Int(byte >> 4)], digits[Int(byte & 15)]]
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func hexadecimal(_ byte: UInt8) -> UInt8? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): byte - UInt8(ascii: "0")
    case UInt8(ascii: "a")...UInt8(ascii: "f"): byte - UInt8(ascii: "a") + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): byte - UInt8(ascii: "A") + 10
    default: nil
    }
  }
}

/// The header fields a call looks at; all others are ignored.
package struct GRPCHeaders: Sendable {
  package enum Name: String, CaseIterable, Sendable {
    case method = ":method"
    case path = ":path"
    case status = ":status"
    case contentType = "content-type"
    case grpcStatus = "grpc-status"
    case grpcMessage = "grpc-message"
    /// What every request to a Workload Endpoint carries (Workload Endpoint §3).
    case workload = "workload.spiffe.io"
  }

  /// Bytes of one value that are kept.
  static let valueMaximumBytes = 2048

  private var values: [Name: String] = [:]

  /// A field that occurs twice has its values joined by commas (RFC 9110 §5.3).
  package subscript(name: Name) -> String? { values[name] }

  mutating func add(_ name: String, _ value: String) {
    guard let name = Name(rawValue: name) else { return }
    let joined = values[name].map { "\($0),\(value)" } ?? value
    values[name] = String(decoding: joined.utf8.prefix(Self.valueMaximumBytes), as: UTF8.self)
  }

  /// application/grpc, whatever encoding of messages follows (gRPC over HTTP/2, Content-Type).
  var isGRPC: Bool {
    guard let type = values[.contentType]?.lowercased() else { return false }
    return type == "application/grpc" || type.hasPrefix("application/grpc+")
      || type.hasPrefix("application/grpc;")
  }
}
