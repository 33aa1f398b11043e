import Net
import Testing

@Suite struct `A Workload Endpoint's address` {
  /// SPIFFE Workload Endpoint §4.
  @Test(arguments: [
    "unix:///run/spire/agent.sock", "unix:///a", "unix:////run/agent.sock",
    "tcp://127.0.0.1:8000", "tcp://[::1]:8081", "tcp://10.0.0.1:65535",
  ])
  func `25: is a unix path or an IP address with a port`(text: String) throws {
    #expect(try WorkloadEndpoint(text).description == text)
  }

  @Test func `tells what it found`() throws {
    #expect(try WorkloadEndpoint("unix:///run/a.sock").address == .unix(path: "/run/a.sock"))
    let address = SocketAddress(IPAddress(v6: 1), port: 80)
    #expect(try WorkloadEndpoint("tcp://[::1]:80").address == .tcp(address))
  }

  @Test(arguments: [
    ("", "expected unix:///PATH"), ("/run/agent.sock", "expected unix"),
    ("unix:/run/agent.sock", "expected unix"), ("UNIX:///run/agent.sock", "expected unix"),
    ("unix:run/agent.sock", "expected unix"), ("http://127.0.0.1:80", "expected unix"),
    ("unix://", "absolute path"), ("unix://run/agent.sock", "no host"),
    ("unix://localhost/run/agent.sock", "no host"), ("unix:///", "not a directory"),
    ("unix:///run/", "not a directory"), ("unix:///run/a.sock?x=1", "printable ASCII"),
    ("unix:///run/a.sock#x", "printable ASCII"), ("unix:///run/%61.sock", "printable ASCII"),
    ("unix:///run/a b", "printable ASCII"), ("unix:///run/a\u{0}b", "printable ASCII"),
    ("unix:///rün/a", "printable ASCII"), ("tcp://", "IP address"),
    ("tcp://localhost:80", "IP address"), ("tcp://127.0.0.1", "IP address"),
    ("tcp://::1:80", "IP address"), ("tcp://[127.0.0.1]:80", "IP address"),
    ("tcp://[::1]", "IP address"), ("tcp://[::1]80", "IP address"),
    ("tcp://[fe80::1%eth0]:80", "IP address"), ("tcp://u@127.0.0.1:80", "IP address"),
    ("tcp://127.0.0.1:80/", "port"), ("tcp://127.0.0.1:80/foo", "port"),
    ("tcp://127.0.0.1:80?x", "port"), ("tcp://127.0.0.1:80#x", "port"),
    ("tcp://127.0.0.1:", "port"), ("tcp://127.0.0.1:0", "port"),
    ("tcp://127.0.0.1:080", "port"), ("tcp://127.0.0.1:+80", "port"),
    ("tcp://127.0.0.1:65536", "port"), ("tcp://127.0.0.1:080000", "port"),
  ])
  func `25: is nothing else`(text: String, words: String) throws {
    let error = try #require(throws: WorkloadEndpointError.self) { try WorkloadEndpoint(text) }
    #expect(error.description.contains(words), "\(error)")
    #expect(!error.description.contains("\n"))
  }

  @Test func `has a path that fits the kernel's address`() throws {
    let path = "/" + String(repeating: "a", count: 106)
    #expect(throws: Never.self) { try WorkloadEndpoint("unix://\(path)") }
    #expect(throws: WorkloadEndpointError.self) { try WorkloadEndpoint("unix://\(path)a") }
  }
}
