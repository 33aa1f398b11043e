internal import CLinux
internal import Configuration
internal import Identity
internal import Net
package import TLS
internal import Telemetry
internal import WorkloadAPI

/// One answer of a Workload API, for `culvert identity fetch`: public parts only.
package struct FetchedIdentity: Encodable, Sendable {
  package struct SVID: Encodable, Sendable {
    package let id: String
    package let hint: String
    /// RFC 3339.
    package let notAfter: String?
    /// Why it could not be used; nil if it could.
    package let problem: String?
  }
  package struct Bundle: Encodable, Sendable {
    package let trustDomain: String
    package let authorities: Int
    package let problem: String?
  }

  package let svids: [SVID]
  package let bundles: [Bundle]
  package let revocationLists: Int

  package var isUsable: Bool {
    svids.allSatisfy { $0.problem == nil } && bundles.allSatisfy { $0.problem == nil }
  }

  /// Waits for the first answer.
  package static func fetch(
    socket: String?, bundlesOnly: Bool, timeoutMilliseconds: Int
  ) throws(LoadError) -> FetchedIdentity {
    var configured: WorkloadEndpoint?
    do throws(WorkloadEndpointError) {
      configured = try socket.map { text throws(WorkloadEndpointError) in
        try WorkloadEndpoint(text)
      }
    } catch {
      throw LoadError(description: "--socket: \(error)")
    }
    let endpoint = try IdentityManager.endpoint(configured, "--socket")
    var client = WorkloadClient(
      endpoint, stream: bundlesOnly ? .x509Bundles : .x509SVID, mark: 0)
    let end = Clock.milliseconds() + Int64(timeoutMilliseconds)
    while true {
      let now = Clock.milliseconds()
      guard now < end else {
        throw LoadError(description: "\(endpoint): no answer within \(timeoutMilliseconds) ms")
      }
      for event in client.advance(now: now) {
        switch event {
        case .svids(let response): return FetchedIdentity(response)
        case .bundles(let response): return FetchedIdentity(response)
        case .discarded(let reason):
          throw LoadError(description: "\(endpoint): the answer cannot be used: \(reason)")
        // Asked once: when the client would try again does not matter.
        case .lost(let failure):
          throw LoadError(
            description: "\(endpoint): \(failure.reason.rawValue): \(failure.detail)")
        }
      }
      wait(for: client, until: end)
    }
  }

  private static func wait(for client: borrowing WorkloadClient, until end: Int64) {
    let due = min(end, client.deadlineMilliseconds ?? end)
    let interest = client.interest
    var polled = pollfd(
      fd: interest?.descriptor ?? -1, events: interest?.events ?? 0, revents: 0)
    _ = unsafe poll(&polled, 1, Int32(max(0, min(due - Clock.milliseconds(), 60_000))))
  }

  private init(_ response: X509SVIDResponse) {
    var own: [TrustDomainBundle] = []
    for entry in response.svids
    where !own.contains(where: { $0.trustDomain == entry.id.trustDomain }) {
      own.append((entry.id.trustDomain, entry.bundle))
    }
    svids = response.svids.map(Self.look)
    bundles = (own + response.federatedBundles).map(Self.look)
    revocationLists = response.crls.count
  }

  private init(_ response: X509BundlesResponse) {
    svids = []
    bundles = response.bundles.map(Self.look)
    revocationLists = response.crls.count
  }

  private static func look(_ entry: X509SVIDEntry) -> SVID {
    var end: String?
    var problem: String?
    do throws(IdentityError) {
      let pair = unsafe try entry.privateKey.withBytes { key throws(IdentityError) in
        unsafe try KeyPair(certificates: entry.certificates, privateKey: key, from: "the SVID")
      }
      end = Timestamp.text(unixMilliseconds: pair.notAfterSeconds * 1000)
      let bundle = try TrustBundle(
        entry.id.trustDomain, der: [entry.bundle], from: "its bundle")
      let material = try IdentityMaterial(pair, bundles: [bundle], svidEpoch: 1, trustEpoch: 1)
      if material.id != entry.id { problem = "the certificate names \(material.id)" }
    } catch {
      problem = error.description
    }
    return SVID(id: entry.id.description, hint: entry.hint, notAfter: end, problem: problem)
  }

  private static func look(_ bundle: TrustDomainBundle) -> Bundle {
    do throws(IdentityError) {
      let trusted = try TrustBundle(
        bundle.trustDomain, der: [bundle.certificates], from: "the bundle")
      return Bundle(
        trustDomain: bundle.trustDomain.name, authorities: trusted.count, problem: nil)
    } catch {
      return Bundle(
        trustDomain: bundle.trustDomain.name, authorities: 0, problem: error.description)
    }
  }
}

/// The bundles that a verification outside of a proxy uses.
package enum TrustedBundles {
  /// Those in the files that a configuration names.
  package static func load(configuration path: String) throws(LoadError) -> [TrustBundle] {
    let settings = try Settings.loadText(path: path)
    var bundles = try BundleFiles.load(settings.trustBundles).compactMap(\.bundle)
    if case .embeddedCA(let source) = settings.identity,
      !bundles.contains(where: { $0.trustDomain == source.id.trustDomain })
    {
      do throws(IdentityError) {
        bundles.append(try CertificateAuthority.load(directory: source.directory).trustBundle)
      } catch {
        throw LoadError(description: error.description)
      }
    }
    return bundles
  }

  /// Those that a running proxy trusts.
  package static func load(adminSocket path: String) throws(LoadError) -> [TrustBundle] {
    var bundles: [TrustBundle] = []
    for trusted in try AdminClient.identity(at: path).trusted {
      do {
        var bundle = try TrustBundle(
          TrustDomain(trusted.trustDomain), der: trusted.authorities.compactMap(Base64.decode),
          from: path)
        for list in trusted.revocationLists.compactMap({
          Base64.decode($0).flatMap { RevocationList(der: $0) }
        }) {
          _ = bundle.add(list)
        }
        bundles.append(bundle)
      } catch {
        throw LoadError(description: "\(path): \(error)")
      }
    }
    return bundles
  }
}
