internal import CLinux
internal import Configuration
internal import Federation
internal import Identity
internal import Net
internal import TLS
internal import WorkloadAPI

// The Workload API as a source: FetchX509SVID for the identity, FetchX509Bundles for bundles.
extension IdentityManager {
  /// - Parameter field: what errors call the place where it could be named.
  static func endpoint(
    _ configured: WorkloadEndpoint?, _ field: String
  ) throws(LoadError) -> WorkloadEndpoint {
    if let configured { return configured }
    let name = WorkloadEndpoint.environmentVariable
    guard let text = unsafe getenv(name).map({ unsafe String(cString: $0) }) else {
      throw LoadError(description: "\(field) is not set, and neither is \(name)")
    }
    do throws(WorkloadEndpointError) {
      return try WorkloadEndpoint(text)
    } catch {
      throw LoadError(description: "\(name): \(error)")
    }
  }

  /// Which endpoint a configuration takes bundles from, if that is another one than before.
  func bundleEndpointChange(
    _ settings: Settings
  ) throws(LoadError) -> (endpoint: WorkloadEndpoint?, Void)? {
    var wanted: WorkloadEndpoint?
    for source in settings.trustBundles {
      guard case .workloadAPI(let endpoint) = source else { continue }
      wanted = try Self.endpoint(endpoint, "workload.trustBundles[].workloadAPI.socket")
    }
    return wanted == bundleClientEndpoint ? nil : (wanted, ())
  }

  private var bundleClientEndpoint: WorkloadEndpoint? {
    switch bundleClient {
    case .some(let client): client.endpoint
    case nil: nil
    }
  }

  func replaceBundleClient(_ endpoint: WorkloadEndpoint?) {
    bundleClient = nil
    guard let endpoint else { return }
    bundleClient = WorkloadClient(endpoint, stream: .x509Bundles, mark: mark)
  }

  // MARK: The loop

  var clientDeadlines: [Int64] {
    [svidClient?.deadlineMilliseconds, bundleClient?.deadlineMilliseconds].compactMap(\.self)
  }

  /// What to wait for.
  var interests: [pollfd] {
    var polled = [pollfd(fd: poller.readable.number, events: Int16(POLLIN), revents: 0)]
    for interest in [svidClient?.interest, bundleClient?.interest] {
      guard let interest = interest.flatMap(\.self) else { continue }
      polled.append(pollfd(fd: interest.descriptor, events: interest.events, revents: 0))
    }
    return polled
  }

  func advanceClients(_ now: Int64) {
    for event in svidClient?.advance(now: now) ?? [] { take(event, from: "FetchX509SVID") }
    for event in bundleClient?.advance(now: now) ?? [] { take(event, from: "FetchX509Bundles") }
  }

  private func take(_ event: WorkloadEvent, from method: String) {
    switch event {
    case .svids(let response):
      take(method) { inputs throws(IdentityError) in try self.take(response, &inputs) }
    case .bundles(let response):
      take(method) { inputs throws(IdentityError) in
        inputs.delivered = try Self.sourced(response.bundles, response.crls)
      }
    case .discarded(let reason):
      fail("\(method): a message was discarded: \(reason)")
    case .lost(let failure):
      fail("\(method): \(failure)")
      guard failure.withdrawsIdentity else { return }
      if method == "FetchX509SVID" {
        withdraw()
      } else {
        take(method) { $0.delivered = [] }
      }
    }
  }

  /// The whole of a response, or nothing of it.
  private func take(
    _ response: X509SVIDResponse, _ inputs: inout IdentityInputs
  ) throws(IdentityError) {
    let entry = try choose(response)
    let source = "the SVID of \(entry.id)"
    let pair = unsafe try entry.privateKey.withBytes { key throws(IdentityError) in
      unsafe try KeyPair(certificates: entry.certificates, privateKey: key, from: source)
    }
    guard try pair.spiffeID == entry.id else {
      throw IdentityError(file: source, reason: "names another ID in its certificate")
    }
    inputs.pair = pair
    let own = (trustDomain: entry.id.trustDomain, certificates: entry.bundle)
    let others = response.federatedBundles.filter { $0.trustDomain != own.trustDomain }
    inputs.accompanying = try Self.sourced([own] + others, response.crls)
  }

  /// The first SVID is the default one (Workload API §5.3).
  private func choose(_ response: X509SVIDResponse) throws(IdentityError) -> X509SVIDEntry {
    guard case .workloadAPI(let source) = settings.identity, let hint = source.hint else {
      return response.svids[0]
    }
    guard let entry = response.svids.first(where: { $0.hint == hint }) else {
      throw IdentityError(file: "the response", reason: "holds no SVID with the hint \"\(hint)\"")
    }
    return entry
  }

  private static func sourced(
    _ bundles: [TrustDomainBundle], _ lists: [[UInt8]]
  ) throws(IdentityError) -> [SourcedBundle] {
    var sourced: [SourcedBundle] = []
    for bundle in bundles {
      let trusted = try TrustBundle(
        bundle.trustDomain, der: [bundle.certificates], from: "the bundle of \(bundle.trustDomain)")
      sourced.append(
        SourcedBundle(
          trustDomain: bundle.trustDomain, origin: .workloadAPI, bundle: trusted,
          confirmedSeconds: Int64(time(nil))))
    }
    for der in lists {
      guard let list = RevocationList(der: der) else {
        throw IdentityError(file: "a revocation list", reason: "is malformed")
      }
      // A list does not say whose it is: it goes where its issuer is, or may be.
      for index in sourced.indices { _ = sourced[index].bundle?.add(list) }
    }
    return sourced
  }
}
