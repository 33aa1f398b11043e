internal import CLinux
internal import Configuration
internal import Federation
internal import Identity
internal import Net
internal import TLS

/// A trust domain whose bundle an endpoint keeps fresh.
struct FederatedDomain {
  let trustDomain: TrustDomain
  let endpoint: FederationEndpoint
  var schedule: BundleSchedule
  /// Why the last look failed; nil if it did not.
  var lastError: String?
  /// Names its fetches among all that there ever were.
  let tag: Int

  /// When the next look is due, CLOCK_MONOTONIC; nil while one is under way.
  var deadline: Int64? {
    schedule.isDue(now: .max) ? schedule.nextPollMilliseconds : nil
  }
}

extension IdentityInputs {
  /// What endpoints have answered stays, unless the endpoint is configured no more, or the file
  /// beneath has become another since: whoever changed it means it (SPIFFE Federation §4.2).
  mutating func keepFetched(
    from former: [SourcedBundle], to configured: [SourcedBundle], _ settings: Settings
  ) {
    let polled = settings.trustBundles.compactMap { source -> TrustDomain? in
      guard case .domain(let domain) = source, domain.federation != nil else { return nil }
      return domain.trustDomain
    }
    fetched = fetched.filter { polled.contains($0.key) }
    for (domain, _) in fetched {
      let before = former.first { $0.trustDomain == domain }
      let after = configured.first { $0.trustDomain == domain }
      let isSame =
        switch (before?.bundle, after?.bundle) {
        case (let before?, let after?): before.certificatesDER == after.certificatesDER
        case (nil, nil): after != nil
        default: false
        }
      if !isSame { fetched[domain] = nil }
    }
  }

  /// Notes that an endpoint has just answered with what is in use already, from it or from the file.
  ///
  /// - Returns: false if something else is.
  mutating func confirm(_ document: SPIFFEBundle, of domain: TrustDomain) -> Bool {
    if let known = fetched[domain] {
      guard known.document == document else { return false }
      fetched[domain]?.confirmedSeconds = Int64(time(nil))
      return true
    }
    guard let index = configured.firstIndex(where: { $0.trustDomain == domain }),
      configured[index].document == document
    else { return false }
    configured[index].confirmedSeconds = Int64(time(nil))
    return true
  }
}

// Bundle endpoints as a source.
extension IdentityManager {
  /// For one look at an endpoint, but for resolving its name.
  private static let fetchTimeoutMilliseconds = 10_000

  /// Follows the configuration; endpoints that stay keep their schedule.
  func configureFederation(_ now: Int64) {
    var federations: [FederatedDomain] = []
    for source in settings.trustBundles {
      guard case .domain(let domain) = source, let endpoint = domain.federation else { continue }
      let known = self.federations.first {
        $0.trustDomain == domain.trustDomain && $0.endpoint == endpoint
      }
      if let known, inputs.fetched[domain.trustDomain] != nil || known.schedule.stored == nil {
        federations.append(known)
        continue
      }
      let configured = inputs.configured.first { $0.trustDomain == domain.trustDomain }
      nextTag += 1
      federations.append(
        FederatedDomain(
          trustDomain: domain.trustDomain, endpoint: endpoint,
          schedule: BundleSchedule(stored: configured?.document, now: now), tag: nextTag))
    }
    self.federations = federations
  }

  func advanceFederation(_ now: Int64) {
    for (tag, result) in poller.take() {
      // An endpoint that is not configured any more has no say.
      guard let index = federations.firstIndex(where: { $0.tag == tag }) else { continue }
      finish(index, result, now)
    }
    for index in federations.indices where federations[index].schedule.isDue(now: now) {
      begin(index, now)
    }
  }

  private func begin(_ index: Int, _ now: Int64) {
    let federation = federations[index]
    var profile = EndpointProfile.httpsWeb
    var bundle: TrustBundle?
    if let id = federation.endpoint.endpointID {
      profile = .httpsSPIFFE(endpointID: id)
      bundle = inputs.bundle(of: id.trustDomain)
    }
    federations[index].schedule.begin()
    poller.start(
      BundleRequest(
        url: federation.endpoint.url, profile: profile, endpointBundle: bundle, mark: mark,
        timeoutMilliseconds: Self.fetchTimeoutMilliseconds), tag: federation.tag)
  }

  private func finish(
    _ index: Int, _ result: Result<SPIFFEBundle, BundleFetchError>, _ now: Int64
  ) {
    let domain = federations[index].trustDomain
    let outcome = federations[index].schedule.finish(result, now: now)
    switch outcome {
    case .applied, .unchanged:
      guard let document = federations[index].schedule.stored else { return }
      // What could not be taken before is tried again, and its error stays until it is.
      if !inputs.confirm(document, of: domain) { return apply(document, index) }
      federations[index].lastError = nil
    case .superseded(let sequence):
      note(index, "sequence \(sequence) is older than what is stored, and is ignored")
    case .failed:
      if case .failure(let error) = result { note(index, error.description) }
    }
  }

  private func apply(_ document: SPIFFEBundle, _ index: Int) {
    let (domain, url) = (federations[index].trustDomain, federations[index].endpoint.url)
    do throws(IdentityError) {
      let sourced = try BundleFiles.sourced(document, domain, url.description, .federation)
      var inputs = inputs
      inputs.fetched[domain] = sourced
      try compose(inputs, orAwait: true)
      federations[index].lastError = nil
      let lists = inputs.configured.first { $0.trustDomain == domain }?.revocationLists.count ?? 0
      let fitting = inputs.bundle(of: domain)?.revocationLists.count ?? 0
      if fitting < lists {
        note(index, "\(lists - fitting) revocation lists are of none of its authorities")
      }
      Diagnostics.write(
        "bundle of \(domain) fetched from \(url): \(sourced.bundle?.count ?? 0) authorities"
          + (sourced.bundle == nil ? "; the trust domain is distrusted" : ""))
    } catch {
      note(index, error.description)
    }
  }

  private func note(_ index: Int, _ error: String) {
    if federations[index].lastError != error {
      Diagnostics.write("bundle of \(federations[index].trustDomain) not refreshed: \(error)")
    }
    federations[index].lastError = error
  }
}
