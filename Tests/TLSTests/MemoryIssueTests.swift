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
    // The bytes, as somebody else reads them.
    let again = try unsafe issued.withPrivateKey { key in
      Result {
        unsafe try KeyPair(
          certificates: issued.certificatesDER, privateKey: key, from: "memory")
      }
    }.get()
    #expect(again.isSame(as: issued))
    #expect((590...600).contains(issued.notAfterSeconds - Int64(time(nil))))
    // The bundle that goes with it verifies it.
    let bundle = try TrustBundle(
      authority.trustDomain, pem: directory.appending(path: "ca.pem").path)
    let material = try IdentityMaterial(again, bundles: [bundle], svidEpoch: 1, trustEpoch: 1)
    #expect(material.id == .web)
    #expect(bundle.certificatesDER == authority.trustBundle.certificatesDER)
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
