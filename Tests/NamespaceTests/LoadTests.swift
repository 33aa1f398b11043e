import Foundation
import Net
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Load")
  struct Load {
    @Test("2,000 connections at once, and nothing of them stays")
    func twoThousand() throws {
      try Mesh.run { mesh in
        let count = 2_000
        let (clientProxy, serverProxy) = (
          try #require(mesh.clientProxy), try #require(mesh.serverProxy)
        )
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("warm", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        try Self.waitForIdle(clientProxy, serverProxy)
        let descriptors = [clientProxy, serverProxy].map(Self.descriptorCount)

        let listener = try mesh.server.listen()
        let streams = try mesh.client.connect(count, to: Family.v4.server, port: listener.port)
        for (number, stream) in streams.enumerated() { try stream.send(Self.label(number)) }
        var seen: Set<[UInt8]> = []
        let applications = try (0..<count).map { _ in
          let application = try listener.accept()
          let label = try application.receive(exactly: 8)
          seen.insert(label)
          try application.send(label)
          return application
        }
        #expect(seen.count == count)
        for (number, stream) in streams.enumerated() {
          #expect(try stream.receive(exactly: 8) == Self.label(number))
        }
        #expect(try serverProxy.status().connections.open["mutual_tls"] == count)
        #expect(try clientProxy.status().connections.open["mutual_tls"] == count)

        for stream in streams { stream.close() }
        for application in applications {
          #expect(try application.end() == .clean)
          application.close()
        }
        try Self.waitForIdle(clientProxy, serverProxy)
        for (proxy, before) in zip([clientProxy, serverProxy], descriptors) {
          #expect(Self.descriptorCount(proxy) <= before + 4)
        }
      }
    }

    private static func label(_ number: Int) -> [UInt8] {
      Array(String(format: "%08d", number).utf8)
    }

    private static func waitForIdle(_ proxies: Proxy...) throws {
      for proxy in proxies {
        try eventually("no open connection") { try proxy.status().connections.openCount == 0 }
      }
    }

    private static func descriptorCount(_ proxy: Proxy) -> Int {
      let path = "/proc/\(proxy.program.pid)/fd"
      return (try? FileManager.default.contentsOfDirectory(atPath: path).count) ?? -1
    }

    @Test("Beyond the connection limit a connection is refused, and room is used again")
    func connectionLimit() throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.limits["maximumConnections"] = 10
        }
      ) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let held = try (0..<10).map { _ in
          let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
          #expect(try stream.exchange("held"))
          return stream
        }
        #expect(
          try attempt("one too many", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .refused)
        try proxy.waitForRefusal("connection_limit")
        #expect(try held[0].exchange("still here"))
        held[9].close()
        try eventually("room for one more") {
          try attempt("again", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered
        }
      }
    }

    @Test("Out of descriptors, the proxy waits without spinning and recovers")
    func descriptorExhaustion() throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.workers = 1
        }
      ) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let limit = Self.descriptorCount(proxy) + 40
        try Program.check([
          "prlimit", "--pid", "\(proxy.program.pid)", "--nofile=\(limit):\(limit)",
        ])
        let crowd = try mesh.client.connect(100, to: Family.v4.server, port: echo.port)
        for stream in crowd { try? stream.send("x") }
        let before = try Self.processorSeconds(proxy)
        // The time itself is the point: how much of it the proxy burns while it can do nothing.
        Thread.sleep(forTimeInterval: 1)
        #expect(try Self.processorSeconds(proxy) - before < 0.5)
        #expect(proxy.program.isRunning)
        for stream in crowd { stream.close() }
        try eventually("served again") {
          try attempt("again", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered
        }
      }
    }

    /// User and system time so far, from proc_pid_stat(5).
    private static func processorSeconds(_ proxy: Proxy) throws -> Double {
      let text = String(
        decoding: contents(ofFile: "/proc/\(proxy.program.pid)/stat"), as: UTF8.self)
      let fields = text.split(separator: ")").last?.split(separator: " ") ?? []
      guard fields.count > 12, let user = Double(fields[11]), let system = Double(fields[12])
      else { throw Trouble("no such process") }
      return (user + system) / 100
    }

    @Test(
      "Dribbled ClientHellos meet one deadline, others are served meanwhile",
      arguments: ["permissive", "strict"])
    func slowloris(mode: String) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = mode
          $0.server?.limits["handshakeTimeoutMilliseconds"] = 1_000
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let hello = ClientHello(alpn: ["culvert/1"]).records
        let dribblers = try mesh.client.connect(50, to: Family.v4.server, port: echo.port)
        let ended = Box(0)
        for stream in dribblers {
          Thread.detachNewThread {
            // A byte every 100 ms keeps any timer alive that starts anew with each read.
            for byte in hello {
              guard (try? stream.send([byte])) != nil else { break }
              usleep(100_000)
            }
            ended.update { $0 += 1 }
          }
        }
        let credential = try Identities.client.get()
        let healthy = try OpenSSL.meshClient(
          in: mesh.client, to: Family.v4.endpoint(Family.v4.server, echo.port), credential)
        #expect(healthy.exchanges("healthy"))
        let isOver: Bool? = ended.wait(seconds: 8) { $0 == 50 ? true : nil }
        #expect(isOver == true, "\(ended.value) of 50 were ended")
        try #require(mesh.serverProxy).waitForRecord {
          $0.end == "refused" && ["sniff_timeout", "handshake_timeout"].contains($0.reason ?? "")
        }
        #expect(healthy.exchanges("still healthy"))
      }
    }

    @Test("A client that stays silent in the handshake meets the deadline under strict")
    func silenceUnderStrict() throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
          $0.server?.limits["handshakeTimeoutMilliseconds"] = 500
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.end() == .reset)
        #expect(echo.accepted == 0)
      }
    }
  }
}
