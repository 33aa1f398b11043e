import Foundation
import TestSupport
import Testing

/// A configuration that must not be taken.
enum BadConfiguration: String, CaseIterable, Sendable {
  case empty, truncated, nonsense
  case unknownKey = "an unknown key"
  case unknownMode = "an unknown mode"
  case missingCertificate = "a missing certificate"
  case brokenCertificate = "a broken certificate"
  case foreignKey = "a key of another certificate"
  case brokenBundle = "a broken bundle"

  func text(from good: String, in directory: TemporaryDirectory) throws -> String {
    let client = try Identities.client.get()
    let server = try Identities.server.get()
    let bundle = try Identities.authority.get().bundle
    let broken = try directory.write(
      "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", to: "broken.pem")
    return switch self {
    case .empty: ""
    // In the middle of the mapping that names the certificate.
    case .truncated: String(good.prefix(upTo: good.range(of: "privateKey")!.lowerBound))
    case .nonsense: "\u{1}\u{2}}{][: & * !\n\t%@`"
    case .unknownKey: good + "telepathy: true\n"
    case .unknownMode: good.replacingOccurrences(of: "mode: permissive", with: "mode: permisive")
    case .missingCertificate:
      good.replacingOccurrences(of: server.certificate, with: server.certificate + ".gone")
    case .brokenCertificate: good.replacingOccurrences(of: server.certificate, with: broken)
    case .foreignKey:
      good.replacingOccurrences(of: server.privateKey, with: client.privateKey)
    case .brokenBundle: good.replacingOccurrences(of: bundle, with: broken)
    }
  }
}

extension InNamespaces {
  @Suite("Reload")
  struct Reload {
    @Test(
      "What is wrong is not taken, and the last good one stays",
      arguments: BadConfiguration.allCases)
    func bad(_ bad: BadConfiguration) throws {
      let directory = try TemporaryDirectory()
      try Mesh.run(.standard { $0.server?.inboundMode = "permissive" }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let good = proxy.configurationText
        let epoch = try proxy.status().epoch
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))

        try proxy.rewriteConfiguration(bad.text(from: good, in: directory))
        let line = try proxy.program.waitForError(containing: "configuration not loaded")
        #expect(line.contains("epoch \(epoch) stays"))
        #expect(try proxy.status().epoch == epoch)
        #expect(try stream.exchange("old connections go on"))
        #expect(
          try attempt("new ones come", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)

