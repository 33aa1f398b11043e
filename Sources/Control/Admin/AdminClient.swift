internal import CLinux
internal import FoundationEssentials
internal import Net

/// The other end of the admin socket, for `culvert`.
package enum AdminClient {
  /// Bytes an answer may have.
  static let maximumResponseBytes = 16 * 1024 * 1024
  /// From connecting to the last byte of the answer.
  package static let timeoutMilliseconds = 5000

  /// The status of the proxy at `path`; throws one line for people.
  package static func status(
    at path: String, timeoutMilliseconds: Int = timeoutMilliseconds
  ) throws(LoadError) -> StatusReport {
    let response = try ask(
      AdminRequest(.status), at: path, timeoutMilliseconds: timeoutMilliseconds)
    guard let status = response.status else {
      throw LoadError(description: "\(path): the answer holds no status")
    }
    return status
  }

  /// The status of the proxy at `path` as soon as it has an identity and does not drain; throws one
  /// line for people if that takes longer.
  package static func readyStatus(
    at path: String, withinSeconds seconds: Int
  ) throws(LoadError) -> StatusReport {
    let deadline = Clock.milliseconds() + Int64(seconds) * 1000
    while true {
      var problem: LoadError
      do throws(LoadError) {
        let report = try status(at: path)
        if report.identity.state == "ready", !report.draining { return report }
        let what = report.draining ? "it drains" : "its identity is \(report.identity.state)"
        problem = LoadError(description: "\(path): not ready after \(seconds) s: \(what)")
      } catch {
        problem = error
      }
      guard Clock.milliseconds() < deadline else { throw problem }
      usleep(readyLookMicroseconds)
    }
  }

  private static let readyLookMicroseconds: UInt32 = 100_000

  /// The identity of the proxy at `path`, and whom it trusts; throws one line for people.
  package static func identity(at path: String) throws(LoadError) -> IdentityReport {
    guard let identity = try ask(AdminRequest(.identity), at: path).identity else {
      throw LoadError(description: "\(path): the answer holds no identity")
    }
    return identity
  }

  /// The metrics of the proxy at `path`; throws one line for people.
  package static func metrics(at path: String) throws(LoadError) -> String {
    guard let metrics = try ask(AdminRequest(.metrics), at: path).metrics else {
      throw LoadError(description: "\(path): the answer holds no metrics")
    }
    return metrics
  }

  /// Who was seen without mesh mTLS by the proxy at `path`; throws one line for people.
  package static func migration(at path: String) throws(LoadError) -> MigrationReport {
    guard let migration = try ask(AdminRequest(.migration), at: path).migration else {
      throw LoadError(description: "\(path): the answer holds no migration report")
    }
    return migration
  }

  /// The pins of the proxy at `path`; throws one line for people.
  package static func pins(at path: String) throws(LoadError) -> [PinReport] {
    guard let pins = try ask(AdminRequest(.pins), at: path).pins else {
      throw LoadError(description: "\(path): the answer holds no pins")
    }
    return pins
  }

  /// Asks the proxy at `path`; throws one line for people.
  package static func ask(
    _ request: AdminRequest, at path: String,
    timeoutMilliseconds: Int = timeoutMilliseconds
  ) throws(LoadError) -> AdminResponse {
    let bytes: [UInt8]
    do throws(Errno) {
      bytes = try exchange(request, at: path, timeoutMilliseconds)
    } catch .noEntry, Errno(ECONNREFUSED) {
      throw LoadError(
        description: "\(path): no culvert-proxy answers here; "
          + "is it running, and is this its admin.socket?")
    } catch .permissionDenied {
      throw LoadError(description: "\(path): permission denied; run as the proxy's user")
    } catch .tryAgain {
      throw LoadError(
        description: "\(path): no whole answer within \(timeoutMilliseconds) ms; "
          + "the proxy is stuck, or this is not its admin.socket")
    } catch {
      throw LoadError(description: "\(path): \(error)")
    }
    return try decode(bytes, from: path)
  }

  private static func decode(
    _ bytes: [UInt8], from path: String
  ) throws(LoadError) -> AdminResponse {
    struct Envelope: Decodable { var version: Int }
    let data = Data(bytes)
    guard let envelope = try? JSONDecoder().decode(Envelope.self, from: data) else {
      throw LoadError(description: "\(path): the answer is not one of a culvert-proxy")
    }
    guard envelope.version == AdminRequest.currentVersion else {
      throw LoadError(
        description: "\(path): the proxy answers in version \(envelope.version) of the admin "
          + "protocol, this culvert reads version \(AdminRequest.currentVersion); "
          + "use the culvert that came with it")
    }
    guard let response = try? JSONDecoder().decode(AdminResponse.self, from: data) else {
      throw LoadError(description: "\(path): the answer is not one this culvert understands")
    }
    if let error = response.error { throw LoadError(description: "\(path): \(error)") }
    return response
  }

  private static func exchange(
    _ request: AdminRequest, at path: String, _ timeoutMilliseconds: Int
  ) throws(Errno) -> [UInt8] {
    let deadline = Clock.milliseconds() + Int64(timeoutMilliseconds)
    let socket = try UnixSocket.connect(path, timeoutMilliseconds: timeoutMilliseconds)
    guard let encoded = try? JSONEncoder().encode(request) else {
      throw Errno(EINVAL)
    }
    // A request is far smaller than a socket buffer, so that one call takes it whole.
    let line = Array(encoded) + [UInt8(ascii: "\n")]
    try Errno.check {
      unsafe send(socket.number, line, line.count, Int32(MSG_NOSIGNAL))
    }
    var answer: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while answer.last != UInt8(ascii: "\n") {
      let left = Int(deadline - Clock.milliseconds())
      guard left > 0 else { throw .tryAgain }
      try UnixSocket.setTimeout(socket, SO_RCVTIMEO, milliseconds: left)
      let count = try Errno.check { unsafe recv(socket.number, &chunk, chunk.count, 0) }
      guard count > 0 else { break }
      answer += chunk[..<count]
      guard answer.count <= maximumResponseBytes else { throw Errno(EMSGSIZE) }
    }
    return answer
  }
}
