internal import CLinux
package import Net

extension GRPCConnection {
  /// How a connection stands after its socket was looked at.
  package enum SocketState: Hashable, Sendable {
    case open
    /// The other end has closed it, in order or not.
    case ended(Errno?)
    /// What came was not HTTP/2.
    case broken
  }

  /// Bytes taken from one socket in one turn, so that a fast sender does not keep everything else
  /// waiting.
  static let turnMaximumBytes = 4 * receiveBufferBytes

  /// Reads what is there, without waiting.
  ///
  /// - Returns: the state, and whether any byte came.
  package func receive(from descriptor: Int32) -> (state: SocketState, any: Bool) {
    var taken = 0
    while taken < Self.turnMaximumBytes {
      let count = unsafe input.fill { room in
        unsafe recv(descriptor, room.baseAddress, room.count, Int32(MSG_DONTWAIT))
      }
      guard count > 0 else {
        let error = Errno.current
        if count < 0, error == .interrupted { continue }
        if count < 0, error == .tryAgain { break }
        return (.ended(count == 0 ? nil : error), taken > 0)
      }
      taken += count
      let isSound = unsafe input.withBytes { unsafe receive($0) }
      input.removeFirst(input.count)
      guard isSound else { return (.broken, true) }
    }
    return (.open, taken > 0)
  }

  /// Sends what the socket takes, without waiting.
  package func send(to descriptor: Int32) -> SocketState {
    while hasOutput {
      let count = unsafe withOutput { bytes in
        guard bytes.count > 0 else { return 0 }
        return unsafe CLinux.send(
          descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
      }
      guard count >= 0 else {
        let error = Errno.current
        if error == .interrupted { continue }
        return error == .tryAgain ? .open : .ended(error)
      }
      // Everything that is left waits for the other end.
      if count == 0 { break }
    }
    return isOver ? .broken : .open
  }
}
