import CLinux
import Configuration
import Identity
import Net
import TLS
import WorkloadAPI

/// What one caller is entitled to at one moment. Two of them are the same if the messages made of
/// them are.
struct Offer: Hashable {
  fileprivate let entries: [RegistrationEntries.Entry]
  /// Grow with every issue of the entry's SVID.
  fileprivate let numbers: [Int]
  /// Grows whenever bundles or CRLs may have changed.
  fileprivate let materialNumber: Int

  var ids: [SPIFFEID] { entries.map(\.id) }
}

/// Decides who gets what, issues it and keeps it until half of its life is over.
struct Issuer {
  private struct Issued {
    let number: Int
    let svid: X509SVIDEntry
    /// Unix seconds.
    let renewal: Int64
  }

  /// Federated bundles and CRLs; the rest of a message is left for SVIDs.
  static let materialMaximumBytes = WorkloadLimits.messageMaximumBytes * 3 / 4

  private let authority: CertificateAuthority
  private let entriesPath: String
  private let bundle: [UInt8]
  private var registration: RegistrationEntries
  private var federated: [TrustDomain: [UInt8]]
  private var crls: [[UInt8]]
  private var materialNumber = 0
  private var issued: [RegistrationEntries.Entry: Issued] = [:]
  private var issuedCount = 0
  private var fingerprints: [Fingerprint]

  init(authority: CertificateAuthority, entriesPath: String) throws {
    self.authority = authority
    self.entriesPath = entriesPath
    bundle = Array(authority.trustBundle.certificatesDER.joined())
    let material = try Self.load(entriesPath, authority.trustDomain)
    (registration, federated, crls, fingerprints) = material
  }

  var summary: String {
    "\(authority.trustDomain), \(registration.entries.count) entries, \(federated.count) federated "
      + "bundles, \(crls.count) CRLs"
  }

  // MARK: Files

  private typealias Material = (
    RegistrationEntries, [TrustDomain: [UInt8]], [[UInt8]], [Fingerprint]
  )

  private static func load(_ path: String, _ trustDomain: TrustDomain) throws -> Material {
    // Taken first: what changes meanwhile is another change.
    let own = Fingerprint(path)
    let registration = try RegistrationEntries.load(path: path, trustDomain: trustDomain)
    let fingerprints = registration.files.map(Fingerprint.init)
    var federated: [TrustDomain: [UInt8]] = [:]
    for bundle in registration.federatedBundles {
      let trusted = try TrustBundle(bundle.trustDomain, pem: bundle.pem)
      federated[bundle.trustDomain] = Array(trusted.certificatesDER.joined())
    }
    var crls: [[UInt8]] = []
    for crl in registration.crls { crls += try RevocationList.load(crl).map(\.der) }
    let bytes = federated.values.reduce(0) { $0 + $1.count } + crls.reduce(0) { $0 + $1.count }
    guard crls.count <= WorkloadLimits.crlsMaximum, federated.count < WorkloadLimits.bundlesMaximum,
      bytes <= materialMaximumBytes
    else {
      throw CommandError(
        "\(path): bundles and CRLs are more than a message holds: \(federated.count) and "
          + "\(crls.count), \(bytes) bytes")
    }
    return (registration, federated, crls, [own] + fingerprints)
  }

  /// Reads the files again if one of them has become another. Anything wrong: what was read before
  /// stays.
  mutating func reloadIfChanged() {
    let now = ([entriesPath] + registration.files).map(Fingerprint.init)
    guard now != fingerprints else { return }
    fingerprints = now
    do {
      (registration, federated, crls, fingerprints) = try Self.load(
        entriesPath, authority.trustDomain)
      materialNumber += 1
      let current = Set(registration.entries)
      issued = issued.filter { current.contains($0.key) }
      Log.write("entries loaded: \(summary)")
    } catch {
      Log.write("entries not loaded, what was read before stays: \(error)")
    }
  }

  // MARK: Offers

  /// Everything the caller is entitled to; nil if that is nothing. SVIDs that are missing or past
  /// half of their life are issued.
  mutating func offer(to caller: Caller, now: Int64) throws(IdentityError) -> Offer? {
    var entries = registration.entries.filter { $0.selectors.allSatisfy(caller.fits) }
    entries.removeLast(max(0, entries.count - WorkloadLimits.svidsMaximum))
    // A hint stands for one SVID (Workload API §5.2.1).
    var hints: Set<String> = []
    entries = entries.filter { $0.hint.isEmpty || hints.insert($0.hint).inserted }
    guard !entries.isEmpty else { return nil }
    var numbers: [Int] = []
    for entry in entries { numbers.append(try number(of: entry, now: now)) }
    return Offer(entries: entries, numbers: numbers, materialNumber: materialNumber)
  }

  /// Issues the entry's SVID if it has to.
  private mutating func number(
    of entry: RegistrationEntries.Entry, now: Int64
  ) throws(IdentityError) -> Int {
    if let known = issued[entry], now < known.renewal { return known.number }
    let new = try authority.issue(entry.id, lifetimeSeconds: entry.lifetimeSeconds)
    issuedCount += 1
    let svid = X509SVIDEntry(
      id: entry.id, certificates: new.certificatesDER,
      privateKey: try unsafe new.withPrivateKey { unsafe SecretBytes(copying: $0) },
      bundle: bundle, hint: entry.hint)
    // At least a second, so that the shortest life is not spent on issuing.
    let renewal = now + max(1, (new.notAfterSeconds - now) / 2)
    issued[entry] = Issued(number: issuedCount, svid: svid, renewal: renewal)
    return issuedCount
  }

  func message(_ stream: WorkloadStream, _ offer: Offer) -> SecretBytes {
    let names = Set(offer.entries.flatMap(\.federatesWith)).sorted()
    let bundles: [TrustDomainBundle] = names.compactMap { name in
      federated[name].map { (trustDomain: name, certificates: $0) }
    }
    switch stream {
    case .x509SVID:
      return X509SVIDResponse(
        svids: offer.entries.compactMap { issued[$0]?.svid }, crls: crls, federatedBundles: bundles
      ).framed()
    case .x509Bundles:
      let own: TrustDomainBundle = (trustDomain: authority.trustDomain, certificates: bundle)
      return X509BundlesResponse(crls: crls, bundles: [own] + bundles).framed()
    }
  }
}

/// What stat(2) says of the file a path leads to.
private struct Fingerprint: Equatable {
  private var device: UInt = 0
  private var inode: UInt = 0
  private var size = 0
  private var seconds = 0
  private var nanoseconds = 0

  init(_ path: String) {
    var status = stat()
    guard unsafe stat(path, &status) == 0 else { return }
    device = UInt(status.st_dev)
    inode = UInt(status.st_ino)
    size = Int(status.st_size)
    seconds = status.st_mtim.tv_sec
    nanoseconds = status.st_mtim.tv_nsec
  }
}
