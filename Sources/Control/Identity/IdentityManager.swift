internal import CLinux
internal import Configuration
internal import DataPlane
internal import Federation
internal import Identity
internal import Net
internal import TLS
internal import Telemetry
internal import WorkloadAPI

/// Puts the workload's identity together: its SVID from one source, the trust bundles from several.
///
/// What a source gives is checked together with everything else before it counts. What fails
/// changes nothing: the last good identity stays until it ends. Used by the control thread only, and
/// never waits.
final class IdentityManager {
  /// How long a renewal that failed is left alone; and one that succeeded, however short the life of
  /// what it gave.
  static let renewalRetrySeconds: Int64 = 10

  /// Why the newest of what the sources gave is not in force; nil if it is.
  private(set) var lastError: String?
  /// When the pair in force was taken, and when the trust changed last, in Unix seconds.
  private(set) var rotatedSeconds: Int64 = 0
  private(set) var trustChangedSeconds: Int64 = 0

  let mark: UInt32
  var settings: Settings
  var inputs = IdentityInputs()
  private(set) var inForce: ComposedIdentity?
  private var epochs = ComposedIdentity.Epochs()
  /// Whom peers are verified by, and its number; 0 before the first.
  private(set) var trust: (bundles: [TrustBundle], epoch: UInt64) = ([], 0)
  /// The source says that the workload has no identity any more.
  private var isWithdrawn = false
  private let startedAt: Int64
  private var startupDeadline: Int64 { startedAt + Int64(settings.startupDeadlineMilliseconds) }
  private var isLate = false
  private var hasChanged = false
  private var authority: CertificateAuthority?
  private var renewAtSeconds: Int64 = 0
  private var warning = Warning.none

  var svidClient: WorkloadClient?
  var bundleClient: WorkloadClient?
  var federations: [FederatedDomain] = []
  let poller: BundlePoller
  var nextTag = 0

  private enum Warning: Int { case none, halfGone, ended }

  /// Reads what is in files and makes the clients of the rest.
  ///
  /// - Parameter now: CLOCK_MONOTONIC, in milliseconds.
  init(_ settings: Settings, mark: UInt32, now: Int64) throws(LoadError) {
    self.settings = settings
    self.mark = mark
    startedAt = now
    do throws(Errno) {
      poller = try BundlePoller()
    } catch {
      throw LoadError(description: "eventfd: \(error)")
    }
    if case .workloadAPI(let source) = settings.identity {
      let endpoint = try Self.endpoint(source.endpoint, "workload.identity.workloadAPI.socket")
      svidClient = WorkloadClient(endpoint, stream: .x509SVID, mark: mark)
    }
    try reload(settings, now: now)
  }

  // MARK: What there is

  var state: IdentityState {
    if let inForce { return .ready(inForce.material) }
    return isWithdrawn || isLate ? .unavailable : .awaited
  }

  /// How often another pair has taken the place of the one before.
  var rotations: UInt64 { max(epochs.svid, 1) - 1 }

  /// Whether `state` is another one since this was asked last.
  func takeChange() -> Bool {
    defer { hasChanged = false }
    return hasChanged
  }

  /// Whether a source may still give what completes the identity.
  private func isAwaitable(_ settings: Settings, _ inputs: IdentityInputs) -> Bool {
    if case .workloadAPI = settings.identity { return true }
    guard let domain = inputs.pair?.trustDomain else { return false }
    // Its own trust domain may be known to an endpoint, or a Workload API, only.
    return settings.trustBundles.contains { source in
      switch source {
      case .workloadAPI: true
      case .domain(let bundle): bundle.federation != nil && bundle.trustDomain == domain
      case .directory, .bundleMap: false
      }
    }
  }

  // MARK: The configuration

