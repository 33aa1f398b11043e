import TestSupport
import Testing

/// Envoy as an Istio sidecar configures it.
enum Envoy {
  /// What istio-proxy's inbound listener does: terminates mTLS on `port`, hands the stream to
  /// `application` on loopback.
  static func server(
    in namespace: Namespace, port: UInt16, application: UInt16, _ credential: Credential
  ) throws {
    let bundle = try Identities.authority.get().bundle
    try start(
      in: namespace, port: port,
      """
      static_resources:
        listeners:
        - name: inbound
          address: { socket_address: { address: "::", port_value: \(port), ipv4_compat: true } }
          listener_filters:
          - name: envoy.filters.listener.tls_inspector
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector
          filter_chains:
          - filter_chain_match:
              transport_protocol: tls
              application_protocols: [istio-peer-exchange, istio]
            transport_socket:
              name: envoy.transport_sockets.tls
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
                require_client_certificate: true
                common_tls_context:
                  alpn_protocols: [istio-peer-exchange, h2, http/1.1]
                  tls_params: { tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3 }
                  tls_certificates:
                  - certificate_chain: { filename: "\(credential.certificate)" }
                    private_key: { filename: "\(credential.privateKey)" }
                  validation_context:
                    trusted_ca: { filename: "\(bundle)" }
                    match_typed_subject_alt_names:
                    - { san_type: URI, matcher: { prefix: "spiffe://demo.mesh/" } }
            filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: inbound
                cluster: application
        clusters:
        - name: application
          type: STATIC
          load_assignment:
            cluster_name: application
            endpoints:
            - lb_endpoints:
              - endpoint:
                  address: { socket_address: { address: 127.0.0.1, port_value: \(application) } }
      """)
  }

  /// What istio-proxy's outbound cluster does: takes plaintext on `port` of loopback, originates
  /// mTLS to the endpoint.
  static func client(
    in namespace: Namespace, port: UInt16, to address: String, _ remotePort: UInt16,
    _ credential: Credential, alpn: [String] = ["istio"]
  ) throws {
    let bundle = try Identities.authority.get().bundle
    try start(
      in: namespace, port: port,
      """
      static_resources:
        listeners:
        - name: outbound
          address: { socket_address: { address: 127.0.0.1, port_value: \(port) } }
          filter_chains:
          - filters:
            - name: envoy.filters.network.tcp_proxy
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
                stat_prefix: outbound
                cluster: peer
        clusters:
        - name: peer
          type: STATIC
          load_assignment:
            cluster_name: peer
            endpoints:
            - lb_endpoints:
              - endpoint:
                  address: { socket_address: { address: "\(address)", port_value: \(remotePort) } }
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
              sni: outbound_.\(remotePort)_._.db.shop.svc.cluster.local
              common_tls_context:
                alpn_protocols: [\(alpn.joined(separator: ", "))]
                tls_params: { tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3 }
                tls_certificates:
                - certificate_chain: { filename: "\(credential.certificate)" }
                  private_key: { filename: "\(credential.privateKey)" }
                validation_context:
                  trusted_ca: { filename: "\(bundle)" }
                  match_typed_subject_alt_names:
                  - { san_type: URI, matcher: { exact: "\(Identities.serverID)" } }
      """)
  }

  private static func start(
    in namespace: Namespace, port: UInt16, _ configuration: String
  ) throws {
    guard let path = Machine.envoyPath else { throw Trouble("no Envoy") }
    let directory = try TemporaryDirectory()
    namespace.keep(directory)
    let file = try directory.write(configuration, to: "envoy.yaml")
    let program = try namespace.start([
      path, "--config-path", file, "--concurrency", "1", "--disable-hot-restart", "--log-level",
      "warning",
    ])
    do {
      try namespace.waitForListener(port: port)
    } catch {
      throw Trouble("\(error)\n\(program.transcript)")
    }
  }
}

