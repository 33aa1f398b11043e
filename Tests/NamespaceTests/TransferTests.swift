import Foundation
import TestSupport
import Testing

/// A gigabyte as it is sent: one block of noise, each time with its number at the front, so that a
/// block lost, repeated, moved or damaged shows.
struct Pattern: Sendable {
  static let blockSize = 1 << 20
  static let blockCount = 1024

  private let noise: [UInt8]

  init(seed: UInt64) {
    var state = seed
    noise = (0..<Self.blockSize / 8).flatMap { _ -> [UInt8] in
      // xorshift64: any stream without period inside the block will do.
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return unsafe withUnsafeBytes(of: state) { unsafe Array($0) }
    }
  }

  /// Sends all blocks; reports each one that the kernel took.
  func send(on stream: TestSupport.Stream, progress: Box<Int>) throws {
    var block = noise
    for number in 0..<Self.blockCount {
      Self.stamp(&block, number)
      try stream.send(block)
      progress.update { $0 = number + 1 }
    }
    stream.finish()
  }

  /// Receives all blocks, compares every byte, and expects a clean end after the last.
  func expect(on stream: TestSupport.Stream, pausing: (Int) -> Void) throws {
    var expected = noise
    var received = [UInt8](repeating: 0, count: Self.blockSize)
    for number in 0..<Self.blockCount {
      pausing(number)
      Self.stamp(&expected, number)
      let isWhole = try unsafe received.withUnsafeMutableBytes {
        try unsafe stream.receive(into: $0)
      }
      guard isWhole else { throw Trouble("the stream ended in block \(number)") }
      guard expected == received else { throw Trouble("block \(number) is damaged") }
    }
    guard try stream.end() == .clean else { throw Trouble("no clean end") }
  }

  private static func stamp(_ block: inout [UInt8], _ number: Int) {
    unsafe block.withUnsafeMutableBytes { unsafe $0.storeBytes(of: number, as: Int.self) }
  }
}

extension InNamespaces {
  @Suite("A gigabyte")
  struct Transfer {
    enum Direction: String, CaseIterable, Sendable {
      case up, down
    }

    @Test("arrives byte for byte, however slowly it is read", arguments: Direction.allCases)
    func gigabyte(_ direction: Direction) throws {
      try Mesh.run { mesh in
        let listener = try mesh.server.listen()
        let client = try mesh.client.connect(to: Family.v4.server, port: listener.port)
        let application = try listener.accept()
        let (sender, receiver) =
          direction == .up ? (client, application) : (application, client)
        // A slow reader stalls the sender for longer than an ordinary exchange takes.
        sender.setTimeout(seconds: 120)
        let pattern = Pattern(seed: 0x9e37_79b9_7f4a_7c15)
        let progress = Box(0)
        let failure = Box<String?>(nil)
        Thread.detachNewThread {
          do {
            try pattern.send(on: sender, progress: progress)
          } catch {
            failure.update { $0 = "\(error)" }
          }
        }
        let stalledAt = Self.waitForStall(progress)
        // What the sender got rid of before anybody read: socket and relay buffers, nothing more.
        #expect(stalledAt < 64, "\(stalledAt) MiB were taken while nobody read")
        try pattern.expect(on: receiver) { number in
          if number < 64 { usleep(5_000) }
        }
        #expect(failure.value == nil)
        sender.close()
        receiver.close()
        let record = try #require(mesh.serverProxy).waitForRecord { $0.end == "closed" }
        let total = Pattern.blockSize * Pattern.blockCount
        #expect([record.bytesSent, record.bytesReceived].contains(total))
        #expect(record.security == "mutual_tls")
      }
    }

    /// Waits until the sender makes no more progress, and says how far it came.
    private static func waitForStall(_ progress: Box<Int>) -> Int {
      while true {
        let before = progress.value
        let moved: Bool? = progress.wait(seconds: 0.5) { $0 > before ? true : nil }
        if moved == nil { return before }
      }
    }
  }
}
