import Configuration

/// A file that sets every field to something else than its default.
enum Sample {
  static let text = """
    workload:
      identity:
        files: { certificate: svid.pem, privateKey: /run/keys/svid.key }
        startupDeadlineMilliseconds: 5000
      trustBundles:
        - { trustDomain: demo.mesh, pem: demo-bundle.pem, crl: demo.crl }
        - trustDomain: partner.example
          jwks: partner.json
          federation:
            url: https://partner.example:8443/
            profile: https_spiffe
            endpointID: spiffe://partner.example/spire/server
        - trustDomain: web.example
          federation: { url: "https://web.example/bundle", profile: https_web }
        - { directory: bundles.d }
        - { bundleMap: map.json }
        - { workloadAPI: { socket: "unix:///run/agent.sock" } }
      connectionLifetime: certificate
      bundleEndpoint: { address: 10.90.0.1, port: 8443, refreshHintSeconds: 60 }
    listeners: { outboundPort: 16001, inboundPort: 16006, meshPort: 16008 }
    inbound:
      mode: strict
      ports: { 8080: permissive, 9090: disabled }
    outbound:
      mode: strict
      rules:
        - { to: [10.90.0.2/32], ports: [3306], action: mtls, expect: ["spiffe://demo.mesh/ns/shop/sa/db"] }
        - { to: [0.0.0.0/0, "::/0"], ports: [443, 8000-8099], action: passthrough }
        - { to: [10.91.0.0/16], action: plaintext }
        - { to: [fd00::/8], action: deny }
      peers:
        - { address: 10.90.0.3/32, identity: "spiffe://partner.example/ns/shop/sa/cache" }
    interception:
      includeInboundPorts: [8000-9999]
      excludeInboundPorts: [8022]
      includeOutboundPorts: [1-1000, 3306]
      excludeOutboundPorts: [22, "8000-8010"]
      includeOutboundCIDRs: [10.0.0.0/8]
      excludeOutboundCIDRs: [10.0.0.0/24, fd00::1]
    limits:
      maximumConnections: 100
      handshakeTimeoutMilliseconds: 2000
      connectTimeoutMilliseconds: 3000
      halfCloseTimeoutMilliseconds: 4000
      drainTimeoutMilliseconds: 0
      sniffMemoryMaximumBytes: 262144
    workers: 2
    admin: { socket: /run/other/admin.sock }

    """

  /// The least that is accepted.
  static let least = """
    workload:
      identity: { files: { certificate: a, privateKey: b } }
      trustBundles: [ { trustDomain: demo.mesh, pem: c } ]

    """

  static func parse(_ text: String) throws(ConfigurationError) -> Settings {
    try Settings.parse(yaml: Array(text.utf8), file: "c.yaml", directory: "/etc/culvert")
  }

  /// What is wrong with a text, as it is printed; nil if nothing is.
  static func complaint(_ text: String) -> String? { complaint(Array(text.utf8)) }

  static func complaint(_ bytes: [UInt8]) -> String? {
    do throws(ConfigurationError) {
      _ = try Settings.parse(yaml: bytes, file: "c.yaml", directory: "/etc/culvert")
      return nil
    } catch {
      return error.description
    }
  }
}