  /// Reads everything a configuration names. All of it is valid, or it throws and nothing changes.
  func reload(_ settings: Settings, now: Int64) throws(LoadError) {
    var inputs = inputs
    let configured = try BundleFiles.load(settings.trustBundles)
    inputs.keepFetched(from: inputs.configured, to: configured, settings)
    inputs.configured = configured
    let change = try bundleEndpointChange(settings)
    if let change, change.endpoint == nil { inputs.delivered = [] }
    let authority: CertificateAuthority?
    do throws(IdentityError) {
      authority = try readPair(settings.identity, &inputs)
      try compose(inputs, orAwait: isAwaitable(settings, inputs))
    } catch {
      throw LoadError(description: error.description)
    }
    self.settings = settings
    self.authority = authority
    if let change { replaceBundleClient(change.endpoint) }
    configureFederation(now)
    planRenewal()
  }

  private func readPair(
    _ source: IdentitySource, _ inputs: inout IdentityInputs
  ) throws(IdentityError) -> CertificateAuthority? {
    switch source {
    case .workloadAPI: return nil
    // What it gave is renewed by time, not by reloads.
    case .embeddedCA(let source):
      if let authority { return authority }
      return try Self.renew(source, &inputs)
    case .files(let files):
      inputs.pair = try KeyPair(certificate: files.certificate, privateKey: files.privateKey)
      return nil
    }
  }

  /// Puts an identity together from what the sources have given, and puts it in force.
  ///
  /// - Parameter orAwait: what does not fit together yet may do so later.
  func compose(_ inputs: IdentityInputs, orAwait: Bool = false) throws(IdentityError) {
    guard let pair = inputs.pair else {
      self.inputs = inputs
      noteTrustAlone(inputs.bundles.compactMap(\.bundle))
      return
    }
    let trust = inputs.bundles.compactMap(\.bundle)
    do throws(IdentityError) {
      let composed = try ComposedIdentity(pair, trust, after: inForce, epochs: epochs)
      self.inputs = inputs
      lastError = nil
      putInForce(composed)
    } catch {
      guard orAwait, inForce == nil else { throw error }
      self.inputs = inputs
      lastError = error.description
    }
  }

  /// Without an identity of our own there are still connections of an earlier one, whose peers may
  /// lose their trust.
  private func noteTrustAlone(_ bundles: [TrustBundle]) {
    guard isWithdrawn, !ComposedIdentity.isSame(bundles, trust.bundles) else { return }
    epochs.trust += 1
    trust = (bundles, epochs.trust)
    hasChanged = true
  }

  private func putInForce(_ composed: ComposedIdentity) {
    let now = Int64(time(nil))
    let former = inForce?.material
    isWithdrawn = false
    inForce = composed
    let material = composed.material
    if material.svidEpoch != epochs.svid {
      rotatedSeconds = now
      warning = .none
    }
    if material.trustEpoch != epochs.trust {
      trustChangedSeconds = max(now, trustChangedSeconds + 1)
    }
    epochs = .init(svid: material.svidEpoch, trust: material.trustEpoch)
    trust = (material.bundles, material.trustEpoch)
    guard
      former?.svidEpoch != material.svidEpoch || former?.trustEpoch != material.trustEpoch
    else { return }
    hasChanged = true
    planRenewal()
    Diagnostics.write(
      "identity \(material.id), SVID \(material.svidEpoch), trust \(material.trustEpoch): "
        + "until \(Timestamp.text(unixMilliseconds: material.notAfterSeconds * 1000))")
  }

  /// What a source gave is taken, if it fits; otherwise what was before stays.
  func take(_ source: String, _ change: (inout IdentityInputs) throws(IdentityError) -> Void) {
    do throws(IdentityError) {
      var inputs = inputs
      try change(&inputs)
      try compose(inputs, orAwait: true)
    } catch {
      fail("\(source): \(error.description)")
    }
  }

  /// What was composed could not be put to work, or has been since.
  func noteInstallation(_ error: String?) {
    if let error {
      fail(error)
    } else if lastError?.hasPrefix(Self.notInstalled) == true {
      lastError = nil
    }
  }

  static let notInstalled = "not installed: "

  func fail(_ error: String) {
    if lastError != error { Diagnostics.write("identity not renewed: \(error)") }
    lastError = error
  }

