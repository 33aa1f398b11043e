import CLinux
import Federation
import Foundation
import Identity
import Net
import TLS
import TestSupport

extension Identities {
  /// Stands for the system's certificate authorities, in this process.
  static let webPKI: Authority = {
    let authority = try! Authority(trustDomain: "web.example")
    _ = unsafe setenv("SSL_CERT_FILE", authority.bundle, 1)
    // A machine without a name server answers soon (resolv.conf(5)).
    _ = unsafe setenv("RES_OPTIONS", "attempts:1 timeout:1", 1)
    return authority
  }()

  static let partnerID = "spiffe://partner.example/bundle-endpoint"
  static let partner = try! Authority(trustDomain: "partner.example")
}

/// A trust domain's bundle, read from its authority's PEM file.
func trustBundle(_ authority: Authority) throws -> TrustBundle {
  try TrustBundle(TrustDomain(authority.trustDomain), pem: authority.bundle)
}

/// A Python web server on loopback.
final class Endpoint: Sendable {
  let port: UInt16
  let program: Program
  private let directory: TemporaryDirectory

  /// - Parameters:
  ///   - request: what its certificate says.
  ///   - bundle: of the trust domain it serves.
  init(
    _ request: LeafRequest, from authority: Authority,
    serving bundle: Authority = Identities.partner,
    plain: Bool = false
  ) throws {
    let credential = try authority.issue(request)
    directory = try TemporaryDirectory()
    let document = try trustBundle(bundle).jwks(sequence: 7, refreshHintSeconds: 600)
    let file = try directory.write(String(decoding: document, as: UTF8.self), to: "bundle.json")
    let script = URL(filePath: #filePath).deletingLastPathComponent()
      .appending(path: "Scripts/endpoint.py").path
    program = try Program(
      ["python3", script, credential.certificate, credential.privateKey, file]
        + (plain ? ["--plain"] : []))
    let line = try program.waitForOutput(containing: "listening on ")
    guard let port = UInt16(line.split(separator: " ").last ?? "") else {
      throw Trouble("no port in “\(line)”")
    }
    self.port = port
  }

  func url(_ path: String, host: String = "localhost") throws -> HTTPSURL {
    try HTTPSURL("https://\(host):\(port)\(path)")
  }

  /// The requests that have arrived: path, Host and SNI of each. Asks one thing more, which comes
  /// after whatever was on its way.
  func requests() throws -> [String] {
    let barrier = "/bundle?barrier=\(UUID().uuidString)"
    try Program.check([
      "curl", "--silent", "--insecure", url(barrier, host: "127.0.0.1").description,
    ])
    try program.waitForOutput(containing: barrier)
    return program.output.lines.filter { $0.hasPrefix("request ") && !$0.contains("?barrier=") }
      .map { String($0.dropFirst("request ".count)) }
  }
}

extension BundleRequest {
  /// A request as the tests want it, but for what they change.
  static func web(_ url: HTTPSURL, timeoutMilliseconds: Int = 20_000) -> BundleRequest {
    BundleRequest(
      url: url, profile: .httpsWeb, endpointBundle: nil, mark: 0,
      timeoutMilliseconds: timeoutMilliseconds)
  }

  static func workload(
    _ url: HTTPSURL, _ id: String, _ bundle: TrustBundle?
  ) throws -> BundleRequest {
    BundleRequest(
      url: url, profile: .httpsSPIFFE(endpointID: try SPIFFEID(id)), endpointBundle: bundle,
      mark: 0, timeoutMilliseconds: 20_000)
  }

  /// Why it was refused; nil if it was not.
  var refusal: BundleFetchError? {
    do throws(BundleFetchError) {
      _ = try fetch()
      return nil
    } catch {
      return error
    }
  }
}

/// What every endpoint here serves unless told otherwise.
func partnerBundle() throws -> SPIFFEBundle {
  let document = try trustBundle(Identities.partner).jwks(sequence: 7, refreshHintSeconds: 600)
  return try SPIFFEBundle(jwks: document)
}
