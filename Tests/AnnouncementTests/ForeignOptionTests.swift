import Announcement
import Foundation
import Net
import TestSupport
import Testing

/// What a SYN or a SYN-ACK may carry, and whether that announces mesh.
struct OptionCase: CustomTestStringConvertible, Sendable {
  let testDescription: String
  let options: [UInt8]
  let isAnnouncement: Bool

  private static let ours = AnnouncementOption.bytes
  private static let id = [UInt8](ours[2..<4])

  static let all = [
    Self(testDescription: "ours", options: ours, isAnnouncement: true),
    Self(
      testDescription: "ours, of version 2", options: [254, 5] + id + [2], isAnnouncement: true),
    Self(
      testDescription: "ours after a maximum segment size and another experiment",
      options: [2, 4, 5, 0xb4, 254, 6, 0xe2, 0xd4, 1, 2] + ours, isAnnouncement: true),
    Self(
      testDescription: "ours, of version 0", options: [254, 5] + id + [0], isAnnouncement: false),
    Self(testDescription: "ours without a version", options: [254, 4] + id, isAnnouncement: false),
    Self(testDescription: "ours, longer", options: [254, 6] + id + [1, 1], isAnnouncement: false),
    Self(testDescription: "half an identifier", options: [254, 3, id[0]], isAnnouncement: false),
    Self(
      testDescription: "another experiment", options: [254, 5, 0xe2, 0xd4, 1],
      isAnnouncement: false),
    Self(
      testDescription: "another experiment with ours inside",
      options: [254, 7, 0xe2] + ours.prefix(4),
      isAnnouncement: false),
    Self(testDescription: "the other kind", options: [253, 5] + id + [1], isAnnouncement: false),
    Self(testDescription: "an unknown kind", options: [200, 6, 1, 2, 3, 4], isAnnouncement: false),
    Self(
      testDescription: "longer than the header", options: [254, 40] + id, isAnnouncement: false),
    Self(testDescription: "after the end of the list", options: [0] + ours, isAnnouncement: false),
    Self(testDescription: "nothing", options: [], isAnnouncement: false),
  ]
}

extension AnnouncementTests {
  @Suite("An option made by hand", .needsNftables, .needsIPv6, .needsSockOps)
  struct ForeignOptions {
    @Test("in a SYN", arguments: OptionCase.all)
    func inSYN(_ option: OptionCase) throws {
      let pair = try Pair()
      let listener = try pair.server.listenMarked()
      let client = try RawEnd(
        in: pair.client, Family.v4.client, port: 5000, to: Family.v4.server)
      try client.send(RawEnd.syn, to: listener.port, sequence: 1000, options: option.options)
      let answer = try client.receive { $0.header.isSYN && $0.header.isACK }
      let answered = answer.header.options.contains(AnnouncementOption.bytes)
      #expect(answered == option.isAnnouncement)
      try client.send(
        RawEnd.ack, to: listener.port, sequence: 1001,
        acknowledging: answer.header.sequence &+ 1, payload: "hello")
      let accepted = try listener.accept()
      #expect(
        try Socket.mark(accepted.descriptor)
          == (option.isAnnouncement ? Marks.answered : Marks.announcing))
      #expect(try accepted.receiveText(exactly: 5) == "hello")
    }

    @Test("in a SYN-ACK", arguments: OptionCase.all)
    func inSYNACK(_ option: OptionCase) throws {
      let pair = try Pair()
      let server = try RawEnd(
        in: pair.server, Family.v4.server, port: 5000, to: Family.v4.client)
      let answered = Box(false)
      Thread.detachNewThread {
        guard let syn = try? server.receive(where: { $0.header.isSYN }) else { return }
        let isAnnounced = syn.header.options.contains(AnnouncementOption.bytes)
        answered.update { $0 = isAnnounced }
        try? server.send(
          RawEnd.syn | RawEnd.ack, to: syn.header.sourcePort, sequence: 2000,
          acknowledging: syn.header.sequence &+ 1, options: option.options)
      }
      let stream = try pair.client.connect(
        to: Family.v4.server, port: 5000, mark: Marks.announcing)
      #expect(answered.value)
      #expect(
        try Socket.mark(stream.descriptor)
          == (option.isAnnouncement ? Marks.answered : Marks.announcing))
      try stream.send("hello")
      let segment = try server.receive { !$0.payload.isEmpty }
      #expect(segment.payload == Array("hello".utf8))
      #expect(segment.header.options.allSatisfy { $0.first != AnnouncementOption.kind })
    }
  }
}
