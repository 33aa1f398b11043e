import CLinux
import Glibc
import Net
import TLS

/// The agent's loop: one thread, which never waits for a single client.
struct Agent: ~Copyable {
  static let connectionsMaximum = 256
  /// Connections of one user, so that no user takes them all.
  static let connectionsPerUserMaximum = 64
  /// How often files and lifetimes are looked at.
  static let tickMilliseconds: Int64 = 1000

  private let path: String
  private let listener: Descriptor
  private let signals: Descriptor
  private var issuer: Issuer
  private var connections: [AgentConnection] = []
  private var nextTick: Int64 = 0

  init(path: String, mode: UInt32, issuer: consuming Issuer) throws(CommandError) {
    let listener = try Self.listen(path, mode)
    let signals = try Self.blockSignals()
    self.listener = listener
    self.signals = signals
    self.path = path
    self.issuer = issuer
    Log.write("listening at unix://\(path): \(self.issuer.summary)")
  }

  deinit { _ = unsafe unlink(path) }

  private static func listen(_ path: String, _ mode: UInt32) throws(CommandError) -> Descriptor {
    do throws(Errno) {
      return try UnixSocket.listen(path, mode: mode)
    } catch Errno(EADDRINUSE) {
      throw CommandError("\(path): somebody answers here already")
    } catch {
      throw CommandError("\(path): cannot listen: \(error)")
    }
  }

  private static func blockSignals() throws(CommandError) -> Descriptor {
    signal(SIGPIPE, SIG_IGN)
    var mask = sigset_t()
    unsafe sigemptyset(&mask)
    for signal in [SIGTERM, SIGINT] { unsafe sigaddset(&mask, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &mask, nil)
    do throws(Errno) {
      let flags = Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK)
      return Descriptor(owning: try Errno.check { unsafe signalfd(-1, &mask, flags) })
    } catch {
      throw CommandError("signalfd: \(error)")
    }
  }

  /// Serves until SIGTERM or SIGINT.
  mutating func run() {
    while true {
      let isFull = connections.count >= Self.connectionsMaximum
      var polled = [
        pollfd(fd: signals.number, events: Int16(POLLIN), revents: 0),
        // With all places taken the next client waits in the backlog.
        pollfd(fd: listener.number, events: isFull ? 0 : Int16(POLLIN), revents: 0),
      ]
      polled += connections.map { pollfd(fd: $0.descriptor, events: $0.events, revents: 0) }
      let wait = max(0, min(Self.tickMilliseconds, nextTick - Clock.milliseconds()))
      _ = unsafe poll(&polled, nfds_t(polled.count), Int32(wait))
      if polled[0].revents != 0 { break }
      let now = Clock.milliseconds()
      for (connection, request) in zip(connections, polled[2...]) where request.revents != 0 {
        connection.receive(&issuer)
      }
      if polled[1].revents != 0 { accept(now) }
      if now >= nextTick {
        nextTick = now + Self.tickMilliseconds
        issuer.reloadIfChanged()
        for connection in connections { connection.push(&issuer) }
      }
      for connection in connections { connection.send(now: now) }
      connections.removeAll { $0.isOver }
    }
    Log.write("stopped")
  }

  private mutating func accept(_ now: Int64) {
    let flags = Int32(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    while connections.count < Self.connectionsMaximum {
      let accepted = culvert_accept4(listener.number, nil, nil, flags)
      guard accepted >= 0 else { return }
      do throws(Errno) {
        let caller = try Caller(of: accepted)
        let siblings = connections.count { $0.caller.userID == caller.userID }
        guard siblings < Self.connectionsPerUserMaximum else {
          Log.write("\(caller): refused, its user has \(siblings) connections")
          _ = close(accepted)
          continue
        }
        connections.append(AgentConnection(accepted, caller, now: now))
      } catch {
        Log.write("refused: who is it? \(error)")
        _ = close(accepted)
      }
    }
  }
}
