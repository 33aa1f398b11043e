internal import CLinux
internal import Configuration
internal import Identity
internal import Net
internal import TLS

/// Where a bundle comes from; the raw value is the word in status, metrics and logs.
package enum BundleOrigin: String, Hashable, Sendable, CaseIterable {
  case pem, jwks, directory
  case bundleMap = "bundle_map"
  case federation
  case workloadAPI = "workload_api"
  case embeddedCA = "embedded_ca"
}

/// The bundle of one trust domain, as its source gave it.
struct SourcedBundle: Sendable {
  let trustDomain: TrustDomain
  let origin: BundleOrigin
  /// nil: the trust domain is distrusted as a whole, because its bundle is empty, or nothing has
  /// come of it yet.
  var bundle: TrustBundle?
  var sequence: UInt64?
  /// When its source confirmed it last, in Unix seconds; nil if it has not yet.
  var confirmedSeconds: Int64?
  /// Of JWKS: what an endpoint's answers are compared with.
  var document: SPIFFEBundle?
  /// From the configuration's own file; they outlast the bundle they came with.
  var revocationLists: [RevocationList] = []

  /// Reads revocation lists, each of which must fit the bundle there is.
  mutating func addRevocationLists(_ path: String) throws(IdentityError) {
    revocationLists = try RevocationList.load(path)
    for list in revocationLists where !(bundle?.add(list) ?? true) {
      throw IdentityError(
        file: path, reason: "the list of \(list.issuer) is not signed by \(trustDomain)'s CA")
    }
  }
}

/// The bundles that are in files: PEM, JWKS, directories and maps of them.
enum BundleFiles {
  /// Files that a directory of bundles may hold.
  static let maximumDirectoryFiles = 4096

  /// Endings of the files of a directory, the longest first; what stands before is the trust domain.
  private static let endings: [(text: String, isPEM: Bool)] = [
    (".spiffe-trust-bundle.pem", true), (".pem", true), (".jwks", false), (".json", false),
  ]
  private static let revocationEnding = ".crl"

  /// Reads everything, or throws; each trust domain once.
  static func load(_ sources: [TrustBundleSource]) throws(LoadError) -> [SourcedBundle] {
    var bundles: [SourcedBundle] = []
    for source in sources {
      let found: [SourcedBundle]
      do throws(IdentityError) {
        switch source {
        case .domain(let domain): found = try [load(domain)]
        case .directory(let path): found = try load(directory: path)
        case .bundleMap(let path): found = try load(map: path)
        case .workloadAPI: found = []
        }
      } catch {
        throw LoadError(description: error.description)
      }
      for bundle in found {
        guard !bundles.contains(where: { $0.trustDomain == bundle.trustDomain }) else {
          throw LoadError(
            description: "workload.trustBundles: a second bundle for \(bundle.trustDomain)")
        }
        bundles.append(bundle)
      }
    }
    return bundles
  }

  private static func load(_ domain: DomainBundle) throws(IdentityError) -> SourcedBundle {
    var loaded: SourcedBundle
    switch domain.file {
    case .pem(let path): loaded = try pem(domain.trustDomain, path, .pem)
    case .jwks(let path): loaded = try jwks(domain.trustDomain, path, .jwks)
    case nil: loaded = SourcedBundle(trustDomain: domain.trustDomain, origin: .federation)
    }
    if let path = domain.revocationLists { try loaded.addRevocationLists(path) }
    return loaded
  }

  private static func pem(
    _ domain: TrustDomain, _ path: String, _ origin: BundleOrigin
  ) throws(IdentityError) -> SourcedBundle {
    SourcedBundle(
      trustDomain: domain, origin: origin, bundle: try TrustBundle(domain, pem: path),
      confirmedSeconds: Int64(time(nil)))
  }

  private static func jwks(
    _ domain: TrustDomain, _ path: String, _ origin: BundleOrigin
  ) throws(IdentityError) -> SourcedBundle {
    let bytes = try contents(path)
    let document = try parsed(path) { () throws(SPIFFEBundleError) in
      try SPIFFEBundle(jwks: bytes)
    }
    return try sourced(document, domain, path, origin)
  }

  private static func parsed<Document>(
    _ path: String, _ parse: () throws(SPIFFEBundleError) -> Document
  ) throws(IdentityError) -> Document {
    do throws(SPIFFEBundleError) {
      return try parse()
    } catch {
      throw IdentityError(file: path, reason: error.description)
    }
  }

