import CLinux
import Foundation
import TestSupport
import Testing

@testable import WorkloadAPI

/// A private key is nowhere in this process but where it is held.
@Suite(.serialized) struct `A private key` {
  /// A key that is never in memory as a whole: byte `n` of it is made when it is needed.
  private struct Key {
    let seed = UInt64.random(in: 1 ... .max)

    subscript(index: Int) -> UInt8 {
      let mixed = (seed ^ UInt64(index)) &* 0x9e37_79b9_7f4a_7c15
      return UInt8(truncatingIfNeeded: (mixed ^ mixed >> 29) &* 0xbf58_476d_1ce4_e5b9 >> 56)
    }
  }

  private static let keyBytes = 96

  /// Where the key is in memory that may be written to. Only its first half is looked for.
  private func places(of key: Key) throws -> Int {
    let maps = String(decoding: contents(ofFile: "/proc/self/maps"), as: UTF8.self)
    let memory = unsafe open("/proc/self/mem", O_RDONLY | O_CLOEXEC)
    try #require(memory >= 0)
    defer { _ = close(memory) }
    // What has been read must not be found again.
    let window = MemoryWindow()
    var found = 0
    for line in maps.split(separator: "\n") {
      let fields = line.split(separator: " ", omittingEmptySubsequences: true)
      let bounds = fields[0].split(separator: "-").compactMap { Int($0, radix: 16) }
      guard fields[1].hasPrefix("rw"), bounds.count == 2 else { continue }
      for start in stride(from: bounds[0], to: bounds[1], by: MemoryWindow.bytes / 2) {
        found += unsafe window.count(
          in: memory, start..<bounds[1], length: Self.keyBytes / 2, first: key[0]
        ) {
          place in
          (0..<Self.keyBytes / 2).allSatisfy { unsafe place[$0] == key[$0] }
        }
      }
    }
    return found
  }

  /// The frames of an answer that holds the key, in memory that is cleansed.
  private func answer(_ key: Key) -> CleansedBuffer {
    var svid = CleansedBuffer(capacity: 4096)
    svid.append(Wire.svid(key: nil))
    svid.append([0x1a, UInt8(Self.keyBytes)])
    for index in 0..<Self.keyBytes { svid.append([key[index]]) }
    var frames = CleansedBuffer(capacity: 4096)
    frames.append(Frame.settings + Frame.response)
    let message = [0x0a] + Wire.varint(svid.count)
    let length = UInt32(message.count + svid.count)
    frames.append(
      [16, 8, 0].map { UInt8(truncatingIfNeeded: (length + 5) >> $0) } + [0, 0] + Frame.number(1))
    frames.append([0] + Frame.number(length) + message)
    unsafe svid.withBytes { unsafe frames.append($0) }
    return frames
  }

  @Test func `is found while it is held, and not once it is let go`() throws {
    let key = Key()
    let agent = try RawAgent()
    let client = try Client(agent.endpoint)
    try agent.awaitRequest(of: client)
    do {
      let frames = answer(key)
      let sent = unsafe frames.withBytes { bytes in
        unsafe send(agent.connection, bytes.baseAddress, bytes.count, 0)
      }
      #expect(sent == frames.count)
    }
    _ = try client.nextSVIDs(while: agent.serve)
    #expect(try places(of: key) == 1, "in the entry, and nowhere else")
    client.forget()
    #expect(try places(of: key) == 0)
  }

  /// The twin: what is not cleansed is found.
  @Test func `is found where it has been copied to`() throws {
    let key = Key()
    let copy = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 1)
    for index in 0..<Self.keyBytes {
      unsafe copy.storeBytes(of: key[index], toByteOffset: 2000 + index, as: UInt8.self)
    }
    #expect(try places(of: key) == 1)
    unsafe explicit_bzero(copy, 4096)
    #expect(try places(of: key) == 0)
    unsafe copy.deallocate()
  }

  @Test func `goes with a message that is discarded, and with one that never ends`() throws {
    let key = Key()
    for isWhole in [true, false] {
      let call = Call(.x509Bundles)
      do {
        let frames = answer(key)
        unsafe frames.withBytes { bytes in
          unsafe call.receive(pointer: isWhole ? bytes : .init(rebasing: bytes.dropLast(10)))
        }
        #expect(try places(of: key) >= 1)
      }
      #expect(try places(of: key) == (isWhole ? 0 : 1))
      call.forget()
      #expect(try places(of: key) == 0)
    }
  }
}

/// Looks at parts of this process's memory, through a part that is left out.
@safe private final class MemoryWindow {
  static let bytes = 1 << 20
  private let base: UnsafeMutableRawPointer

  init() {
    unsafe base = unsafe mmap(
      nil, Self.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)!
  }

  deinit { unsafe munmap(base, Self.bytes) }

  /// Matches that begin in `range`, in the first half of what is read: each is counted once.
  func count(
    in memory: Int32, _ range: Range<Int>, length: Int, first: UInt8,
    _ matches: (UnsafePointer<UInt8>) -> Bool
  ) -> Int {
    let own = unsafe Int(bitPattern: base)
    let start = range.lowerBound
    guard start + Self.bytes / 2 <= own || start >= own + Self.bytes else { return 0 }
    let count = unsafe pread(memory, base, Self.bytes / 2 + Self.marginBytes, off_t(start))
    guard count >= length else { return 0 }
    var found = 0
    var place = unsafe UnsafeRawPointer(base)
    let end = unsafe place + min(Self.bytes / 2, range.count, count - length + 1)
    while unsafe place < end,
      let next = unsafe memchr(place, Int32(first), end - place)
    {
      if unsafe matches(next.assumingMemoryBound(to: UInt8.self)) { found += 1 }
      unsafe place = unsafe UnsafeRawPointer(next) + 1
    }
    return found
  }

  /// At least as much as is looked for.
  private static let marginBytes = 256
}
