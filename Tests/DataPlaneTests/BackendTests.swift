import CLinux
import Net
import Testing

@testable import DataPlane

/// Both backends must behave alike: the state machine above them does not know which it has.
@Suite struct BackendTests {
  static let ioUring: Comment = "needs io_uring of Linux 6.1"
  static var hasIOUring: Bool { Uring.probe() == nil }

  @Test(.enabled(if: hasIOUring, ioUring))
  func ioUringKeepsTheContract() throws { try contract(Uring.self) }

  @Test func epollKeepsTheContract() throws { try contract(Epoll.self) }

  @Test(.enabled(if: hasIOUring, ioUring))
  func ioUringCancelsWhatWaits() throws { try cancellation(Uring.self) }

  @Test func epollCancelsWhatWaits() throws { try cancellation(Epoll.self) }

  @Test(.enabled(if: hasIOUring, ioUring))
  func ioUringAcceptsManyAndConnects() throws { try connecting(Uring.self) }

  @Test func epollAcceptsManyAndConnects() throws { try connecting(Epoll.self) }

  @Test(.enabled(if: hasIOUring, ioUring))
  func ioUringServesADescriptorsNumberAgain() throws { try reuse(Uring.self) }

  @Test func epollServesADescriptorsNumberAgain() throws { try reuse(Epoll.self) }

  private struct Pair: ~Copyable {
    let near: Descriptor
    let far: Descriptor
  }

  private struct NothingCame: Error {}

  private func makePair(_ flags: Int32) throws -> Pair {
    var pair: [Int32] = [-1, -1]
    let kind = Int32(SOCK_STREAM.rawValue) | flags
    try Errno.check { unsafe socketpair(AF_UNIX, kind, 0, &pair) }
    return Pair(near: Descriptor(owning: pair[0]), far: Descriptor(owning: pair[1]))
  }

  private func token(_ operation: Operation) -> Token {
    Token(operation, slot: 7, generation: 3)
  }

  /// Waits until a completion comes; gives up after ten seconds.
  private func complete<IO: Backend & ~Copyable>(_ io: inout IO) throws -> Completion {
    let start = Clock.monotonicNanoseconds()
    while Clock.monotonicNanoseconds() - start < 10_000_000_000 {
      if let completion = io.next() { return completion }
      let now = Clock.monotonicNanoseconds()
      io.wait(until: now + 1_000_000_000, now: now)
    }
    throw NothingCame()
  }

  private static func buffers(limit: Int) -> BufferPools {
    BufferPools(
      usual: BufferPool(bufferBytes: 4096, limit: limit),
      large: BufferPool(bufferBytes: 8192, limit: limit))
  }

  private func contract<IO: Backend & ~Copyable>(_ type: IO.Type) throws {
    var io = try IO(Self.buffers(limit: 64))
    let pair = try makePair(IO.socketFlags)
    let near = pair.near.number
    let far = pair.far.number
    io.receive(near, .usual, limit: 0, token(.receiveClient))
    let text = Array("a few bytes".utf8)
    try unsafe text.withUnsafeBytes { bytes in
      unsafe io.send(far, bytes, endsStream: false, token(.sendServer))
      let sent = try complete(&io)
      #expect(sent.token == token(.sendServer))
      #expect(sent.result == Int32(text.count))
    }
    let received = try complete(&io)
    #expect(received.token == token(.receiveClient))
    #expect(received.result == Int32(text.count))
    #expect(received.buffer >= 0)
    let bytes = unsafe UnsafeRawBufferPointer(
      start: io.memory(ofBuffer: received.buffer), count: text.count)
    let isSame = unsafe bytes.elementsEqual(text)
    #expect(isSame)
    io.recycle(buffer: received.buffer)

    io.poll(near, events: Int16(POLLIN), token(.pollClient))
    _ = unsafe write(far, "x", 1)
    let readable = try complete(&io)
    #expect(readable.token == token(.pollClient))
    #expect(readable.result & Int32(POLLIN) != 0)

    io.receive(near, .usual, limit: 0, token(.receiveClient))
    let last = try complete(&io)
    io.recycle(buffer: last.buffer)
    io.receive(near, .usual, limit: 0, token(.receiveClient))
    _ = shutdown(far, Int32(SHUT_WR))
    let end = try complete(&io)
    #expect(end.result == 0)
    let hasFreeBuffer = io.hasFreeBuffer(.usual)
    #expect(hasFreeBuffer)
  }

