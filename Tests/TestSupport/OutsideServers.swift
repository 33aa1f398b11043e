internal import Foundation

/// TLS servers outside the mesh, by Python's `ssl`: no mesh ALPN, no SPIFFE identity.
package struct OutsideServers: Sendable {
  package struct Entry: Encodable, Sendable {
    package enum Answers: String, Encodable, Sendable {
      /// To a request that ends with a blank line: `answer to`, and its first line.
      case http
      /// With all that came, once the client has finished.
      case mirror
    }

    private enum CodingKeys: String, CodingKey {
      case port, certificate, key, version, clients, answers, bare
    }

    package var port: UInt16
    package var certificate: String
    package var key: String
    /// `1.2` or `1.3`, and nothing else.
    package var version = "1.3"
    /// PEM of the authorities whose client certificates are demanded.
    package var clients: String?
    package var answers = Answers.http
    /// End without close_notify.
    package var bare = false

    package init(port: UInt16, _ credential: Credential, _ change: (inout Self) -> Void = { _ in })
    {
      self.port = port
      certificate = credential.certificate
      key = credential.privateKey
      change(&self)
    }
  }

  /// What a server says of one connection.
  package struct Connection: Decodable, Sendable {
    package let port: UInt16
    /// `TLSv1.2` or `TLSv1.3`.
    package let version: String?
    package let sni: String?
    package let bytes: Int?
    /// Of the client's certificate: hexadecimal, in capitals.
    package let serial: String?
    package let error: String?
  }

  private let program: Program

  package init(in namespace: Namespace, _ entries: [Entry]) throws {
    let text = String(decoding: try JSONEncoder().encode(entries), as: UTF8.self)
    program = try namespace.start([try Python.path, Python.script("outside"), text])
    try program.waitForOutput(containing: "ready")
  }

  package var connections: [Connection] {
    program.output.lines.compactMap {
      try? JSONDecoder().decode(Connection.self, from: Data($0.utf8))
    }
  }

  /// Waits until the server on a port has said something of its connection number `count`.
  @discardableResult
  package func wait(forPort port: UInt16, count: Int = 1) throws -> Connection {
    var found: [Connection] = []
    try eventually("connection \(count) of the server on port \(port)") {
      found = connections.filter { $0.port == port }
      return found.count >= count
    }
    return found[count - 1]
  }
}
