import CLinux
import Federation
import Foundation
import Identity
import Net
import TestSupport
import Testing

@Suite(.timeLimit(.minutes(2))) struct PollerTests {
  private static let server = Result {
    try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
  }

  /// Waits for results until there are so many.
  private func results(_ count: Int, of poller: BundlePoller) throws -> [BundlePoller.Fetched] {
    var results: [BundlePoller.Fetched] = []
    while results.count < count {
      var request = pollfd(fd: poller.readable.number, events: Int16(POLLIN), revents: 0)
      guard unsafe poll(&request, 1, 30_000) > 0 else {
        throw Trouble("\(results.count) of \(count) results")
      }
      results += poller.take()
    }
    #expect(!Socket.isReadable(poller.readable.number))
    return results
  }

  @Test func everyResultComesWithItsTag() throws {
    let poller = try BundlePoller()
    let server = try Self.server.get()
    poller.start(.web(try server.url("/bundle")), tag: 7)
    poller.start(.web(try server.url("/status?code=404")), tag: 8)
    let results = try results(2, of: poller)
    let byTag = Dictionary(uniqueKeysWithValues: results.map { ($0.tag, $0.result) })
    #expect(try byTag[7]?.get() == partnerBundle())
    #expect(throws: BundleFetchError.self) { try byTag[8]?.get() }
  }

  @Test func fetchesBeyondTheBoundWaitTheirTurn() throws {
    let poller = try BundlePoller()
    let server = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
    let bound = BundlePoller.maximumConcurrentFetches
    for tag in 0..<bound {
      let silent = BundleRequest.web(try server.url("/silent"), timeoutMilliseconds: 1500)
      poller.start(silent, tag: tag)
    }
    for tag in bound..<3 * bound { poller.start(.web(try server.url("/bundle")), tag: tag) }
    let results = try results(3 * bound, of: poller)
    #expect(Set(results.map(\.tag)) == Set(0..<3 * bound))
    // None of those that had to wait was served before a place was free.
    guard case .failure(let first) = results[0].result else {
      Issue.record("\(results[0])")
      return
    }
    #expect(first.reason == .timedOut)
    #expect(results.count { (try? $0.result.get()) != nil } == 2 * bound)
  }

  @Test func aPollerMayBeLetGoOfWhileItFetches() throws {
    let server = try Endpoint(LeafRequest(dnsName: "localhost"), from: Identities.webPKI)
    do {
      let poller = try BundlePoller()
      poller.start(.web(try server.url("/bundle")), tag: 1)
    }
    try server.program.waitForOutput(containing: "request /bundle")
  }
}
