import CLinux
import Foundation
import Net
import TestSupport
import Testing

@testable import Control

@Suite struct `A unix socket` {
  let directory: TemporaryDirectory
  let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("admin.sock")
  }

  private func mode(_ path: String) throws -> Int {
    let attributes = try FileManager.default.attributesOfItem(atPath: path)
    return try #require(attributes[.posixPermissions] as? Int)
  }

  @Test func `is its owner's alone`() throws {
    let listener = try Listening(path)
    #expect(try mode(path) == 0o600)
    _ = listener
  }

  @Test func `makes its directory, for its owner alone`() throws {
    let path = directory.file("run/admin.sock")
    let listener = try Listening(path)
    #expect(try mode(directory.file("run")) == 0o700)
    _ = listener
  }

  @Test func `replaces a socket nobody answers at`() throws {
    do { _ = try Listening(path) }
    #expect(FileManager.default.fileExists(atPath: path), "the stale file")
    // A process that another test starts at this moment has the listener until it executes its
    // program.
    try eventually("nobody answers") {
      do {
        _ = try RawClient(path)
        return false
      } catch let error as Errno {
        return error == Errno(ECONNREFUSED)
      }
    }
    let listener = try Listening(path)
    _ = try RawClient(path)
    #expect(try mode(path) == 0o600)
    _ = listener
  }

  @Test func `is not taken from a program that answers there`() throws {
    let listener = try Listening(path)
    #expect(throws: Errno(EADDRINUSE)) { _ = try Listening(path) }
    _ = try RawClient(path)
    _ = listener
  }

  @Test func `is not taken from a program that is too busy to answer`() throws {
    let listener = try Listening(path)
    var waiting: [RawClient] = []
    for _ in 0..<17 { waiting.append(try RawClient(path)) }
    #expect(throws: Errno(EADDRINUSE)) { _ = try Listening(path) }
    _ = listener
  }

  @Test func `never replaces a file that is no socket`() throws {
    try Data("keep me".utf8).write(to: URL(filePath: path))
    #expect(throws: Errno(EEXIST)) { _ = try Listening(path) }
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "keep me")
    let link = directory.file("link.sock")
    try FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: path)
    #expect(throws: Errno(EEXIST)) { _ = try Listening(link) }
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "keep me")
  }

  @Test func `has a path of at most 107 bytes`() throws {
    let stem = directory.path + "/"
    let longest = stem + String(repeating: "s", count: 107 - stem.utf8.count)
    let listener = try Listening(longest)
    #expect(FileManager.default.fileExists(atPath: longest))
    #expect(throws: Errno(ENAMETOOLONG)) { _ = try Listening(longest + "s") }
    _ = listener
  }
}
