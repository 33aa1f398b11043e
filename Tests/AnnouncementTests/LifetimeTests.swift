import Announcement
import CLinux
import Net
import TestSupport
import Testing

extension AnnouncementTests {
  @Suite("An announcer", .needsNamespaces, .needsIPv6, .needsSockOps)
  struct Lifetime {
    @Test("ends with its descriptor, and what listened stays silent", arguments: Family.allCases)
    func descriptor(family: Family) throws {
      let pair = try Pair(announcing: false)
      let announcing = try [pair.client, pair.server].map { try Announcing.start(in: $0) }
      let listener = try pair.server.listenMarked()
      let before = try Seen(from: pair.client, to: family.server, listener)
      #expect(before == .both)
      for end in announcing { end.stop() }
      let recording = try pair.captured {
        let after = try Seen(from: pair.client, to: family.server, listener)
        #expect(after == .neither)
      }
      #expect(recording.announcements.isEmpty)
      #expect(recording.headers.count { $0.isSYN } == 2)
    }

    @Test("lets another take over its listeners", arguments: Family.allCases)
    func successor(family: Family) throws {
      let pair = try Pair(announcing: false)
      let client = try Announcing.start(in: pair.client)
      let predecessor = try Announcing.start(in: pair.server)
      let listener = try pair.server.listenMarked()
      predecessor.stop()
      let between = try Seen(from: pair.client, to: family.server, listener)
      #expect(between == .neither)
      let successor = try Announcing.start(in: pair.server)
      let seen = try Seen(from: pair.client, to: family.server, listener)
      #expect(seen == .both)
      withExtendedLifetime((client, successor)) {}
    }

    @Test("ends with its process")
    func process() async throws {
      let pair = try Pair(announcing: false)
      let serverSide = try Announcing.start(in: pair.server)
      let listener = try pair.server.listenMarked()
      let (name, port) = (pair.client.name, listener.port)
      await #expect(processExitsWith: .success) { [name = name as String, port = port as UInt16] in
        try enterNamespace(name)
        Kept(try Announcer(mark: UInt16(Mark.proxy))).leak()
        let stream = try Socket.stream(.v4)
        try Socket.setMark(stream.number, Marks.announcing)
        try Socket.connect(
          stream.number, to: SocketAddress(try #require(IPAddress(Family.v4.server)), port: port))
        // The suite's own check that the process did announce.
        try #require(try Socket.mark(stream.number) == Marks.answered)
      }
      let accepted = try listener.accept()
      #expect(try Socket.mark(accepted.descriptor) == Marks.answered)
      let after = try Seen(from: pair.client, to: Family.v4.server, listener)
      #expect(after == .neither)
      withExtendedLifetime(serverSide) {}
    }
  }
}

/// Has the calling thread enter a namespace by name.
private func enterNamespace(_ name: String) throws {
  let file = unsafe culvert_open("/run/netns/\(name)", O_RDONLY | O_CLOEXEC, 0)
  try Errno.check { culvert_setns(file, 0) }
}

/// An announcer whose end is left to the kernel.
private final class Kept {
  private let announcer: Announcer

  init(_ announcer: consuming Announcer) { self.announcer = announcer }

  func leak() { _ = unsafe Unmanaged.passRetained(self) }
}
