internal import Foundation

/// The `openssl` program as a TLS client or server: a peer that Culvert did not make.
package enum OpenSSL {
  /// A TLS 1.3 client that presents a certificate and offers the ALPN names. What is written to
  /// the program is sent; what it prints is what it received. It ends, with close_notify, when its
  /// input ends.
  package static func meshClient(
    in namespace: Namespace, to endpoint: String, _ credential: Credential?,
    alpn: String? = "culvert/1", trusting bundle: String? = nil,
    options: [String] = ["-quiet", "-no_ign_eof"]
  ) throws -> Program {
    var command = ["openssl", "s_client", "-connect", endpoint, "-tls1_3"]
    if let credential {
      command += ["-cert", credential.certificate, "-key", credential.privateKey]
    }
    if let alpn { command += ["-alpn", alpn] }
    if let bundle { command += ["-CAfile", bundle, "-verify_return_error"] }
    return try namespace.start(command + options)
  }

  /// An ordinary TLS client, as an application brings one: no client certificate, no mesh ALPN.
  package static func applicationClient(
    in namespace: Namespace, to endpoint: String, trusting bundle: String, alpn: String? = nil
  ) throws -> Program {
    try namespace.start(
      [
        "openssl", "s_client", "-connect", endpoint, "-servername", "app.example",
        "-verify_hostname", "app.example", "-CAfile", bundle, "-verify_return_error", "-quiet",
        "-no_ign_eof",
      ] + (alpn.map { ["-alpn", $0] } ?? []))
  }

  /// A mesh server: TLS 1.3, client certificate required. It sends each line back reversed.
  package static func meshServer(
    in namespace: Namespace, port: UInt16, _ credential: Credential, trusting bundle: String,
    alpn: String? = "culvert/1"
  ) throws -> Program {
    var command = [
      "openssl", "s_server", "-accept", "\(port)", "-tls1_3", "-cert", credential.certificate,
      "-key", credential.privateKey, "-CAfile", bundle, "-Verify", "3", "-verify_return_error",
      "-rev",
    ]
    if let alpn { command += ["-alpn", alpn] }
    let server = try namespace.start(command)
    try namespace.waitForListener(port: port)
    return server
  }

  /// An application with TLS of its own. It sends each line back reversed.
  package static func applicationServer(
    in namespace: Namespace, port: UInt16, _ credential: Credential
  ) throws -> Program {
    let server = try namespace.start([
      "openssl", "s_server", "-accept", "\(port)", "-cert", credential.certificate, "-key",
      credential.privateKey, "-rev",
    ])
    try namespace.waitForListener(port: port)
    return server
  }
}

extension Program {
  /// Sends a line through a TLS client to a server that reverses it; whether it came back.
  package func exchangesReversed(_ line: String, seconds: Double = patience) -> Bool {
    write(line + "\n")
    return output.waitForText(containing: String(line.reversed()), seconds: seconds)
  }

  /// Sends a line through a TLS client to a server that echoes it; whether it came back.
  package func exchanges(_ line: String, seconds: Double = patience) -> Bool {
    write(line + "\n")
    return output.waitForText(containing: line, seconds: seconds)
  }
}
