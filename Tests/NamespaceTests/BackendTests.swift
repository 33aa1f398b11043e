import Foundation
import Net
import TestSupport
import Testing

extension InNamespaces {
  @Suite("Backend and status")
  struct Backend {
    @Test("io_uring carries the connections where the kernel allows it", .needsIOUring)
    func ioUring() throws {
      try Mesh.run { mesh in
        let backends = try [mesh.clientProxy, mesh.serverProxy].map { try $0?.status().backend }
        #expect(backends == ["io_uring", "io_uring"])
      }
    }

    @Test("epoll carries them where it does not, and the sysctl is named", .needsNoIOUring)
    func epoll() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        #expect(try proxy.status().backend == "epoll")
        try proxy.program.waitForError(containing: "kernel.io_uring_disabled")
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
      }
    }

    @Test("A seccomp profile that refuses io_uring is named, and epoll serves", .needsIOUring)
    func seccomp() throws {
      try Mesh.run(.standard { $0.server?.refusesIOUring = true }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        #expect(try proxy.status().backend == "epoll")
        try proxy.program.waitForError(containing: "seccomp")
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
      }
    }

    @Test("Status tells listeners, modes, identity and what is open")
    func status() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("hello"))
        let status = try proxy.status()
        #expect(status.version == 1)
        #expect(status.pid == Int(proxy.program.pid))
        #expect(status.epoch == 1)
        #expect(status.workers == 2)
        #expect(status.inbound.mode == "permissive")
        #expect(status.outbound.mode == "auto")
        #expect(status.identity.id == Identities.serverID)
        #expect(status.connections.open["mutual_tls"] == 1)
        #expect(status.connections.openCount == 1)
        #expect(!status.draining)
        let roles = Set(status.listeners.map(\.role))
        #expect(roles == ["outbound", "inbound", "mesh"])
        #expect(status.listeners.contains { $0.address == "127.0.0.1:15001" })
        #expect(status.listeners.contains { $0.address == "[::1]:15001" })
        #expect(try mesh.server.listeners().isSuperset(of: [15001, 15006, 15008]))
      }
    }

    @Test("Status without a proxy is a plain error")
    func noProxy() throws {
      let outcome = try Program.run([
        Machine.program("culvert"), "status", "--admin-socket", "/nonexistent/admin.sock",
      ])
      #expect(!outcome.succeeded)
      #expect(outcome.errors.contains("/nonexistent/admin.sock"))
    }

    @Test("The admin socket is the owner's alone")
    func adminSocketMode() throws {
      try Mesh.run { mesh in
        let path = try #require(mesh.serverProxy).adminSocket
        let attributes = try FileManager.default.attributesOfItem(atPath: path)
        #expect(attributes[.posixPermissions] as? Int == 0o600)
      }
    }

    @Test("A connection log that nobody reads stops nothing")
    func unreadLog() throws {
      let directory = try TemporaryDirectory()
      let fifo = directory.path + "/log"
      try Program.check(["mkfifo", fifo])
      // Holds the pipe open for reading, and never reads.
      let reader = try #require(FileHandle(forUpdatingAtPath: fifo))
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let first = try #require(mesh.serverProxy)
        first.program.send(signal: SIGKILL)
        _ = try first.program.wait()
        let proxy = try mesh.server.start([
          "sh", "-c", "exec \"$0\" --config \"$1\" >\"$2\"", Machine.program("culvert-proxy"),
          first.configurationPath, fifo,
        ])
        try proxy.waitForError(containing: "culvert-proxy: ready")
        let total = 2000
        for _ in 0..<total {
          #expect(
            try attempt("x", from: mesh.client, to: Family.v4.server, port: 15006) == .refused)
        }
        try eventually("a full pipe") { Self.isFull(reader) }
        #expect(try first.status().connections.refused["self_call"] == total)
        let echo = try mesh.server.echoServer()
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        proxy.send(signal: SIGTERM)
        #expect(try proxy.wait(seconds: 6).exit == .code(0))
      }
    }

    private static func isFull(_ pipe: FileHandle) -> Bool {
      var request = pollfd(fd: pipe.fileDescriptor, events: Int16(POLLOUT), revents: 0)
      return unsafe poll(&request, 1, 0) == 0
    }

    @Test("A connection's line tells both ends, who they are and how much went each way")
    func connectionLog() throws {
      try Mesh.run { mesh in
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        let port = try #require(stream.localAddress).port
        #expect(try stream.exchange("0123456789"))
        stream.finish()
        #expect(try stream.end() == .clean)
        let outbound = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
        let inbound = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        for record in [outbound, inbound] {
          #expect(record.end == "closed")
          #expect(record.security == "mutual_tls")
          #expect(record["src.identity"] == Identities.clientID)
          #expect(record["dst.identity"] == Identities.serverID)
          #expect(record["dst.addr"] == "10.90.0.2:\(echo.port)")
          #expect(record.bytesSent == 10)
          #expect(record.bytesReceived == 10)
          #expect(record["id"]?.count == 16)
          #expect(record["duration"]?.hasSuffix("ms") == true)
        }
        #expect(outbound["src.addr"] == "10.90.0.1:\(port)")
      }
    }
  }
}
