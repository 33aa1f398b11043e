import Foundation
import Glibc
import Testing

@testable import Control

@Suite struct `A file watch` {
  let directory: TemporaryDirectory

  init() throws { directory = try TemporaryDirectory() }

  private func write(_ text: String, to name: String) throws {
    try Data(text.utf8).write(to: URL(filePath: directory.file(name)))
  }

  private func link(_ name: String, to target: String) throws {
    try FileManager.default.createSymbolicLink(
      atPath: directory.file(name), withDestinationPath: target)
  }

  private func makeDirectory(_ name: String) throws {
    try FileManager.default.createDirectory(
      atPath: directory.file(name), withIntermediateDirectories: true)
  }

  /// Renames over what is there, in one step.
  private func replace(_ other: String, with name: String) throws {
    let status = unsafe rename(directory.file(name), directory.file(other))
    try #require(status == 0)
  }

  private func watching(_ names: String...) throws -> Watch {
    try Watch(names.map(directory.file))
  }

  @Test func `notices a file written in place`() throws {
    try write("one", to: "a.yaml")
    let watch = try watching("a.yaml")
    let file = try FileHandle(forUpdating: URL(filePath: directory.file("a.yaml")))
    try file.truncate(atOffset: 0)
    try file.write(contentsOf: Data("three".utf8))
    try file.close()
    #expect(watch.wakes())
    #expect(watch.hasChanged())
    #expect(!watch.hasChanged(), "told once")
  }

  @Test func `notices a file renamed over it, also one of the same size`() throws {
    try write("one", to: "a.yaml")
    let watch = try watching("a.yaml")
    try write("two", to: "new")
    try replace("a.yaml", with: "new")
    #expect(watch.wakes())
    #expect(watch.hasChanged())
  }

  @Test func `notices a file that comes, goes, or may be read by others`() throws {
    let watch = try watching("a.yaml")
    try write("one", to: "a.yaml")
    #expect(watch.wakes())
    #expect(watch.hasChanged())
    watch.drain()
    try FileManager.default.setAttributes(
      [.posixPermissions: 0o604], ofItemAtPath: directory.file("a.yaml"))
    #expect(watch.wakes())
    #expect(watch.hasChanged())
    watch.drain()
    try FileManager.default.removeItem(atPath: directory.file("a.yaml"))
    #expect(watch.wakes())
    #expect(watch.hasChanged())
  }

  @Test func `is not moved by another file in the directory`() throws {
    try write("one", to: "a.yaml")
    let watch = try watching("a.yaml")
    try write("something", to: "b.yaml")
    #expect(watch.wakes())
    #expect(!watch.hasChanged())
  }

  /// A Kubernetes projected volume: `svid.pem` → `..data/svid.pem`, `..data` → a directory with a
  /// time stamp; an update renames a new link over `..data`.
  @Test func `notices a projected volume that was swapped, every time`() throws {
    try makeDirectory("..v0")
    try write("version 0", to: "..v0/svid.pem")
    try link("..data", to: "..v0")
    try link("svid.pem", to: "..data/svid.pem")
    let watch = try watching("svid.pem")
    for version in 1...3 {
      try makeDirectory("..v\(version)")
      try write("version \(version)", to: "..v\(version)/svid.pem")
      try link("..new", to: "..v\(version)")
      try replace("..data", with: "..new")
      try FileManager.default.removeItem(atPath: directory.file("..v\(version - 1)"))
      #expect(watch.wakes(), "version \(version)")
      #expect(watch.hasChanged(), "version \(version)")
      watch.drain()
    }
  }

  @Test func `notices a directory link on the way that was swapped, every time`() throws {
    try makeDirectory("v0")
    try write("version 0", to: "v0/svid.pem")
    try link("current", to: "v0")
    let watch = try watching("current/svid.pem")
    for version in 1...3 {
      try makeDirectory("v\(version)")
      try write("version \(version)", to: "v\(version)/svid.pem")
      try link("new", to: directory.file("v\(version)"))
      try replace("current", with: "new")
      #expect(watch.wakes(), "version \(version)")
      #expect(watch.hasChanged(), "version \(version)")
      watch.drain()
      try write("version \(version), again", to: "current/svid.pem")
      #expect(watch.wakes(), "version \(version), in the new directory")
      #expect(watch.hasChanged(), "version \(version), in the new directory")
      watch.drain()
    }
  }

