import COpenSSL
import Identity
import Testing

@testable import TLS

@Suite struct ALPNTests {
  /// What a client offers, and what each kind of server selects; nil: no_application_protocol.
  @Test(
    arguments: [
      (["culvert/1"], "culvert/1", "culvert/1"),
      (["istio"], "istio", nil),
      (["culvert/1", "istio"], "culvert/1", "culvert/1"),
      (["istio", "culvert/1"], "culvert/1", "culvert/1"),
      (["istio-peer-exchange", "istio"], "istio", nil),
      (["istio-peer-exchange"], nil, nil),
      (["h2", "http/1.1"], nil, nil),
      (["culvert/10", "culvert", "Culvert/1", "istio2"], nil, nil),
      ([], nil, nil),
    ] as [([String], String?, String?)])
  func `a server selects culvert/1, else istio; the mesh port culvert/1 only; never anything else`(
    offer: [String], inbound: String?, mesh: String?
  ) throws {
    for (role, expected) in [(TLSRole.server, inbound), (.meshServer, mesh)] {
      let demo = DemoMesh()
      let pair = try Pair(client: demo.web, server: demo.db, role: role)
      let wire = offer.flatMap { [UInt8($0.utf8.count)] + Array($0.utf8) }
      unsafe SSL_set_alpn_protos(pair.client.session.ssl, wire, UInt32(wire.count))
      pair.connect()
      if let expected {
        #expect(pair.bothEstablished)
        #expect(pair.server.session.alpn == expected)
        #expect(pair.client.session.alpn == expected)
      } else {
        #expect(pair.server.state.failure?.alertSent == "no_application_protocol")
        #expect(pair.client.state.failure?.alertReceived == "no_application_protocol")
      }
    }
  }

  @Test func `a client accepts a server that selects no protocol`() throws {
    let demo = DemoMesh()
    let pair = try Pair(client: demo.web, server: demo.db)
    let context = unsafe SSL_get_SSL_CTX(pair.server.session.ssl)
    unsafe SSL_CTX_set_alpn_select_cb(context, { _, _, _, _, _, _ in SSL_TLSEXT_ERR_NOACK }, nil)
    pair.connect()
    #expect(pair.bothEstablished)
    #expect(pair.client.session.alpn == nil)
    #expect(pair.client.session.peer == .db)
  }

  @Test func `a client refuses a server that selects what was not offered`() throws {
    let demo = DemoMesh()
    let pair = try Pair(client: demo.web, server: demo.db)
    let context = unsafe SSL_get_SSL_CTX(pair.server.session.ssl)
    unsafe SSL_CTX_set_alpn_select_cb(
      context,
      { _, selected, count, offered, _, _ in
        // The seven bytes after the first name's length and two letters: "lvert/1".
        unsafe selected?.pointee = unsafe offered.map { unsafe $0 + 3 }
        unsafe count?.pointee = 7
        return SSL_TLSEXT_ERR_OK
      }, nil)
    pair.connect()
    // Ours, or that of an OpenSSL that checks it too.
    let word = pair.client.state.failure?.word ?? ""
    #expect(["protocol_error", "alert_sent_decode_error"].contains(word))
    #expect(!pair.client.state.isEstablished)
  }
}
