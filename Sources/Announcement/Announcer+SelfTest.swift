internal import CLinux
internal import Net

extension Announcer {
  /// Tries a connection over 127.0.0.1 from a socket that announces and one from a socket that does
  /// not: nothing else shows that the kernel runs the program and that no filter takes the option
  /// away.
  static func selfTest(mark: UInt32) throws(AnnouncementError) {
    let announcing: Bool?
    let silent: Bool?
    do throws(Errno) {
      guard try LoopbackInterface.isUp() else { throw Errno(ENETDOWN) }
      let listener = try LoopbackListener(.v4, mark: mark | Mark.announce, savesSYN: true)
      announcing = try isAnnounced(listener, by: mark | Mark.announce)
      silent = try isAnnounced(listener, by: mark)
    } catch {
      throw .cannotTry(error)
    }
    guard announcing == true else { throw .notSeen }
    guard silent == false else { throw .seenUnannounced }
  }

  /// Whether both ends of a new connection say that the other one announced; nil if one does.
  private static func isAnnounced(
    _ listener: borrowing LoopbackListener, by mark: UInt32
  ) throws(Errno) -> Bool? {
    let pair = try listener.pair(connectingTo: listener.address, mark: mark)
    let client = try Socket.mark(pair.client.number) & Mark.announced != 0
    let server = try Socket.mark(pair.server.number) & Mark.announced != 0
    return client == server ? client : nil
  }
}
