#if DEBUG
  internal import CLinux
  import Foundation
  internal import Net

  /// Something a test waited for in vain, or could not set up.
  struct Trouble: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
  }

  /// How long a test waits for what must happen, in seconds. Only a failing test waits this long.
  let patienceSeconds = 20.0

  /// The test's end of a relayed connection's leg.
  final class FarEnd {
    enum Ending { case finished, reset }

    private let socket: Descriptor
    /// The worker's end of the leg: only ever asked how much waits in it.
    private let near: Int32
    private(set) var received: [UInt8] = []
    private(set) var ending: Ending?

    init(_ socket: consuming Descriptor, near: Int32) {
      self.socket = socket
      self.near = near
    }

    // MARK: Sending

    /// Sends all of it; takes what comes to `other` meanwhile, so that nothing stands still.
    func send(_ bytes: [UInt8], draining other: FarEnd? = nil) throws {
      let deadline = Date(timeIntervalSinceNow: patienceSeconds)
      var sent = 0
      while sent < bytes.count {
        let count = unsafe bytes.withUnsafeBytes { bytes in
          unsafe CLinux.send(
            socket.number, bytes.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
        }
        if count > 0 {
          sent += count
          continue
        }
        guard errno == EAGAIN else { throw Trouble("cannot send: \(Errno.current)") }
        guard Date() < deadline else { throw Trouble("sent \(sent) of \(bytes.count)") }
        other?.drain()
        wait(Int16(POLLOUT), milliseconds: 1)
      }
    }

    /// Sends until nothing more has been taken for a while.
    func sendUntilBlocked(_ bytes: [UInt8]) throws {
      var idle = 0
      while idle < 20 {
        let count = unsafe CLinux.send(
          socket.number, bytes, bytes.count, Int32(MSG_NOSIGNAL) | Int32(MSG_DONTWAIT))
        guard count > 0 || errno == EAGAIN else { throw Trouble("cannot send: \(Errno.current)") }
        idle = count > 0 ? 0 : idle + 1
        if count < 0 { wait(Int16(POLLOUT), milliseconds: 10) }
      }
    }

    /// Sends, and returns when the worker has taken all of it out of its socket.
    func sendAlone(_ bytes: [UInt8]) throws {
      try send(bytes)
      let deadline = Date(timeIntervalSinceNow: patienceSeconds)
      while unread > 0 {
        guard Date() < deadline else { throw Trouble("\(unread) bytes were not received") }
        sched_yield()
      }
    }

    /// Bytes that are not acknowledged yet or wait in the worker's socket.
    private var unread: Int32 {
      var unsent: Int32 = 0
      var waiting: Int32 = 0
      _ = unsafe ioctl(socket.number, UInt(TIOCOUTQ), &unsent)
      _ = unsafe ioctl(near, UInt(FIONREAD), &waiting)
      return unsent + waiting
    }

    func finish() { _ = shutdown(socket.number, Int32(SHUT_WR)) }

    // MARK: Receiving

    /// Takes what is there.
    func drain() {
      while ending == nil {
        let count = unsafe withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 1) { room in
          let count = unsafe recv(socket.number, room.baseAddress, room.count, 0)
          if count > 0 { unsafe received += room[..<count] }
          return count
        }
        if count > 0 { continue }
        if count < 0, errno == EAGAIN { return }
        ending = count == 0 ? .finished : .reset
      }
    }

    /// Gives what was received and forgets it.
    func take() -> [UInt8] {
      defer { received.removeAll(keepingCapacity: true) }
      return received
    }

    /// Receives until it is so.
    func receive(_ what: String, until isSo: (FarEnd) -> Bool) throws {
      let deadline = Date(timeIntervalSinceNow: patienceSeconds)
      while true {
        drain()
        if isSo(self) { return }
        guard ending == nil, Date() < deadline else {
          throw Trouble("\(what): \(received.count) bytes, \(String(describing: ending))")
        }
        wait(Int16(POLLIN), milliseconds: 100)
      }
    }

    func receive(bytes count: Int) throws {
      try receive("\(count) bytes") { $0.received.count >= count }
    }

    func receiveEnd() throws -> Ending {
      try receive("the end") { $0.ending != nil }
      return ending!
    }

    private func wait(_ events: Int16, milliseconds: Int32) {
      var request = pollfd(fd: socket.number, events: events, revents: 0)
      _ = unsafe poll(&request, 1, milliseconds)
    }
  }
#endif
