internal import Identity
internal import TLS

/// What the sources have given so far.
struct IdentityInputs: Sendable {
  var pair: KeyPair?
  /// The bundles of the configuration's own files, and places for those of its endpoints.
  var configured: [SourcedBundle] = []
  /// What bundle endpoints have answered.
  var fetched: [TrustDomain: SourcedBundle] = [:]
  /// What came along with the pair, from the Workload API or the embedded CA.
  var accompanying: [SourcedBundle] = []
  /// What the Workload API gives beside it.
  var delivered: [SourcedBundle] = []

  /// One for each trust domain, never merged: what the configuration names comes before what a
  /// Workload API gives, and an endpoint's answer takes the place of the file it keeps fresh.
  var bundles: [SourcedBundle] {
    var bundles = configured.map(freshest)
    for bundle in accompanying + delivered
    where !bundles.contains(where: { $0.trustDomain == bundle.trustDomain }) {
      bundles.append(bundle)
    }
    return bundles
  }

  private func freshest(_ configured: SourcedBundle) -> SourcedBundle {
    guard var fetched = fetched[configured.trustDomain] else { return configured }
    for list in configured.revocationLists { _ = fetched.bundle?.add(list) }
    return fetched
  }

  /// The newest bundle of a trust domain, if it is trusted.
  func bundle(of trustDomain: TrustDomain) -> TrustBundle? {
    bundles.first { $0.trustDomain == trustDomain }?.bundle
  }
}

/// An identity put together, and what it was put together from.
struct ComposedIdentity {
  let pair: KeyPair
  let material: IdentityMaterial

  /// Checks that all of it belongs together. Numbers go on from those of the identity in force; what
  /// has not changed keeps its number.
  init(
    _ pair: KeyPair, _ trust: [TrustBundle], after former: ComposedIdentity?, epochs: Epochs
  ) throws(IdentityError) {
    let hasNewPair = !(former.map { pair.isSame(as: $0.pair) } ?? false)
    let hasNewTrust = !(former.map { Self.isSame(trust, $0.material.bundles) } ?? false)
    material = try IdentityMaterial(
      pair, bundles: trust, svidEpoch: epochs.svid + (hasNewPair ? 1 : 0),
      trustEpoch: epochs.trust + (hasNewTrust ? 1 : 0), mayHaveEnded: !hasNewPair)
    self.pair = pair
  }

  /// The last numbers that were given out.
  struct Epochs {
    var svid: UInt64 = 0
    var trust: UInt64 = 0
  }

  static func isSame(_ left: [TrustBundle], _ right: [TrustBundle]) -> Bool {
    left.count == right.count
      && left.allSatisfy { bundle in right.contains { $0.isSame(as: bundle) } }
  }
}