extension RealPrograms {
  @Suite("Envoy as an Istio sidecar", .enabled(if: Machine.envoyPath != nil, "needs Envoy"))
  struct EnvoyPeers {
    @Test("Envoy talks to Envoy here, without Culvert", arguments: Family.allCases)
    func control(family: Family) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server = nil
        }
      ) { mesh in
        let echo = try mesh.server.echoServer(on: "127.0.0.1", port: 9000)
        try Envoy.server(
          in: mesh.server, port: 8000, application: echo.port, try Identities.server.get())
        try Envoy.client(
          in: mesh.client, port: 9100, to: family.server, 8000, try Identities.client.get())
        let recording = try mesh.captured {
          try Self.exercise(mesh.client, "127.0.0.1", 9100)
        }
        #expect(recording.count(of: "canary") == 0)
        #expect(recording.tlsStreamCount == 2)
      }
    }

    @Test("Culvert as client, Envoy as server", arguments: Family.allCases)
    func envoyServer(family: Family) throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.outboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer(on: "127.0.0.1", port: 9000)
        try Envoy.server(
          in: mesh.server, port: 8000, application: echo.port, try Identities.server.get())
        let recording = try mesh.captured { try Self.exercise(mesh.client, family.server, 8000) }
        #expect(recording.count(of: "canary") == 0)
        #expect(recording.tlsStreamCount == 2)
        let record = try #require(mesh.clientProxy).waitForRecord { $0.direction == "outbound" }
        #expect(record.security == "mutual_tls")
        #expect(record["dst.identity"] == Identities.serverID)
        #expect(record.end == "closed")
      }
    }

    @Test("Envoy as server resumes sessions, or does not, and every byte arrives")
    func resumption() throws {
      try Mesh.run(
        .standard { plan in
          plan.server = nil
          plan.client?.outboundMode = "strict"
        }
      ) { mesh in
        let proxy = try #require(mesh.clientProxy)
        let echo = try mesh.server.echoServer(on: "127.0.0.1", port: 9000)
        try Envoy.server(
          in: mesh.server, port: 8000, application: echo.port, try Identities.server.get())
        for _ in 0..<5 { try Self.exercise(mesh.client, Family.v4.server, 8000) }
        try eventually("five lines of the connection log") {
          proxy.records.count { $0.end == "closed" } == 5
        }
        let kinds = proxy.records.compactMap { $0["handshake"] }
        #expect(kinds.count == 5 && kinds[0] == "full")
        #expect(proxy.records.allSatisfy { $0["dst.identity"] == Identities.serverID })
        let handshakes = try proxy.status().connections.handshakes
        #expect(handshakes["resumed"] == kinds.count { $0 == "resumed" })
        // Measured with Envoy 1.40: BoringSSL gives two tickets to each full handshake.
        #expect(kinds.contains("resumed"))
      }
    }

    @Test("Envoy as server is refused when it is not the one expected", arguments: Family.allCases)
    func unexpectedEnvoyServer(family: Family) throws {
      try Mesh.run(.standard { $0.server = nil }) { mesh in
        let echo = try mesh.server.echoServer(on: "127.0.0.1", port: 9000)
        try Envoy.server(
          in: mesh.server, port: 8000, application: echo.port, try Identities.client.get())
        let stream = try mesh.client.connect(to: family.server, port: 8000)
        try? stream.send("canary")
        #expect(try stream.end() == .reset)
        try #require(mesh.clientProxy).waitForRefusal("unexpected_identity")
        #expect(echo.received.isEmpty)
      }
    }

    @Test(
      "Envoy as client, Culvert as server",
      arguments: [["istio"], ["istio-peer-exchange", "istio"]],
      Family.allCases)
    func envoyClient(alpn: [String], family: Family) throws {
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        try Envoy.client(
          in: mesh.client, port: 9100, to: family.server, echo.port, try Identities.client.get(),
          alpn: alpn)
        let recording = try mesh.captured { try Self.exercise(mesh.client, "127.0.0.1", 9100) }
        #expect(recording.count(of: "canary") == 0)
        #expect(recording.tlsStreamCount == 2)
        let record = try #require(mesh.serverProxy).waitForRecord { $0.direction == "inbound" }
        #expect(record.security == "mutual_tls")
        #expect(record["alpn"] == "istio")
        #expect(record["src.identity"] == Identities.clientID)
        #expect(record["sni"] == "outbound_.\(echo.port)_._.db.shop.svc.cluster.local")
        #expect(record.end == "closed")
      }
    }

    @Test("Envoy as client with a stranger's certificate is refused", arguments: Family.allCases)
    func strangeEnvoyClient(family: Family) throws {
      let stranger = try Identities.stranger.get().issue(LeafRequest(Identities.clientID))
      try Mesh.run(
        .standard {
          $0.client = nil
          $0.server?.inboundMode = "strict"
        }
      ) { mesh in
        let echo = try mesh.server.echoServer()
        try Envoy.client(
          in: mesh.client, port: 9100, to: family.server, echo.port, stranger)
        let stream = try mesh.client.connect(to: "127.0.0.1", port: 9100)
        try? stream.send("canary")
        _ = try stream.end()
        try #require(mesh.serverProxy).waitForRefusal("untrusted_chain")
        #expect(echo.accepted == 0)
      }
    }

    @Test("A server that speaks first is not mistaken for plaintext behind Envoy")
    func serverFirst() throws {
      try Mesh.run(.standard { $0.client = nil }) { mesh in
        let server = try mesh.server.greetingServer("220 canary\n")
        try Envoy.client(
          in: mesh.client, port: 9100, to: Family.v4.server, server.port,
          try Identities.client.get())
        let recording = try mesh.captured {
          for _ in 0..<20 {
            let stream = try mesh.client.connect(to: "127.0.0.1", port: 9100)
            #expect(try stream.receiveText(exactly: 11) == "220 canary\n")
            stream.finish()
            #expect(try stream.end() == .clean)
          }
        }
        #expect(recording.count(of: "canary") == 0)
      }
    }

    /// An exchange, ten megabytes there and back, and a half-close.
    private static func exercise(_ client: Namespace, _ address: String, _ port: UInt16) throws {
      let stream = try client.connect(to: address, port: port)
      #expect(try stream.exchange("canary"))
      let chunk = [UInt8](repeating: 0x2a, count: 65_536)
      for _ in 0..<160 {
        try stream.send(chunk)
        #expect(try stream.receive(exactly: chunk.count) == chunk)
      }
      stream.finish()
      #expect(try stream.end() == .clean)
    }
  }
}