  /// The source has taken the identity back: it is used for nothing new. Connections that live were
  /// begun while it was ours, and go on.
  func withdraw() {
    guard inputs.pair != nil || !isWithdrawn else { return }
    // The bundles that came with it stay: the peers of those connections are verified by them.
    inputs.pair = nil
    // Before there was one, it is only not there yet.
    guard inForce != nil else { return }
    inForce = nil
    isWithdrawn = true
    hasChanged = true
    Diagnostics.write("identity withdrawn: mTLS is refused until there is one again")
  }

  // MARK: Time

  /// Does what is due.
  func advance(now: Int64) {
    advanceClients(now)
    advanceFederation(now)
    renewIfDue()
    warnIfDue()
    if !isLate, inForce == nil, now >= startupDeadline {
      isLate = true
      hasChanged = true
      Diagnostics.write(
        "no identity within \(settings.startupDeadlineMilliseconds) ms: what needs one is refused "
          + "until it comes" + (lastError.map { " (\($0))" } ?? ""))
    }
  }

  /// Milliseconds until `advance` has something to do by itself.
  func waitMilliseconds(now: Int64) -> Int64 {
    var due = clientDeadlines + federations.compactMap { $0.deadline }
    if inForce == nil, !isLate { due.append(startupDeadline) }
    let wait = due.map { max(0, $0 - now) }.min() ?? .max
    let seconds = Int64(time(nil))
    let wall =
      [nextWarningSeconds, renewAtSeconds > 0 ? renewAtSeconds : nil].compactMap(\.self)
      .map { max(0, $0 - seconds) * 1000 }.min() ?? .max
    return min(wait, wall, 60_000)
  }

  /// The embedded CA renews at half the life of what it gave.
  private func planRenewal() {
    renewAtSeconds = 0
    guard authority != nil, let pair = inForce?.pair else { return }
    renewAtSeconds = max(halfOfLife(pair), rotatedSeconds + Self.renewalRetrySeconds)
  }

  /// The embedded CA's SVIDs begin in the past, by more than half of the shortest life: theirs is
  /// counted from when they were made.
  private func halfOfLife(_ pair: KeyPair) -> Int64 {
    let begin =
      authority == nil ? pair.notBeforeSeconds : max(pair.notBeforeSeconds, rotatedSeconds)
    return begin + (pair.notAfterSeconds - begin) / 2
  }

  private func renewIfDue() {
    guard case .embeddedCA(let source) = settings.identity, renewAtSeconds > 0,
      Int64(time(nil)) >= renewAtSeconds
    else { return }
    renewAtSeconds = Int64(time(nil)) + Self.renewalRetrySeconds
    take(source.directory) { inputs throws(IdentityError) in
      _ = try Self.renew(source, &inputs)
    }
  }

  /// A new pair from the embedded CA, and the CA's own bundle.
  private static func renew(
    _ source: EmbeddedCASource, _ inputs: inout IdentityInputs
  ) throws(IdentityError) -> CertificateAuthority {
    let authority = try CertificateAuthority.load(directory: source.directory)
    inputs.pair = try authority.issue(source.id, lifetimeSeconds: Int64(source.lifetimeSeconds))
    inputs.accompanying = [
      SourcedBundle(
        trustDomain: authority.trustDomain, origin: .embeddedCA, bundle: authority.trustBundle,
        confirmedSeconds: Int64(time(nil)))
    ]
    return authority
  }

  private var nextWarningSeconds: Int64? {
    guard let pair = inForce?.pair else { return nil }
    return switch warning {
    case .none: halfOfLife(pair) + 1
    case .halfGone: pair.notAfterSeconds + 1
    case .ended: nil
    }
  }

  /// Half of an SVID's life is when whoever renews it should have; its end is when it is refused.
  private func warnIfDue() {
    guard let due = nextWarningSeconds, let material = inForce?.material,
      Int64(time(nil)) >= due
    else { return }
    let end = Timestamp.text(unixMilliseconds: material.notAfterSeconds * 1000)
    if warning == .none {
      warning = .halfGone
      Diagnostics.write("identity \(material.id): half of its life is over; it ends at \(end)")
    } else {
      warning = .ended
      Diagnostics.write("identity \(material.id) has expired at \(end): mTLS is refused")
    }
  }
}
