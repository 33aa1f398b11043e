import Foundation
import Testing

@testable import Control

@Suite struct `The admin client` {
  private func failure(
    _ behaviour: FakeProxy.Behaviour, timeoutMilliseconds: Int = 5000
  ) throws -> String {
    let proxy = try FakeProxy(behaviour)
    let error = #expect(throws: LoadError.self) {
      try AdminClient.status(at: proxy.path, timeoutMilliseconds: timeoutMilliseconds)
    }
    _ = proxy.finish()
    return try #require(error).description
  }

  @Test func `reads the status the server writes`() throws {
    let proxy = try FakeProxy(.answers(try encoded(AdminResponse(status: .sample()))))
    let report = try AdminClient.status(at: proxy.path)
    #expect(report.identity.id == "spiffe://demo.mesh/ns/shop/sa/web")
    #expect(report.connections.refused == ["self_call": 3, "not_local": 1])
    let request = proxy.finish()
    #expect(try JSONDecoder().decode(AdminRequest.self, from: Data(request.utf8)).version == 1)
  }

  @Test func `takes an answer without an end of line, and fields it does not know`() throws {
    var text = try encoded(AdminResponse(status: .sample()))
    text.insert(contentsOf: #""later":[1,2],"#, at: text.index(after: text.startIndex))
    let proxy = try FakeProxy(.answersAndCloses(text))
    #expect(try AdminClient.status(at: proxy.path).pid == 4711)
  }

  @Test func `refuses what is no answer`() throws {
    #expect(try failure(.answers("220 smtp.example ESMTP")).contains("not one of a culvert-proxy"))
    #expect(try failure(.answersAndCloses("")).contains("not one of a culvert-proxy"))
    let whole = try encoded(AdminResponse(status: .sample()))
    let half = String(whole.prefix(whole.count / 2))
    #expect(try failure(.answersAndCloses(half)).contains("not one of a culvert-proxy"))
    #expect(
      try failure(.answers(#"{"version":1,"status":7}"#)).contains("this culvert understands"))
    #expect(try failure(.answers(#"{"version":1}"#)).contains("holds no status"))
  }

  @Test func `refuses another version of the protocol and names both`() throws {
    let text = try failure(.answers(#"{"version":2,"status":{"shape":"new"}}"#))
    #expect(text.contains("version 2"))
    #expect(text.contains("version 1"))
  }

  @Test func `hands on what the server found wrong`() throws {
    #expect(
      try failure(.answers(try encoded(AdminResponse(error: "unknown request"))))
        .hasSuffix(": unknown request"))
  }

  @Test func `gives up on a server that stays silent`() throws {
    #expect(try failure(.staysSilent, timeoutMilliseconds: 100).contains("within 100 ms"))
  }

  @Test func `gives up on a server that drips, since the time is for the whole answer`() throws {
    #expect(try failure(.drips, timeoutMilliseconds: 200).contains("within 200 ms"))
  }

  @Test func `gives up on a server that accepts nobody`() throws {
    let directory = try TemporaryDirectory()
    let path = directory.file("admin.sock")
    let listener = try Listening(path)
    var waiting: [RawClient] = []
    // The backlog is 16; the kernel lets one more in.
    for _ in 0..<17 { waiting.append(try RawClient(path)) }
    let error = #expect(throws: LoadError.self) {
      try AdminClient.status(at: path, timeoutMilliseconds: 100)
    }
    #expect(error?.description.contains("within 100 ms") == true)
    _ = listener
  }
}
