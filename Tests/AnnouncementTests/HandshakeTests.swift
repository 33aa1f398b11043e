import Announcement
import Net
import TestSupport
import Testing

@Suite(.serialized)
enum AnnouncementTests {}

extension AnnouncementTests {
  @Suite("A handshake", .needsNamespaces, .needsIPv6, .needsSockOps)
  struct Handshake {
    @Test(
      "tells each end whether the other announces, and changes one bit", arguments: Family.allCases)
    func combinations(family: Family) throws {
      let pair = try Pair()
      for clientMark in [Marks.announcing, Marks.silent] {
        for serverMark in [Marks.announcing, Marks.silent] {
          let listener = try pair.server.listenMarked(serverMark)
          let seen = try Seen(from: pair.client, mark: clientMark, to: family.server, listener)
          let bit = clientMark & serverMark & Mark.announce != 0 ? Mark.announced : 0
          #expect(seen == Seen(client: clientMark | bit, server: serverMark | bit))
        }
      }
    }

    @Test("works for whichever mark is configured, and for no other", arguments: Family.allCases)
    func otherMark(family: Family) throws {
      let pair = try Pair(announcing: false)
      let mark = UInt32(0xfedc)
      let announcing = try [pair.client, pair.server].map {
        try Announcing.start(in: $0, mark: UInt16(mark))
      }
      let listener = try pair.server.listenMarked(mark | Mark.announce)
      let seen = try Seen(
        from: pair.client, mark: mark | Mark.announce, to: family.server, listener)
      let both = mark | Mark.announce | Mark.announced
      #expect(seen == Seen(client: both, server: both))
      let other = try pair.server.listenMarked()
      let unseen = try Seen(from: pair.client, to: family.server, other)
      #expect(unseen == .neither)
      withExtendedLifetime(announcing) {}
    }

    @Test("takes the bit away that a socket had from elsewhere", arguments: Family.allCases)
    func staleBit(family: Family) throws {
      let pair = try Pair()
      let listener = try pair.server.listenMarked(Marks.silent)
      let seen = try Seen(from: pair.client, mark: Marks.answered, to: family.server, listener)
      #expect(seen == Seen(client: Marks.announcing, server: Marks.silent))
    }

    @Test(
      "carries the option once in the SYN, once in the SYN-ACK, and never again",
      arguments: Family.allCases)
    func onTheWire(family: Family) throws {
      let pair = try Pair()
      let listener = try pair.server.listenMarked()
      let recording = try pair.captured {
        let seen = try Seen(from: pair.client, to: family.server, listener)
        #expect(seen == .both)
      }
      let segments = recording.announcements
      #expect(segments.map(\.isSYN) == [true, true])
      #expect(segments.map(\.isACK) == [false, true])
      for segment in segments {
        #expect(
          segment.options.filter { $0.first == AnnouncementOption.kind }
            == [AnnouncementOption.bytes])
      }
      #expect(recording.headers.count > 5)
    }

    @Test("of anyone else carries nothing and changes no mark", arguments: Family.allCases)
    func others(family: Family) throws {
      let pair = try Pair()
      for mark in [nil, Marks.silent, Mark.announce, Mark.announce | 0xc18] {
        let listener = try pair.server.listenMarked(mark)
        let recording = try pair.captured {
          let seen = try Seen(from: pair.client, mark: mark, to: family.server, listener)
          #expect(seen == Seen(client: mark ?? 0, server: mark ?? 0))
        }
        #expect(recording.announcements.isEmpty)
        #expect(recording.headers.count { $0.isSYN } == 2)
      }
    }

    @Test(
      "is answered only if it was announced, and only by who announces", arguments: Family.allCases)
    func answers(family: Family) throws {
      let pair = try Pair()
      let announcing = try pair.server.listenMarked()
      let unmarked = try pair.server.listenMarked(nil)
      let recording = try pair.captured {
        _ = try Seen(from: pair.client, mark: nil, to: family.server, announcing)
        _ = try Seen(from: pair.client, to: family.server, unmarked)
      }
      #expect(recording.announcements.map(\.isACK) == [false])
      #expect(recording.announcements.map(\.destinationPort) == [unmarked.port])
    }

    @Test("carries the option once where two announce in one namespace", arguments: Family.allCases)
    func twice(family: Family) throws {
      let pair = try Pair()
      let more = try [pair.client, pair.server].map { try Announcing.start(in: $0) }
      let listener = try pair.server.listenMarked()
      let recording = try pair.captured {
        let seen = try Seen(from: pair.client, to: family.server, listener)
        #expect(seen == .both)
      }
      #expect(
        recording.announcements.map { $0.options.filter { $0.first == 254 } }
          == [[AnnouncementOption.bytes], [AnnouncementOption.bytes]])
      withExtendedLifetime(more) {}
    }

    @Test(
      "is left alone in a namespace where nobody announces, though the cgroup is the same",
      arguments: Family.allCases)
    func otherNamespace(family: Family) throws {
      let pair = try Pair(announcing: false)
      let client = try Announcing.start(in: pair.client)
      let listener = try pair.server.listenMarked()
      let recording = try pair.captured {
        let seen = try Seen(from: pair.client, to: family.server, listener)
        #expect(seen == .neither)
      }
      #expect(recording.announcements.map(\.isACK) == [false])
      let server = try Announcing.start(in: pair.server)
      let other = try pair.server.listenMarked()
      let seen = try Seen(from: pair.client, to: family.server, other)
      #expect(seen == .both)
      withExtendedLifetime((client, server)) {}
    }

    @Test("is not announced where SYN cookies forget it", arguments: Family.allCases)
    func cookies(family: Family) throws {
      let pair = try Pair()
      let listener = try pair.server.listenMarked()
      try pair.server.check(["sysctl", "-w", "net.ipv4.tcp_syncookies=2"])
      let recording = try pair.captured {
        let seen = try Seen(from: pair.client, to: family.server, listener)
        #expect(seen == .neither)
      }
      #expect(recording.announcements.map(\.isACK) == [false])
    }
  }
}
