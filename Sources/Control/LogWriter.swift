internal import CLinux
internal import Net

/// The connection log's way to standard output: bounded, and never waiting for a reader.
///
/// Standard output may be a pipe that nobody reads. What it takes without blocking is written; the
/// rest waits here, and beyond `maximumBytes` lines are refused.
struct LogWriter {
  static let maximumBytes = 1024 * 1024
  /// What a pipe takes whole and at once when poll(2) says it is writable (PIPE_BUF, pipe(7)).
  static let pieceBytes = 4096

  private let descriptor: Int32
  private var pending: [UInt8] = []
  private var start = 0

  init(descriptor: Int32 = STDOUT_FILENO) { self.descriptor = descriptor }

  var isEmpty: Bool { start == pending.count }

  /// Takes a line, or returns false if too much waits already.
  mutating func append(_ line: String) -> Bool {
    guard pending.count - start + line.utf8.count < Self.maximumBytes else { return false }
    pending += line.utf8
    pending.append(UInt8(ascii: "\n"))
    return true
  }

  mutating func writeWhatFits() {
    while !isEmpty, isWritable(waitMilliseconds: 0) {
      guard writePiece() else { break }
    }
    if isEmpty {
      pending.removeAll(keepingCapacity: pending.capacity <= 65_536)
      start = 0
    } else if start > Self.maximumBytes / 2 {
      pending.removeFirst(start)
      start = 0
    }
  }

  /// Writes what is left, for at most so long.
  mutating func flush(milliseconds: Int64) {
    let end = Clock.milliseconds() + milliseconds
    while !isEmpty, isWritable(waitMilliseconds: Int32(max(0, end - Clock.milliseconds()))) {
      guard writePiece() else { return }
    }
  }

  private func isWritable(waitMilliseconds: Int32) -> Bool {
    var request = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
    return unsafe poll(&request, 1, waitMilliseconds) == 1
  }

  /// False if nothing could be written.
  private mutating func writePiece() -> Bool {
    let count = min(Self.pieceBytes, pending.count - start)
    let written = unsafe pending.withUnsafeBufferPointer {
      unsafe write(descriptor, $0.baseAddress.map { unsafe $0 + start }, count)
    }
    if written > 0 { start += written }
    if written < 0, Errno.current != .tryAgain, Errno.current != .interrupted {
      // Nobody will ever read it: a closed pipe, a full disk.
      pending.removeAll()
      start = 0
    }
    return written > 0
  }
}