  private func cancellation<IO: Backend & ~Copyable>(_ type: IO.Type) throws {
    var io = try IO(Self.buffers(limit: 64))
    let pair = try makePair(IO.socketFlags)
    let near = pair.near.number
    io.receive(near, .usual, limit: 0, token(.receiveClient))
    io.poll(near, events: Int16(POLLIN), token(.pollClient))
    // The operations are under way before they are cancelled.
    let now = Clock.monotonicNanoseconds()
    io.wait(until: now, now: now)
    let isWaiting = io.next() == nil
    #expect(isWaiting)
    io.cancel(near, token(.receiveClient))
    io.cancel(near, token(.pollClient))
    var ended: Set<UInt64> = []
    for _ in 0..<2 {
      let completion = try complete(&io)
      #expect(completion.result == -ECANCELED)
      ended.insert(completion.token.bits)
    }
    #expect(ended == [token(.receiveClient).bits, token(.pollClient).bits])
    io.forget(near)
  }

  private func connecting<IO: Backend & ~Copyable>(_ type: IO.Type) throws {
    var io = try IO(Self.buffers(limit: 64))
    let listener = try Socket.listener(
      on: SocketAddress(.loopbackV4, port: 0), backlog: 64, flags: IO.socketFlags)
    let address = try Socket.localAddress(listener.number)
    io.accept(listener.number, token(.accept))
    var clients: [Int32] = []
    for _ in 0..<20 {
      let client = try Socket.stream(.v4, flags: IO.socketFlags).release()
      clients.append(client)
      io.connect(client, to: address, token(.connectServer))
    }
    var accepted = 0
    var connected = 0
    while accepted < clients.count || connected < clients.count {
      let completion = try complete(&io)
      if completion.token.operation == .accept {
        #expect(completion.result >= 0)
        #expect(completion.more)
        _ = close(completion.result)
        accepted += 1
      } else {
        #expect(completion.result == 0)
        connected += 1
      }
    }
    for client in clients { _ = close(client) }
    let closed = try Socket.stream(.v4, flags: IO.socketFlags)
    let nobody = try Socket.listener(on: SocketAddress(.loopbackV4, port: 0), backlog: 1)
    let refusing = try Socket.localAddress(nobody.number)
    _ = close(nobody.release())
    io.connect(closed.number, to: refusing, token(.connectServer))
    let refused = try complete(&io)
    #expect(refused.result == -ECONNREFUSED)
  }

  private func reuse<IO: Backend & ~Copyable>(_ type: IO.Type) throws {
    var io = try IO(Self.buffers(limit: 64))
    let first = try makePair(IO.socketFlags)
    let number = first.near.number
    io.receive(number, .usual, limit: 0, token(.receiveClient))
    io.cancel(number, token(.receiveClient))
    let cancelled = try complete(&io)
    #expect(cancelled.result == -ECANCELED)
    io.forget(number)
    // dup2(2) puts another socket under the same number.
    let second = try makePair(IO.socketFlags)
    try Errno.check { dup2(second.near.number, number) }
    io.receive(number, .usual, limit: 0, token(.receiveServer))
    let now = Clock.monotonicNanoseconds()
    io.wait(until: now, now: now)
    let isWaiting = io.next() == nil
    #expect(isWaiting)
    _ = unsafe write(second.far.number, "x", 1)
    let received = try complete(&io)
    #expect(received.token == token(.receiveServer))
    #expect(received.result == 1)
    io.recycle(buffer: received.buffer)
  }
}
