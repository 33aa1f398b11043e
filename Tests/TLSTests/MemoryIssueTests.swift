import COpenSSL
import Foundation
import Identity
import Testing

@testable import TLS

@Suite struct `An SVID issued in memory` {
  private let directory = FileManager.default.temporaryDirectory.appending(
    path: "culvert-memory-\(UUID().uuidString)")
  private let authority: CertificateAuthority

  init() throws {
    authority = try CertificateAuthority.create(
      directory: directory.path, trustDomain: TrustDomain("demo.mesh"))
  }

  @Test func `is what an SVID in files is`() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    let issued = try authority.issue(.web, lifetimeSeconds: 600)
    var cursor = unsafe issued.certificate.withUnsafeBufferPointer { $0.baseAddress }
    let leaf = unsafe issued.certificate.withUnsafeBufferPointer { buffer in
      unsafe cursor = buffer.baseAddress
      return unsafe d2i_X509(nil, &cursor, buffer.count)
    }
    let certificate = unsafe Certificate(owning: try #require(unsafe leaf))
    let key = unsafe issued.withPrivateKey { bytes in
      var cursor = unsafe bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
      let key = unsafe d2i_AutoPrivateKey(nil, &cursor, bytes.count)
      return unsafe key.map { unsafe PrivateKey(owning: $0) }
    }
    #expect(unsafe X509_check_private_key(certificate.pointer, try #require(key).pointer) == 1)
    #expect(certificate.notAfterSeconds == issued.notAfterSeconds)
    #expect((590...600).contains(issued.notAfterSeconds - Int64(time(nil))))
    // The bundle that goes with it verifies it.
    let bundle = try TrustBundle(
      authority.trustDomain, pem: directory.appending(path: "ca.pem").path)
    let id = try unsafe PeerVerification([bundle]).verify(
      certificate.pointer, untrusted: nil, expect: [])
    #expect(id == .web)
    #expect(try bundle.der() == authority.bundleDER())
  }

  @Test func `is for the CA's own trust domain, and for a workload`() throws {
    defer { try? FileManager.default.removeItem(at: directory) }
    for id in ["spiffe://other.mesh/web", "spiffe://demo.mesh"] {
      #expect(throws: IdentityError.self) {
        _ = try authority.issue(SPIFFEID(id), lifetimeSeconds: 600)
      }
    }
  }
}