  @Test func `notices a write to the file a link leads to elsewhere`() throws {
    try makeDirectory("elsewhere")
    try write("one", to: "elsewhere/real.yaml")
    try makeDirectory("etc")
    try link("etc/a.yaml", to: "../elsewhere/real.yaml")
    let watch = try watching("etc/a.yaml")
    try write("three", to: "elsewhere/real.yaml")
    #expect(watch.wakes())
    #expect(watch.hasChanged())
  }

  @Test func `is not caught in links that go in a circle`() throws {
    try link("a.yaml", to: "b.yaml")
    try link("b.yaml", to: "a.yaml")
    let watch = try watching("a.yaml")
    #expect(!watch.hasChanged())
    try FileManager.default.removeItem(atPath: directory.file("a.yaml"))
    try write("one", to: "a.yaml")
    #expect(watch.wakes())
    #expect(watch.hasChanged())
  }

  @Test func `notices a file of a directory that comes, changes, or goes`() throws {
    try makeDirectory("bundles.d")
    try write("one", to: "bundles.d/a.example.pem")
    let path = directory.file("bundles.d")
    let watch = try Watch(BundleFiles.watchedFiles(directory: path))
    func notices(_ what: Comment) {
      #expect(watch.wakes(), what)
      #expect(watch.hasChanged(), what)
      // As a reload does.
      watch.watch(BundleFiles.watchedFiles(directory: path))
      #expect(!watch.hasChanged(), what)
    }
    try write("one", to: "bundles.d/b.example.pem")
    notices("added")
    try write("three", to: "bundles.d/b.example.pem")
    notices("written")
    try write("two", to: "new")
    try replace("bundles.d/a.example.pem", with: "new")
    notices("replaced")
    try FileManager.default.removeItem(atPath: directory.file("bundles.d/b.example.pem"))
    notices("removed")
  }

  @Test func `notices that a directory of bundles is another one`() throws {
    try makeDirectory("v0")
    try makeDirectory("v1")
    try write("one", to: "v1/a.example.pem")
    try link("bundles.d", to: "v0")
    let watch = try Watch(BundleFiles.watchedFiles(directory: directory.file("bundles.d")))
    try link("new", to: "v1")
    try replace("bundles.d", with: "new")
    #expect(watch.wakes())
    #expect(watch.hasChanged())
  }

  @Test func `notices a directory of bundles that is a projected volume`() throws {
    try makeDirectory("bundles.d/..v0")
    try write("one", to: "bundles.d/..v0/a.example.pem")
    try link("bundles.d/..data", to: "..v0")
    try link("bundles.d/a.example.pem", to: "..data/a.example.pem")
    let path = directory.file("bundles.d")
    let watch = try Watch(BundleFiles.watchedFiles(directory: path))
    try makeDirectory("bundles.d/..v1")
    try write("three", to: "bundles.d/..v1/a.example.pem")
    try link("bundles.d/..new", to: "..v1")
    try replace("bundles.d/..data", with: "bundles.d/..new")
    #expect(watch.wakes())
    #expect(watch.hasChanged())
    watch.watch(BundleFiles.watchedFiles(directory: path))
    try write("three again", to: "bundles.d/..v1/a.example.pem")
    #expect(watch.wakes(), "in the new directory")
    #expect(watch.hasChanged(), "in the new directory")
  }

  @Test func `remembers across a new list what was changed while files were read`() throws {
    try write("one", to: "a.yaml")
    try write("one", to: "b.yaml")
    let watch = try watching("a.yaml")
    try write("three", to: "a.yaml")
    watch.watch([directory.file("a.yaml"), directory.file("b.yaml")])
    #expect(watch.wakes())
    #expect(watch.hasChanged())
    try FileManager.default.removeItem(atPath: directory.file("b.yaml"))
    #expect(watch.hasChanged(), "the new list counts")
  }
}
