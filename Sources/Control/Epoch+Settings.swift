package import Configuration
internal import DataPlane
internal import Identity
internal import Net
internal import Policy
internal import TLS

/// Why a configuration cannot be taken; one line for people.
package struct LoadError: Error, Sendable, CustomStringConvertible {
  package let description: String
}

extension NamespaceEpoch {
  convenience init(
    _ settings: Settings, _ policy: LoadedPolicy, _ identity: IdentityState, number: UInt64
  ) {
    self.init(
      number: number, identity: identity, connectionLifetime: settings.connectionLifetime,
      holdsUntilReady: settings.holdUntilReady, inbound: settings.inbound,
      outbound: policy.outbound, originations: policy.originations,
      discovery: settings.discovery, authorization: settings.authorization,
      limits: ConnectionLimits(settings.limits),
      records: RecordSettings(
        kernelTLS: settings.dataPlane.kernelTLS,
        kernelTLSAfterBytes: settings.dataPlane.kernelTLSAfterBytes,
        keyUpdateAfterRecords: settings.dataPlane.keyUpdateAfterRecords))
  }
}

extension ConnectionLimits {
  init(_ limits: Limits) {
    self.init(
      maximumConnections: limits.maximumConnections,
      handshakeTimeoutMilliseconds: limits.handshakeTimeoutMilliseconds,
      connectTimeoutMilliseconds: limits.connectTimeoutMilliseconds,
      halfCloseTimeoutMilliseconds: limits.halfCloseTimeoutMilliseconds,
      sniffMemoryMaximumBytes: limits.sniffMemoryMaximumBytes)
  }
}

extension Settings {
  /// Reads a configuration file and every file that it names; asks nobody else.
  ///
  /// - Returns: what the identity is, or where it will come from.
  package static func check(path: String) throws(LoadError) -> String {
    let settings = try loadText(path: path)
    let identity = try IdentityManager(settings, mark: 0, now: Clock.milliseconds())
    _ = try LoadedPolicy(settings)
    return
      "identity \(identity.inForce?.material.id.description ?? "from elsewhere, not asked for")"
  }

  /// Reads a configuration file, and nothing that it names.
  static func loadText(path: String) throws(LoadError) -> Settings {
    do throws(ConfigurationError) {
      return try Settings.load(path: path)
    } catch {
      throw LoadError(description: error.description)
    }
  }

  /// Every file whose change is a reason to reload.
  func watchedFiles(configuration: String) -> [String] {
    var files = [configuration] + policyFiles
    switch identity {
    case .files(let own): files += [own.certificate, own.privateKey]
    // What it gives is its own to renew.
    case .embeddedCA, .workloadAPI: break
    }
    for source in trustBundles {
      switch source {
      case .domain(let domain):
        files += [domain.file?.path, domain.revocationLists].compactMap(\.self)
      case .directory(let path): files += BundleFiles.watchedFiles(directory: path)
      case .bundleMap(let path): files.append(path)
      case .workloadAPI: break
      }
    }
    return files
  }

  /// The first setting that differs from `running` and takes effect at start only.
  func firstChangeThatNeedsRestart(from running: Settings) -> String? {
    if listeners != running.listeners { return "listeners" }
    if workers != running.workers { return "workers" }
    if dataPlane.kernelTLS != running.dataPlane.kernelTLS { return "dataPlane.kernelTLS" }
    if adminSocket != running.adminSocket { return "admin.socket" }
    if !identity.isSameSource(as: running.identity) { return "workload.identity" }
    if discovery.announce != running.discovery.announce { return "discovery.announce" }
    if let pins = outbound.pins, let current = running.outbound.pins, pins.file != current.file {
      return "outbound.pins.file"
    }
    if bundleEndpoint != running.bundleEndpoint { return "workload.bundleEndpoint" }
    if interception.mark != running.interception.mark { return "interception.mark" }
    return nil
  }
}

extension IdentitySource {
  /// Whether a reload can go from one to the other: files may change their paths.
  func isSameSource(as other: IdentitySource) -> Bool {
    if case .files = self, case .files = other { return true }
    return self == other
  }
}
