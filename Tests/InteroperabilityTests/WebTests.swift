import TestSupport
import Testing

extension RealPrograms {
  @Suite("The web")
  struct Web {
    @Test(
      "nginx answers curl over HTTP/1.1", .needs(program: "nginx"), .needs(program: "curl"),
      arguments: Wire.allCases, Family.allCases)
    func http1(wire: Wire, family: Family) throws {
      try wire.run("canary-of-http1") { mesh in
        try RealServer.nginx(in: mesh.server)
        let base = "http://\(family.endpoint(family.server, 8081))"
        // Two requests over one connection.
        let answer = try mesh.client.check(
          Self.curl + ["--http1.1", "\(base)/canary-of-http1", "\(base)/again"])
        #expect(answer == "/canary-of-http1 HTTP/1.1\n/again HTTP/1.1\n")
        let size = try mesh.client.check(
          Self.curl + ["--output", "/dev/null", "--write-out", "%{size_download}", "\(base)/large"])
        #expect(size == "10000000")
      }
    }

    @Test(
      "nginx answers curl over cleartext HTTP/2", .needs(program: "nginx"), .needs(program: "curl"),
      arguments: Wire.allCases, Family.allCases)
    func http2(wire: Wire, family: Family) throws {
      // The connection preface of RFC 9113 §3.4; header fields are compressed.
      try wire.run("PRI * HTTP/2.0") { mesh in
        try RealServer.nginx(in: mesh.server)
        let base = "http://\(family.endpoint(family.server, 8082))"
        let answer = try mesh.client.check(
          Self.curl + ["--http2-prior-knowledge", "\(base)/one"])
        #expect(answer == "/one HTTP/2.0\n")
      }
    }

    @Test(
      "nginx's own TLS reaches curl untouched", .needs(program: "nginx"), .needs(program: "curl"),
      arguments: Wire.allCases, Family.allCases)
    func applicationTLS(wire: Wire, family: Family) throws {
      // The server name stands in the application's ClientHello.
      try wire.run("app.example") { mesh in
        try RealServer.nginx(in: mesh.server)
        for (option, version) in [("--http1.1", "HTTP/1.1"), ("--http2", "HTTP/2.0")] {
          let answer = try mesh.client.check(
            Self.curl + [
              option, "--cacert", try Identities.authority.get().bundle, "--connect-to",
              "app.example:443:\(family.endpoint(family.server, 8443))",
              "https://app.example/secret",
            ])
          #expect(answer == "/secret \(version)\n")
        }
        if wire == .permissive {
          let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
          #expect(record.security == "application_tls")
          #expect(record["sni"] == "app.example")
        }
      }
    }

    @Test(
      "Hundreds of HTTP/2 streams over a few connections", .needs(program: "nginx"),
      .needs(program: "h2load"), arguments: Wire.allCases)
    func manyStreams(wire: Wire) throws {
      try wire.run("PRI * HTTP/2.0") { mesh in
        try RealServer.nginx(in: mesh.server)
        let report = try mesh.client.check([
          "h2load", "--requests=1000", "--clients=5", "--max-concurrent-streams=20",
          "http://\(Family.v4.endpoint(Family.v4.server, 8082))/stream",
        ])
        #expect(report.contains("1000 succeeded, 0 failed, 0 errored, 0 timeout"))
      }
    }

    private static let curl = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20"]
  }
}
