internal import Net
internal import Policy

/// A listening socket of one worker; SO_REUSEPORT gives each worker its own accept queue.
final class Listener: Sendable {
  let descriptor: Descriptor
  let direction: Direction
  let address: SocketAddress
  /// Index of the namespace it belongs to.
  let namespace: UInt16

  /// Connections the kernel may hold before they are accepted (listen(2)).
  static let backlog: Int32 = 4096

  /// - Parameter flags: the backend's socket flags.
  init(
    _ direction: Direction, on address: SocketAddress, namespace: UInt16, flags: Int32
  ) throws(Errno) {
    descriptor = try Socket.listener(on: address, backlog: Self.backlog, flags: flags)
    self.direction = direction
    self.address = address
    self.namespace = namespace
  }
}