        try proxy.reconfigure { $0.inboundMode = "strict" }
        #expect(try proxy.status().epoch > epoch)
        #expect(try proxy.status().inbound.mode == "strict")
        #expect(try stream.exchange("after"))
      }
    }

    @Test("With no good configuration there is no start", arguments: BadConfiguration.allCases)
    func noStart(_ bad: BadConfiguration) throws {
      let directory = try TemporaryDirectory()
      let good = ProxyConfiguration(
        try Identities.server.get(), trusting: try Identities.authority.get())
      let text = try bad.text(
        from: good.yaml(adminSocket: directory.path + "/admin.sock"), in: directory)
      let path = try directory.write(text, to: "culvert.yaml")
      let namespace = try Namespace("alone")
      defer { namespace.close() }
      for option in [[], ["--check"]] {
        let outcome = try namespace.run(
          [Machine.program("culvert-proxy"), "--config", path] + option, seconds: 10)
        #expect(!outcome.succeeded)
        #expect(outcome.errors.contains(directory.path) || outcome.errors.contains(".pem"))
        #expect(try namespace.listeners().isEmpty)
      }
    }

    @Test("An error names its line")
    func errorNamesLine() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        let lines = proxy.configurationText.split(separator: "\n")
        let number = try #require(lines.firstIndex { $0.contains("mode: permissive") }) + 1
        try proxy.rewriteConfiguration(
          proxy.configurationText.replacingOccurrences(of: "permissive", with: "permisive"))
        let line = try proxy.program.waitForError(containing: "configuration not loaded")
        #expect(line.contains("\(proxy.configurationPath):\(number):"))
      }
    }

    @Test("SIGHUP reads the file again")
    func hangup() throws {
      try Mesh.run { mesh in
        let proxy = try #require(mesh.serverProxy)
        let epoch = try proxy.status().epoch
        proxy.program.send(signal: SIGHUP)
        try proxy.program.waitForError(containing: "configuration loaded, epoch \(epoch + 1)")
      }
    }

    @Test("A new certificate is used without a restart")
    func newCertificate() throws {
      let renewed = try Identities.authority.get().issue(
        LeafRequest("spiffe://demo.mesh/ns/shop/sa/renewed"))
      try Mesh.run(
        .standard { plan in
          plan.client?.peers = []
          plan.client?.outboundMode = "strict"
        }
      ) { mesh in
        let (clientProxy, serverProxy) = (
          try #require(mesh.clientProxy), try #require(mesh.serverProxy)
        )
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        #expect(try stream.exchange("before"))
        try serverProxy.reconfigure {
          $0.certificate = renewed.certificate
          $0.privateKey = renewed.privateKey
        }
        #expect(try serverProxy.status().identity.id == renewed.identity)
        #expect(
          try attempt("hello", from: mesh.client, to: Family.v4.server, port: echo.port)
            == .answered)
        try clientProxy.waitForRecord { $0["dst.identity"] == renewed.identity }
        #expect(try stream.exchange("the old connection goes on"))
      }
    }

    @Test("One line switches to strict, and back, without a restart", arguments: Family.allCases)
    func strictAndBack(family: Family) throws {
      try Mesh.run(.standard { $0.hasOutsider = true }) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let outsider = try #require(mesh.outsider)
        let echo = try mesh.server.echoServer()
        let pid = try proxy.status().pid
        for (mode, expected) in [
          ("permissive", Attempt.answered), ("strict", .refused), ("permissive", .answered),
        ] {
          try proxy.reconfigure { $0.inboundMode = mode }
          #expect(
            try attempt(
              "outsider", from: outsider, to: family.serverForOutsider, port: echo.port)
              == expected, "\(mode)")
          #expect(
            try attempt("member", from: mesh.client, to: family.server, port: echo.port)
              == .answered, "\(mode)")
        }
        #expect(try proxy.status().pid == pid)
      }
    }

    @Test("A client that was silent under strict is served once it is permissive")
    func silentClientOfStrict() throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
        }
      ) { mesh in
        let proxy = try #require(mesh.serverProxy)
        let echo = try mesh.server.echoServer()
        let stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
        try eventually("one undecided connection") {
          try proxy.status().connections.open["undecided"] == 1
        }
        try proxy.reconfigure { $0.inboundMode = "permissive" }
        #expect(try stream.exchange("good morning"))
        let open = try proxy.status().connections.open
        #expect(open["undecided"] == 0)
        #expect(open["plaintext"] == 1)
        stream.finish()
        #expect(try stream.end() == .clean)
      }
    }

    @Test("A key that only another user may read is refused at the start, not at a reload")
    func foreignKeyFile() throws {
      let credential = try Identities.authority.get().issue(LeafRequest(Identities.serverID))
      try Program.check(["chown", "65534:65534", credential.privateKey])
      let attributes = try FileManager.default.attributesOfItem(atPath: credential.privateKey)
      #expect(attributes[.posixPermissions] as? Int == 0o600)
      let directory = try TemporaryDirectory()
      let configuration = ProxyConfiguration(
        credential, trusting: try Identities.authority.get())
      let path = try directory.write(
        configuration.yaml(adminSocket: directory.path + "/admin.sock"), to: "culvert.yaml")
      let namespace = try Namespace("alone")
      defer { namespace.close() }
      let outcome = try namespace.run(
        [Machine.program("culvert-proxy"), "--config", path], seconds: 10)
      #expect(!outcome.succeeded)
      #expect(outcome.errors.contains(credential.privateKey))
      #expect(try namespace.listeners().isEmpty)
    }

    @Test("Reload under load loses nothing")
    func underLoad() throws {
      try Mesh.run { mesh in
        let echo = try mesh.server.echoServer()
        let isOver = Box(false)
        let exchanges = Box(0)
        let failures = Box<[String]>([])
        let running = Box(8)
        for number in 0..<8 {
          Thread.detachNewThread {
            do {
              var stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
              var count = 0
              while !isOver.value {
                guard try stream.exchange("exchange \(count)") else {
                  throw Trouble("the answer was another one")
                }
                count += 1
                exchanges.update { $0 += 1 }
                // Half of the threads keep their connection, half make new ones all the time.
                if number.isMultiple(of: 2) {
                  stream.finish()
                  guard try stream.end() == .clean else { throw Trouble("no clean end") }
                  stream = try mesh.client.connect(to: Family.v4.server, port: echo.port)
                }
              }
            } catch {
              failures.update { $0.append("\(error)") }
            }
            running.update { $0 -= 1 }
          }
        }
        for round in 0..<10 {
          let before = exchanges.value
          for proxy in [mesh.clientProxy, mesh.serverProxy] {
            try proxy?.reconfigure { $0.limits["maximumConnections"] = 20_000 + round }
          }
          #expect(exchanges.wait { $0 > before + 20 ? true : nil } == true)
        }
        isOver.update { $0 = true }
        #expect(running.wait { $0 == 0 ? true : nil } == true)
        #expect(failures.value == [])
        #expect(try mesh.serverProxy?.status().connections.refused.values.reduce(0, +) == 0)
      }
    }
  }
}
