internal import CLinux
internal import FoundationEssentials
internal import Net

/// The other end of the admin socket, for `culvert`.
package enum AdminClient {
  /// Bytes an answer may have.
  static let maximumResponseBytes = 16 * 1024 * 1024
  static let timeoutSeconds = 5

  /// Asks the proxy at `path`; throws one line for people.
  package static func ask(
    _ request: AdminRequest.Kind, at path: String
  ) throws(LoadError) -> AdminResponse {
    let bytes: [UInt8]
    do throws(Errno) {
      bytes = try exchange(request, at: path)
    } catch .noEntry, Errno(ECONNREFUSED) {
      throw LoadError(
        description: "\(path): no culvert-proxy answers here; "
          + "is it running, and is this its admin.socket?")
    } catch .permissionDenied {
      throw LoadError(description: "\(path): permission denied; run as the proxy's user")
    } catch {
      throw LoadError(description: "\(path): \(error)")
    }
    guard let response = try? JSONDecoder().decode(AdminResponse.self, from: Data(bytes)) else {
      throw LoadError(description: "\(path): the answer is not one this culvert understands")
    }
    if let error = response.error { throw LoadError(description: "\(path): \(error)") }
    return response
  }

  private static func exchange(
    _ request: AdminRequest.Kind, at path: String
  ) throws(Errno) -> [UInt8] {
    let socket = try UnixSocket.connect(path)
    var timeout = timeval(tv_sec: timeoutSeconds, tv_usec: 0)
    let length = socklen_t(MemoryLayout<timeval>.size)
    try Errno.check {
      unsafe setsockopt(socket.number, SOL_SOCKET, SO_RCVTIMEO, &timeout, length)
    }
    guard let encoded = try? JSONEncoder().encode(AdminRequest(request)) else {
      throw Errno(EINVAL)
    }
    let line = Array(encoded) + [UInt8(ascii: "\n")]
    try Errno.check {
      unsafe send(socket.number, line, line.count, Int32(MSG_NOSIGNAL))
    }
    var answer: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while answer.last != UInt8(ascii: "\n") {
      let count = try Errno.check { unsafe recv(socket.number, &chunk, chunk.count, 0) }
      guard count > 0 else { break }
      answer += chunk[..<count]
      guard answer.count <= maximumResponseBytes else { throw Errno(EMSGSIZE) }
    }
    return answer
  }
}
