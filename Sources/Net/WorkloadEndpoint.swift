/// Why a text is not the address of a Workload Endpoint; one line, for people.
package struct WorkloadEndpointError: Error, Hashable, Sendable, CustomStringConvertible {
  package let description: String

  init(_ description: String) { self.description = description }
}

/// Where the SPIFFE Workload API is served (SPIFFE Workload Endpoint §4): a unix socket or a TCP
/// port at an IP address.
package struct WorkloadEndpoint: Hashable, Sendable, CustomStringConvertible {
  package enum Address: Hashable, Sendable {
    case unix(path: String)
    case tcp(SocketAddress)
  }

  /// The variable that tells where the endpoint is if the configuration does not.
  package static let environmentVariable = "SPIFFE_ENDPOINT_SOCKET"

  package let address: Address

  /// Reads `unix:///absolute/path` or `tcp://IP:port`, with an IPv6 address in brackets. Any other
  /// component of a URI, and any other way to write these, is refused and never normalised.
  package init(_ text: String) throws(WorkloadEndpointError) {
    if let rest = Self.rest(of: text, after: "unix://") {
      address = .unix(path: try Self.path(rest))
    } else if let rest = Self.rest(of: text, after: "tcp://") {
      address = .tcp(try Self.socketAddress(rest))
    } else {
      throw WorkloadEndpointError("expected unix:///PATH or tcp://IP:PORT")
    }
  }

  package var description: String {
    switch address {
    case .unix(let path): "unix://\(path)"
    case .tcp(let address): "tcp://\(address)"
    }
  }

  private static func rest(of text: String, after scheme: String) -> String? {
    guard text.utf8.starts(with: scheme.utf8) else { return nil }
    return String(Substring(text.utf8.dropFirst(scheme.utf8.count)))
  }

  private static func path(_ text: String) throws(WorkloadEndpointError) -> String {
    guard text.utf8.first == UInt8(ascii: "/") else {
      throw WorkloadEndpointError("a unix: endpoint is unix:///PATH: no host, an absolute path")
    }
    guard text.utf8.last != UInt8(ascii: "/") else {
      throw WorkloadEndpointError("the path of a unix: endpoint names a socket, not a directory")
    }
    // A query or a fragment would begin here, and a percent sign would stand for something else.
    let delimiters = "?#%".utf8
    guard text.utf8.allSatisfy({ (0x21...0x7e).contains($0) && !delimiters.contains($0) }) else {
      throw WorkloadEndpointError(
        "the path of a unix: endpoint has printable ASCII only, and no '?', '#', '%' or space")
    }
    guard text.utf8.count <= UnixSocket.maximumPathBytes else {
      throw WorkloadEndpointError(
        "the path of a unix: endpoint has at most \(UnixSocket.maximumPathBytes) bytes")
    }
    return text
  }

  private static func socketAddress(_ text: String) throws(WorkloadEndpointError) -> SocketAddress {
    let isBracketed = text.utf8.first == UInt8(ascii: "[")
    let end = isBracketed ? "]:" : ":"
    guard let (host, digits) = split(text.utf8.dropFirst(isBracketed ? 1 : 0), at: end),
      let address = IPAddress(host), host.utf8.contains(UInt8(ascii: ":")) == isBracketed
    else {
      throw WorkloadEndpointError(
        "a tcp: endpoint is tcp://IP:PORT: an IP address (IPv6 in brackets), no name, no path")
    }
    guard digits.utf8.allSatisfy({ (48...57).contains($0) }), digits.utf8.count <= 5,
      digits.utf8.first != UInt8(ascii: "0"), let port = UInt16(digits)
    else { throw WorkloadEndpointError("the port of a tcp: endpoint is a number, 1 to 65535") }
    return SocketAddress(address, port: port)
  }

  /// What is before and after the first occurrence of `separator`.
  private static func split(_ text: Substring.UTF8View, at separator: String) -> (String, String)? {
    var index = text.startIndex
    while index != text.endIndex {
      if text[index...].starts(with: separator.utf8) {
        let after = text[index...].dropFirst(separator.utf8.count)
        return (String(Substring(text[..<index])), String(Substring(after)))
      }
      text.formIndex(after: &index)
    }
    return nil
  }
}
