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

  /// - Parameters:
  ///   - flags: the backend's socket flags.
  ///   - mark: accepted sockets inherit it, so that their replies stay exempt even when conntrack
  ///     has forgotten the connection.
  ///   - announces: whether it answers those who announce mesh in their SYN.
  init(
    _ direction: Direction, on address: SocketAddress, namespace: UInt16, flags: Int32,
    mark: UInt32, announces: Bool
  ) throws(Errno) {
    // Before it listens, when the program looks at the mark.
    descriptor = try Socket.listener(
      on: address, backlog: Self.backlog, flags: flags,
      mark: announces ? mark | Mark.announce : mark, savesSYN: announces)
    // Accepted sockets inherit it. Only the namespace's own applications come in here.
    if direction == .outbound { try Socket.setNoPacing(descriptor.number) }
    self.direction = direction
    self.address = address
    self.namespace = namespace
  }
}
