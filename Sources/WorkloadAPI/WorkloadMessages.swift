package import Identity

/// One X.509-SVID that the workload is entitled to (Workload API §5.1).
package struct X509SVIDEntry: Sendable {
  package let id: SPIFFEID
  /// DER certificates one after the other, the leaf first. Not looked into.
  package let certificates: [UInt8]
  /// PKCS#8, DER. Not looked into.
  package let privateKey: SecretBytes
  /// The CA certificates of the SVID's own trust domain: DER, one after the other. Not looked into.
  package let bundle: [UInt8]
  /// What the identity is meant for; empty if nothing was said.
  package let hint: String

  package init(
    id: SPIFFEID, certificates: [UInt8], privateKey: SecretBytes, bundle: [UInt8], hint: String
  ) {
    self.id = id
    self.certificates = certificates
    self.privateKey = privateKey
    self.bundle = bundle
    self.hint = hint
  }
}

/// The CA certificates of one trust domain: DER, one after the other, not looked into.
package typealias TrustDomainBundle = (trustDomain: TrustDomain, certificates: [UInt8])

/// Everything the workload may use; it replaces all that came before (Workload API §4.3).
package struct X509SVIDResponse: Sendable {
  /// At least one; the first is the default identity (Workload API §5.3). No two have the same hint.
  package let svids: [X509SVIDEntry]
  /// DER, each whole. Not looked into.
  package let crls: [[UInt8]]
  /// At most one of each trust domain, in the order of their names.
  package let federatedBundles: [TrustDomainBundle]

  package init(svids: [X509SVIDEntry], crls: [[UInt8]], federatedBundles: [TrustDomainBundle]) {
    self.svids = svids
    self.crls = crls
    self.federatedBundles = federatedBundles
  }
}

/// Every bundle the workload should trust; it replaces all that came before (Workload API §5.2.2).
package struct X509BundlesResponse: Sendable {
  package let crls: [[UInt8]]
  /// At least one; at most one of each trust domain, in the order of their names.
  package let bundles: [TrustDomainBundle]

  package init(crls: [[UInt8]], bundles: [TrustDomainBundle]) {
    self.crls = crls
    self.bundles = bundles
  }
}

/// What a message may hold.
package enum WorkloadLimits {
  /// Bytes of one message as it is received. SPIRE's own client takes 4 MiB.
  package static let messageMaximumBytes = 4 * 1024 * 1024
  /// Bytes that one message may take while it is unpacked: small fields cost more memory than they
  /// have bytes.
  package static let unpackedMaximumBytes = 4 * messageMaximumBytes
  package static let svidsMaximum = 256
  /// Of other trust domains, or in X509BundlesResponse of all.
  package static let bundlesMaximum = 1024
  package static let crlsMaximum = 1024
  package static let hintMaximumBytes = 1024
}

/// Why a message was not taken; one line.
struct Discarded: Error { let reason: String }
