import TLS
import Testing

@testable import DataPlane

@Suite struct RecordRoomTests {
  @Test(arguments: [0, 1, 61, 62, 63, 64], [false, true])
  func `a seal of the largest size never needs more room than it says`(
    before: Int, isAsked: Bool
  ) throws {
    // From any place in a key's life, with and without an answer that is owed; the window has
    // exactly the room asked for.
    let bytes = [UInt8](repeating: 1, count: RecordLayer.maximumSealBytes)
    let pair = RecordPair(recordsPerKey: RecordLayer.recordsPerKeyMinimum)
    var sealed: [UInt8] = []
    for _ in 0..<before { sealed += try #require(pair.client.seal([1])) }
    if isAsked {
      #expect(pair.client.open(pair.server.keyUpdate(requested: true)) == .keyUpdate)
    }
    sealed += try #require(pair.client.seal(bytes))
    let updates = records(in: sealed).map(pair.server.open).count { $0 == .keyUpdate }
    // 63 records of data to a key; one update serves an answer and a worn-out key alike.
    #expect(updates == (isAsked ? 1 + max(before - 1, 0) / 63 : (before + 62) / 63))
    #expect(pair.server.received.count == before + bytes.count)
  }
}
