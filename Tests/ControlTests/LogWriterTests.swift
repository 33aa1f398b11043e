import Foundation
import TestSupport
import Testing

@testable import Control

@Suite("The connection log's way to standard output")
struct LogWriterTests {
  /// What a pipe holds unless told otherwise (pipe(7)).
  private static let pipeBytes = 65_536
  private static let line = String(repeating: "x", count: 99)

  /// Appends lines until one is refused; returns how many bytes were taken.
  private static func fill(_ log: inout LogWriter) -> Int {
    var taken = 0
    while log.append(line) { taken += line.utf8.count + 1 }
    return taken
  }

  @Test("What nobody reads is bounded")
  func bounded() {
    let pipe = Pipe()
    var log = LogWriter(descriptor: pipe.fileHandleForWriting.fileDescriptor)
    let first = Self.fill(&log)
    #expect(first <= LogWriter.maximumBytes)
    #expect(first > LogWriter.maximumBytes - 200)
    // The pipe takes its share, and only that much room is there again.
    log.writeWhatFits()
    let second = Self.fill(&log)
    #expect(second <= Self.pipeBytes + 100)
    #expect(second > Self.pipeBytes - 200)
    log.writeWhatFits()
    #expect(Self.fill(&log) == 0)
    #expect(!log.isEmpty)
  }

  @Test("A slow reader gets every byte in order")
  func slowReader() throws {
    let pipe = Pipe()
    var log = LogWriter(descriptor: pipe.fileHandleForWriting.fileDescriptor)
    var expected = Data()
    var received = Data()
    // More than is kept, so that what was written makes room several times.
    for number in 0..<40_000 {
      let line = "line \(number) \(Self.line)"
      while !log.append(line) {
        log.writeWhatFits()
        received += try #require(try pipe.fileHandleForReading.read(upToCount: 5000))
      }
      expected += Data((line + "\n").utf8)
    }
    while !log.isEmpty {
      log.writeWhatFits()
      received += try #require(try pipe.fileHandleForReading.read(upToCount: 1))
    }
    try pipe.fileHandleForWriting.close()
    received += try pipe.fileHandleForReading.readToEnd() ?? Data()
    #expect(expected.count > 3 * LogWriter.maximumBytes)
    #expect(received == expected)
  }

  @Test("What is for a reader who has gone is let go")
  func closedReader() throws {
    // As the proxy does before anything else.
    signal(SIGPIPE, SIG_IGN)
    let pipe = Pipe()
    var log = LogWriter(descriptor: pipe.fileHandleForWriting.fileDescriptor)
    _ = Self.fill(&log)
    try pipe.fileHandleForReading.close()
    // A process that another test starts at this moment has it until it executes its program.
    var writer = pollfd(fd: pipe.fileHandleForWriting.fileDescriptor, events: 0, revents: 0)
    try eventually("nobody reads") { unsafe poll(&writer, 1, 0) == 1 }
    let taken = ContinuousClock().measure {
      log.writeWhatFits()
      // Empty: the control thread then does not poll the descriptor, which would be ready for ever.
      #expect(log.isEmpty)
      for _ in 0..<1000 {
        let isTaken = log.append(Self.line)
        #expect(isTaken)
        log.writeWhatFits()
        #expect(log.isEmpty)
      }
      _ = Self.fill(&log)
      log.flush(milliseconds: 60_000)
      #expect(log.isEmpty)
    }
    #expect(taken < .seconds(10))
  }

  @Test("The last lines are waited for no longer than agreed")
  func flushIsBounded() {
    let pipe = Pipe()
    var log = LogWriter(descriptor: pipe.fileHandleForWriting.fileDescriptor)
    _ = Self.fill(&log)
    let taken = ContinuousClock().measure { log.flush(milliseconds: 200) }
    #expect(taken >= .milliseconds(190))
    #expect(taken < .seconds(5))
    #expect(!log.isEmpty)
  }

  @Test("The last lines all arrive if somebody reads them")
  func flushIsComplete() throws {
    let pipe = Pipe()
    var log = LogWriter(descriptor: pipe.fileHandleForWriting.fileDescriptor)
    let taken = Self.fill(&log)
    let reader = pipe.fileHandleForReading
    let done = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      _ = try? reader.read(upToCount: taken)
      done.signal()
    }
    log.flush(milliseconds: 20_000)
    #expect(log.isEmpty)
    #expect(done.wait(timeout: .now() + 20) == .success)
  }
}
