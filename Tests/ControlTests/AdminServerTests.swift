import CLinux
import Foundation
import Testing

@testable import Control

@Suite struct `The admin server` {
  let directory: TemporaryDirectory
  let path: String

  init() throws {
    directory = try TemporaryDirectory()
    path = directory.file("admin.sock")
  }

  private func answer(_ kind: AdminRequest) -> AdminResponse {
    AdminResponse(status: .sample())
  }

  /// What the server says to one request that is there as a whole.
  private func response(to request: String) throws -> AdminResponse {
    let server = try Server(path)
    let client = try RawClient(path)
    try client.send(request)
    server.serve(now: 0, answer: answer)
    let text = try #require(try client.received())
    #expect(text.hasSuffix("\n"))
    #expect(try client.received() == nil, "one request per connection")
    #expect(!server.hasClients)
    return try JSONDecoder().decode(AdminResponse.self, from: Data(text.utf8))
  }

  @Test func `answers a request with the status`() throws {
    let response = try response(to: #"{"version":1,"request":"status"}"# + "\n")
    #expect(response.error == nil)
    #expect(response.status?.pid == 4711)
  }

  @Test(arguments: [
    ("hello\n", "one line of JSON"),
    ("\n", "one line of JSON"),
    ("{\"request\":\"status\"}\n", "one line of JSON with a version"),
    ("{\"version\":2,\"request\":\"status\"}\n", "speaks version 1"),
    ("{\"version\":1,\"request\":\"reboot\"}\n", "unknown request"),
    ("{\"version\":1}\n", "unknown request"),
    ("\u{0}\u{1}\u{2}\n", "one line of JSON"),
  ])
  func `says what is wrong with a bad request`(request: String, words: String) throws {
    let response = try response(to: request)
    #expect(response.status == nil)
    #expect(response.error?.contains(words) == true, "\(response)")
  }

  @Test func `takes a request of 4096 bytes and refuses one byte more`() throws {
    func request(_ bytes: Int) -> String {
      let core = #"{"version":1,"request":"status"}"#
      return core + String(repeating: " ", count: bytes - core.utf8.count - 1) + "\n"
    }
    #expect(try response(to: request(4096)).status != nil)
    let refused = try response(to: request(4097))
    #expect(refused.status == nil)
    #expect(refused.error == "a request has at most 4096 bytes")
  }

  @Test func `counts the bytes of a request that comes in pieces`() throws {
    let server = try Server(path)
    let client = try RawClient(path)
    try client.send(String(repeating: " ", count: 4000))
    server.serve(now: 0, answer: answer)
    #expect(try client.received() == "")
    try client.send(String(repeating: " ", count: 500) + "\n")
    server.serve(now: 1, answer: answer)
    #expect(try client.received()?.contains("at most 4096 bytes") == true)
  }

  @Test func `puts a request together that comes byte by byte`() throws {
    let server = try Server(path)
    let client = try RawClient(path)
    for byte in #"{"version":1,"request":"status"}"# {
      try client.send(String(byte))
      server.serve(now: 0, answer: answer)
      #expect(try client.received() == "")
    }
    try client.send("\n")
    server.serve(now: 0, answer: answer)
    #expect(try client.received()?.contains("4711") == true)
  }

  @Test func `closes a client that stops in the middle of a request after five seconds`() throws {
    let server = try Server(path)
    let client = try RawClient(path)
    try client.send(#"{"version":1,"#)
    server.serve(now: 1000, answer: answer)
    server.serve(now: 5999, answer: answer)
    #expect(try client.received() == "")
    #expect(server.hasClients)
    server.serve(now: 6000, answer: answer)
    #expect(try client.received() == nil)
    #expect(!server.hasClients)
  }

  @Test func `closes a client that does not take its answer`() throws {
    let server = try Server(path)
    let client = try RawClient(path)
    try client.send(#"{"version":1,"request":"status"}"# + "\n")
    let long = AdminResponse(error: String(repeating: "x", count: 8 << 20))
    server.serve(now: 0) { _ in long }
    #expect(server.hasClients)
    #expect(Int32(try #require(server.interests.last).events) == POLLOUT)
    server.serve(now: 4999) { _ in long }
    #expect(server.hasClients)
    server.serve(now: 5000) { _ in long }
    #expect(!server.hasClients)
    _ = client
  }

  @Test func `sends a long answer in as many parts as the client takes`() throws {
    let server = try Server(path)
    let client = try RawClient(path)
    try client.send(#"{"version":1,"request":"status"}"# + "\n")
    let long = AdminResponse(error: String(repeating: "x", count: 4 << 20))
    var text = ""
    var turns = 0
    repeat {
      server.serve(now: 0) { _ in long }
      turns += 1
      while let part = try client.received(), !part.isEmpty { text += part }
    } while server.hasClients && turns < 10_000
    #expect(turns > 1)
    let decoded = try JSONDecoder().decode(AdminResponse.self, from: Data(text.utf8))
    #expect(decoded.error?.count == 4 << 20)
  }

  @Test func `serves sixteen at a time and lets the next wait without spinning`() throws {
    let server = try Server(path)
    let silent = try (0..<AdminServer.maximumClients).map { _ in try RawClient(path) }
    server.serve(now: 0, answer: answer)
    let last = try RawClient(path)
    try last.send(#"{"version":1,"request":"status"}"# + "\n")
    server.serve(now: 1, answer: answer)
    #expect(try last.received() == "")
    #expect(server.interests.count == 17)
    #expect(server.interests[0].events == 0, "a waiting client would wake the loop at once")
    server.serve(now: 5000, answer: answer)
    #expect(try silent.allSatisfy { try $0.received() == nil })
    #expect(Int32(server.interests[0].events) == POLLIN)
    server.serve(now: 5001, answer: answer)
    #expect(try last.received()?.contains("4711") == true)
  }

  @Test func `forgets a client that hangs up`() throws {
    let server = try Server(path)
    do {
      let client = try RawClient(path)
      server.serve(now: 0, answer: answer)
      #expect(server.hasClients)
      _ = client
    }
    server.serve(now: 1, answer: answer)
    #expect(!server.hasClients)
  }

  @Test func `takes its socket file away when it ends, and refuses to start twice`() throws {
    do {
      let server = try Server(path)
      #expect(throws: LoadError.self) { _ = try AdminServer(path: path) }
      _ = server.hasClients
    }
    #expect(!FileManager.default.fileExists(atPath: path))
  }
}
