#if DEBUG
  @testable import DataPlane

  /// What a test holds of one relayed connection.
  struct RelayedConnection {
    let client: FarEnd
    let server: FarEnd
    /// The TLS end's records, if it has them; the bytes are sent by the test.
    let peer: RelayPeer?
    let tlsSide: Side

    /// The far end of the TLS leg, or of the one that would be.
    var tls: FarEnd { tlsSide == .client ? client : server }
    var plain: FarEnd { tlsSide == .client ? server : client }

    /// Receives from the TLS leg until its plaintext so far is as wanted.
    func receiveFromTLS(_ what: String, until isSo: ([UInt8]) -> Bool) throws {
      try tls.receive(what) { end in
        guard let peer else { return isSo(end.received) }
        peer.take(end.take())
        return isSo(peer.plaintext)
      }
    }

    /// The plaintext that came from the TLS leg; it is forgotten.
    func takeFromTLS() -> [UInt8] { peer?.takePlaintext() ?? tls.take() }
  }
#endif
