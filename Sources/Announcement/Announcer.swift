internal import CLinux
internal import Net

/// Announces mesh in TCP handshakes, and sees the announcements of others, as long as it lives.
///
/// Once it exists, a socket of this network namespace that carries the mark given and bit 16 of it
/// (`Mark.announce`) takes part: set both before connect(2), or before listen(2) together with
/// TCP_SAVE_SYN. When `connect` or `accept` has completed, bit 17 of the socket's mark
/// (`Mark.announced`) says whether the other end announced, too. That is a hint and no proof:
/// whoever is on the path can add the option or take it away.
///
/// It needs CAP_BPF and CAP_NET_ADMIN while it is made, and none afterwards.
@safe
package struct Announcer: ~Copyable, Sendable {
  /// The link between program and cgroup: the kernel ends it with the last descriptor, that is,
  /// with the process at the latest.
  private let link: Descriptor

  /// Starts to announce in the calling thread's network namespace and makes sure that it works.
  ///
  /// - Parameter mark: the low 16 bits of the proxy's marks.
  package init(mark: UInt16) throws(AnnouncementError) {
    let cgroup = try ControlGroup.open()
    let program = try Self.load(
      AnnouncementProgram.instructions(mark: mark, namespace: try Self.namespaceCookie()))
    let link = try Self.attach(program, to: cgroup)
    try Self.selfTest(mark: UInt32(mark))
    self.link = link
  }

  /// Tells network namespaces apart as long as the machine runs (SO_NETNS_COOKIE, Linux 5.14).
  private static func namespaceCookie() throws(AnnouncementError) -> UInt64 {
    do throws(Errno) {
      let socket = try Socket.stream(.v4)
      let number = socket.number
      var cookie: UInt64 = 0
      var length = socklen_t(MemoryLayout<UInt64>.size)
      try Errno.check {
        unsafe getsockopt(number, SOL_SOCKET, culvert_SO_NETNS_COOKIE, &cookie, &length)
      }
      return cookie
    } catch {
      throw .noNamespaceCookie(error)
    }
  }

  /// Of the verifier's log, which is asked for only when it has said no.
  private static let maximumLogBytes = 1 << 16
  /// The verifier gives up with EAGAIN when a signal waits.
  private static let maximumLoadAttempts = 5

  static func load(_ instructions: [UInt64]) throws(AnnouncementError) -> Descriptor {
    var log: [CChar] = []
    do throws(Errno) {
      return try load(instructions, log: &log)
    } catch {
      if error == .notPermitted { throw .cannotLoad(error, log: nil) }
      log = [CChar](repeating: 0, count: maximumLogBytes)
      _ = try? load(instructions, log: &log)
      throw .cannotLoad(error, log: lastLine(of: log))
    }
  }

  private static func load(
    _ instructions: [UInt64], log: inout [CChar]
  ) throws(Errno) -> Descriptor {
    for _ in 1..<maximumLoadAttempts {
      do throws(Errno) {
        return try loadOnce(instructions, log: &log)
      } catch {
        guard error == .tryAgain else { throw error }
      }
    }
    return try loadOnce(instructions, log: &log)
  }

  private static func loadOnce(
    _ instructions: [UInt64], log: inout [CChar]
  ) throws(Errno) -> Descriptor {
    // It calls nothing that the kernel keeps for programs under the GPL.
    let number = try Errno.check {
      unsafe culvert_bpf_load_sock_ops(
        instructions, UInt32(instructions.count), "Apache-2.0", &log, UInt32(log.count))
    }
    return Descriptor(owning: number)
  }

  private static func lastLine(of log: [CChar]) -> String? {
    let bytes = log.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    // After the reason it counts instructions.
    return bytes.split(separator: UInt8(ascii: "\n"))
      .last { !$0.starts(with: "processed ".utf8) }
      .map { String(decoding: $0, as: UTF8.self) }
  }

  private static func attach(
    _ program: borrowing Descriptor, to cgroup: borrowing Descriptor
  ) throws(AnnouncementError) -> Descriptor {
    let (programNumber, cgroupNumber) = (program.number, cgroup.number)
    do throws(Errno) {
      return Descriptor(
        owning: try Errno.check { culvert_bpf_link_sock_ops(programNumber, cgroupNumber) })
    } catch {
      throw .cannotAttach(error)
    }
  }
}
