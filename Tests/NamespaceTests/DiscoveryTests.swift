import TestSupport
import Testing

extension InNamespaces {
  /// Where no rule and no peer entry says what the other end is.
  @Suite("Discovery")
  struct Discovery {
    @Test("Two proxies that were told nothing of each other", arguments: Family.allCases)
    func announced(family: Family) throws {
      try Mesh.run(.strangers()) { mesh in
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          for _ in 1...2 {
            let outcome = try attempt(
              "canary-of-announced", from: mesh.client, to: family.server, port: echo.port)
            #expect(outcome == .answered)
          }
        }
        #expect(recording.count(of: "canary-of-announced") == 0)
        for record in try #require(mesh.clientProxy).waitForRecords(2, "outbound") {
          #expect(record.security == "mutual_tls")
          #expect(record["discovery"] == "announced")
          #expect(record["dst.identity"] == Identities.serverID)
        }
        #expect(recording.opened(to: meshPort).isEmpty)
        let openings = recording.opened(to: echo.port)
        #expect(openings.count == 2)
        for opening in openings {
          let segments = recording.segments(of: opening)
          // SYN, SYN-ACK, ACK, and then the ClientHello.
          #expect(segments.prefix(3).map(\.isSYN) == [true, true, false])
          #expect(segments.prefix(3).allSatisfy { $0.payloadByteCount == 0 })
          let hello = try #require(segments.dropFirst(3).first)
          #expect(hello.sourcePort == opening.sourcePort)
          #expect(hello.payloadByteCount > 0)
        }
      }
    }

    @Test("A server without a proxy is asked, and then spoken to in plaintext")
    func unmeshed() throws {
      try Mesh.run(.strangers { $0.server = nil }) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        for family in Family.allCases {
          let recording = try mesh.captured {
            for _ in 1...2 {
              let outcome = try attempt(
                "canary-of-unmeshed", from: mesh.client, to: family.server, port: echo.port)
              #expect(outcome == .answered)
            }
          }
          #expect(recording.count(of: "canary-of-unmeshed") == 4)
          #expect(recording.opened(to: echo.port).count == 2)
          // The first answer is kept for the second connection.
          #expect(recording.opened(to: meshPort).count == 1)
          #expect(recording.announcements.count == 2)
        }
        try proxy.reconfigure { $0.discovery["probe"] = "off" }
        let silent = try mesh.captured {
          for family in Family.allCases {
            let outcome = try attempt(
              "canary-of-unmeshed", from: mesh.client, to: family.server, port: echo.port)
            #expect(outcome == .answered)
          }
        }
        #expect(silent.opened(to: meshPort).isEmpty)
        let records = try proxy.waitForRecords(6, "outbound")
        let reasons = ["no_mesh_port", "no_mesh_port", "no_mesh_port", "no_mesh_port"]
        #expect(records.map(\.reason) == reasons + ["not_announced", "not_announced"])
        #expect(records.allSatisfy { $0.security == "plaintext" && $0["discovery"] == nil })
        #expect(try proxy.status().discovery.probes == ["mesh": 0, "no_mesh_port": 2])
      }
    }

    @Test("Without announcing, the mesh port is asked once for many connections")
    func probed() throws {
      let plan = try Mesh.Plan.strangers { plan in
        plan.client?.discovery["announce"] = "off"
        plan.server?.discovery["announce"] = "off"
        // Each worker may ask by itself while there is no answer yet.
        plan.client?.workers = 1
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          for family in Family.allCases {
            let streams = try mesh.client.connect(10, to: family.server, port: echo.port)
            for stream in streams { #expect(try stream.exchange("canary-of-probed")) }
          }
        }
        #expect(recording.count(of: "canary-of-probed") == 0)
        #expect(recording.announcements.isEmpty)
        #expect(recording.opened(to: meshPort).count == 2)
        #expect(recording.opened(to: echo.port).count == 20)
        let status = try proxy.status().discovery
        #expect(status.announce == "off")
        #expect(status.probes == ["mesh": 2, "no_mesh_port": 0])
        for record in try proxy.waitForRecords(20, "outbound") {
          #expect(record.security == "mutual_tls")
          #expect(record["discovery"] == "mesh_port")
        }
      }
    }

    @Test("Nobody outside the mesh ranges is asked in any way", arguments: Family.allCases)
    func outsideTheRanges(family: Family) throws {
      let plan = try Mesh.Plan.strangers {
        $0.client?.discovery["meshRanges"] = "[192.0.2.0/24, \"2001:db8::/32\"]"
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer()
        let unasked = try mesh.captured {
          let outcome = try attempt(
            "canary-of-ranges", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == .answered)
        }
        #expect(unasked.count(of: "canary-of-ranges") == 2)
        #expect(unasked.announcements.isEmpty)
        #expect(unasked.opened(to: meshPort).isEmpty)
        try proxy.waitForRecord { $0.reason == "not_known_as_mesh" }

        let range = family.range(family.server)
        try proxy.reconfigure { $0.discovery["meshRanges"] = "[\"\(range)\"]" }
        let asked = try mesh.captured {
          let outcome = try attempt(
            "canary-of-ranges", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == .answered)
        }
        #expect(asked.count(of: "canary-of-ranges") == 0)
        // SYN and SYN-ACK.
        #expect(asked.announcements.count == 2)
      }
    }

    @Test("Behind a plaintext rule a server that speaks first is heard, and nothing is announced")
    func plaintextRule() throws {
      let rule = "{ to: [0.0.0.0/0, \"::/0\"], action: plaintext }"
      try Mesh.run(.strangers { $0.client?.outboundRules = [rule] }) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let server = try mesh.server.greetingServer("220 canary\n")
        func greeted() throws -> Recording {
          try mesh.captured {
            for family in Family.allCases {
              let stream = try mesh.client.connect(to: family.server, port: server.port)
              #expect(try stream.receiveText(exactly: 11) == "220 canary\n")
              #expect(try stream.exchange("HELO\n"))
            }
          }
        }
        let plain = try greeted()
        #expect(plain.announcements.isEmpty)
        #expect(plain.count(of: "220 canary") == 2)
        for record in try proxy.waitForRecords(2, "outbound") {
          #expect(record.reason == "rule_plaintext")
        }
        for record in try #require(mesh.serverProxy).waitForRecords(2, "inbound") {
          #expect(record.reason == "server_first")
        }
        try proxy.reconfigure { $0.outboundRules = [] }
        let protected = try greeted()
        #expect(protected.announcements.count == 4)
        #expect(protected.count(of: "220 canary") == 0)
      }
    }

    @Test("A server that answers by SYN cookies is found by its mesh port", arguments: [2, 0])
    func cookies(setting: Int) throws {
      try Mesh.run(.strangers()) { mesh in
        try mesh.server.check(["sysctl", "-w", "net.ipv4.tcp_syncookies=\(setting)"])
        let echo = try mesh.server.echoServer()
        for family in Family.allCases {
          let outcome = try attempt(
            "by cookie", from: mesh.client, to: family.server, port: echo.port)
          #expect(outcome == .answered)
        }
        for record in try #require(mesh.clientProxy).waitForRecords(2, "outbound") {
          #expect(record.security == "mutual_tls")
          #expect(record["discovery"] == (setting == 2 ? "mesh_port" : "announced"))
        }
      }
    }

    @Test(
      "Where announcing is not allowed, status says why and the mesh port is asked",
      .needs(program: "setpriv"))
    func notAllowed() throws {
      let plan = try Mesh.Plan.strangers {
        $0.client?.launcher = ["setpriv", "--bounding-set=-sys_admin,-bpf"]
      }
      try Mesh.run(plan) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let status = try proxy.status().discovery
        #expect(status.announce == "failed")
        let reason = try #require(status.announceReason)
        try proxy.program.waitForError(
          containing: "mesh is not announced in the TCP handshake: \(reason)")
        let other = try #require(mesh.serverProxy).status().discovery
        #expect(other.announce == "works")
        #expect(other.announceReason == nil)

        let echo = try mesh.server.echoServer()
        let recording = try mesh.captured {
          let outcome = try attempt(
            "canary-of-caps", from: mesh.client, to: Family.v4.server, port: echo.port)
          #expect(outcome == .answered)
        }
        #expect(recording.count(of: "canary-of-caps") == 0)
        #expect(recording.announcements.isEmpty)
        let record = try proxy.waitForRecord { $0.direction == "outbound" }
        #expect(record["discovery"] == "mesh_port")
      }
    }
  }
}