  /// An empty bundle distrusts its trust domain (SPIFFE Trust Domain and Bundle §4.1.3).
  static func sourced(
    _ document: SPIFFEBundle, _ domain: TrustDomain, _ source: String, _ origin: BundleOrigin
  ) throws(IdentityError) -> SourcedBundle {
    let authorities = document.x509Authorities
    return SourcedBundle(
      trustDomain: domain, origin: origin,
      bundle: authorities.isEmpty
        ? nil : try TrustBundle(domain, der: authorities, from: source),
      sequence: document.sequence, confirmedSeconds: Int64(time(nil)), document: document)
  }
}

// MARK: - Several trust domains

extension BundleFiles {
  private static func load(map path: String) throws(IdentityError) -> [SourcedBundle] {
    let bytes = try contents(path)
    let map = try parsed(path) { () throws(SPIFFEBundleError) in
      try SPIFFEBundleMap(document: bytes)
    }
    var loaded: [SourcedBundle] = []
    for (domain, document) in map.bundles.sorted(by: { $0.key < $1.key }) {
      loaded.append(try sourced(document, domain, path, .bundleMap))
    }
    return loaded
  }

  /// One file for each trust domain, `TRUSTDOMAIN.pem` or `TRUSTDOMAIN.jwks`, and
  /// `TRUSTDOMAIN.crl` beside it. Other names are refused, but for hidden files.
  private static func load(directory path: String) throws(IdentityError) -> [SourcedBundle] {
    var loaded: [SourcedBundle] = []
    var lists: [(domain: TrustDomain, path: String)] = []
    for name in try names(in: path) {
      let file = "\(path)/\(name)"
      if name.hasSuffix(revocationEnding) {
        lists.append((try domain(name, without: revocationEnding, file), file))
        continue
      }
      guard let ending = endings.first(where: { name.hasSuffix($0.text) }) else {
        throw IdentityError(
          file: file, reason: "a directory of bundles holds TRUSTDOMAIN.pem, .jwks and .crl only")
      }
      let domain = try domain(name, without: ending.text, file)
      guard !loaded.contains(where: { $0.trustDomain == domain }) else {
        throw IdentityError(file: file, reason: "is a second bundle for \(domain)")
      }
      loaded.append(
        ending.isPEM ? try pem(domain, file, .directory) : try jwks(domain, file, .directory))
    }
    for list in lists {
      guard let index = loaded.firstIndex(where: { $0.trustDomain == list.domain }) else {
        throw IdentityError(file: list.path, reason: "there is no bundle for \(list.domain)")
      }
      try loaded[index].addRevocationLists(list.path)
    }
    return loaded
  }

  /// The directory, so that a new file is noticed, and what is in it now.
  static func watchedFiles(directory path: String) -> [String] {
    ["\(path)/."] + ((try? names(in: path)) ?? []).map { "\(path)/\($0)" }
  }

  private static func domain(
    _ name: String, without ending: String, _ file: String
  ) throws(IdentityError) -> TrustDomain {
    do throws(SPIFFEIDError) {
      return try TrustDomain(String(name.dropLast(ending.count)))
    } catch {
      throw IdentityError(
        file: file, reason: "is not named after a trust domain: \(error.rawValue)")
    }
  }

  /// The visible names, sorted. Hidden ones are how a projected volume is swapped.
  private static func names(in path: String) throws(IdentityError) -> [String] {
    guard let directory = unsafe opendir(path) else {
      throw IdentityError(file: path, reason: "cannot be read: \(Errno.current)")
    }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        unsafe String(cString: UnsafeRawPointer(pointer).assumingMemoryBound(to: CChar.self))
      }
      guard !name.hasPrefix(".") else { continue }
      guard names.count < maximumDirectoryFiles else {
        throw IdentityError(file: path, reason: "holds more than \(maximumDirectoryFiles) files")
      }
      names.append(name)
    }
    return names.sorted()
  }

  /// A regular file's bytes, as many as a bundle document may have.
  private static func contents(_ path: String) throws(IdentityError) -> [UInt8] {
    do throws(Errno) {
      return try RegularFile.contents(path, maximumBytes: SPIFFEBundle.maximumDocumentBytes)
    } catch Errno(EFBIG) {
      throw IdentityError(
        file: path, reason: "is larger than \(SPIFFEBundle.maximumDocumentBytes) bytes")
    } catch {
      throw IdentityError(file: path, reason: "cannot be read: \(error)")
    }
  }
}
