import TestSupport
import Testing

extension RealServer {
  /// PostgreSQL that trusts everybody in the tests' networks.
  static func postgreSQL(in namespace: Namespace) throws {
    guard let programs = Machine.postgresqlDirectory else { throw Trouble("no PostgreSQL") }
    let directory = try makeDirectory(for: namespace)
    let data = "\(directory.path)/data"
    try Program.check(["chown", "postgres:", directory.path])
    // initdb and postgres refuse to run as root.
    let asPostgres = [
      "setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "env", "LC_ALL=C",
    ]
    try Program.check(
      asPostgres + [
        "\(programs)/initdb", "--pgdata=\(data)", "--auth=trust", "--no-sync", "--encoding=UTF8",
      ])
    try directory.write(
      "local all all trust\nhost all all all trust\n", to: "data/pg_hba.conf")
    let program = try namespace.start(
      asPostgres + [
        "\(programs)/postgres", "-D", data, "-c", "listen_addresses=*", "-c", "port=5432", "-c",
        "unix_socket_directories=\(directory.path)", "-c", "fsync=off", "-c", "shared_buffers=16MB",
      ])
    try program.waitForError(containing: "ready to accept connections", seconds: 60)
  }

  /// Redis; in protected mode it serves clients on loopback only.
  static func redis(in namespace: Namespace, isProtected: Bool = false) throws {
    let directory = try makeDirectory(for: namespace)
    _ = try namespace.start([
      "redis-server", "--port", "6379", "--save", "", "--appendonly", "no", "--dir",
      directory.path, "--protected-mode", isProtected ? "yes" : "no", "--bind", "*", "-::*",
    ])
    try namespace.waitForListener(port: 6379)
  }

  /// nginx: HTTP/1.1 on 8081, cleartext HTTP/2 on 8082, HTTP/1.1 and HTTP/2 over TLS on 8443.
  /// It answers with the request's URI and its protocol, and serves 10 MB at /large.
  static func nginx(in namespace: Namespace) throws {
    let directory = try makeDirectory(for: namespace)
    let web = try Identities.web.get()
    try directory.write(String(repeating: "x", count: 10_000_000), to: "large")
    let configuration = try directory.write(
      """
      daemon off;
      worker_processes 1;
      pid \(directory.path)/pid;
      error_log stderr;
      events { worker_connections 1024; }
      http {
        access_log off;
        client_body_temp_path \(directory.path)/body;
        proxy_temp_path \(directory.path)/proxy;
        fastcgi_temp_path \(directory.path)/fastcgi;
        uwsgi_temp_path \(directory.path)/uwsgi;
        scgi_temp_path \(directory.path)/scgi;
        server {
          listen 8081; listen [::]:8081;
          listen 8082 http2; listen [::]:8082 http2;
          listen 8443 ssl http2; listen [::]:8443 ssl http2;
          server_name app.example;
          ssl_certificate \(web.certificate);
          ssl_certificate_key \(web.privateKey);
          root \(directory.path);
          location = /large { }
          location / { default_type text/plain; return 200 "$request_uri $server_protocol\\n"; }
        }
      }
      """, to: "nginx.conf")
    _ = try namespace.start([
      "nginx", "-c", configuration, "-p", directory.path, "-e", "stderr",
    ])
    for port: UInt16 in [8081, 8082, 8443] { try namespace.waitForListener(port: port) }
  }
}

/// What lies between a client and a server, and whether the wire shows what they say.
enum Wire: String, CaseIterable, Sendable, CustomTestStringConvertible {
  /// Nothing: shows that the programs work with each other here.
  case direct
  /// Two proxies that have no mTLS to offer each other.
  case permissive
  /// Two proxies, mTLS or nothing.
  case strict

  var testDescription: String { rawValue }
  var isEncrypted: Bool { self == .strict }

  /// Builds the namespaces, records the wire while the closure runs, and holds the recording to
  /// what the wire must show of the canary.
  func run(_ canary: String, _ body: (Mesh) throws -> Void) throws {
    let plan = try Mesh.Plan.standard { plan in
      switch self {
      case .direct:
        plan.client = nil
        plan.server = nil
      case .permissive:
        plan.client?.peers = []
        plan.client?.discovery = ["announce": "off", "probe": "off"]
      case .strict:
        plan.client?.outboundMode = "strict"
        plan.client?.peers = []
        plan.server?.inboundMode = "strict"
      }
    }
    try Mesh.run(plan) { mesh in
      let recording = try mesh.captured { try body(mesh) }
      let count = recording.count(of: canary)
      guard isEncrypted ? count == 0 : count > 0 else {
        throw Trouble("\(rawValue): the wire shows the canary \(count) times")
      }
    }
  }
}
