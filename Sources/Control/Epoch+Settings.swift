package import Configuration
package import DataPlane
internal import Identity
internal import Net
internal import Policy
internal import TLS

/// Why a configuration cannot be taken; one line for people.
package struct LoadError: Error, Sendable, CustomStringConvertible {
  package let description: String
}

extension NamespaceEpoch {
  /// Reads everything a configuration names. All of it is valid, or it throws and nothing changes.
  package static func load(
    _ settings: Settings, number: UInt64
  ) throws(LoadError) -> NamespaceEpoch {
    let identity: IdentityMaterial
    do throws(IdentityError) {
      identity = try IdentityMaterial.load(
        certificate: settings.identity.certificate, privateKey: settings.identity.privateKey,
        bundles: settings.trustBundles.map { ($0.trustDomain, $0.pem) })
    } catch {
      throw LoadError(description: error.description)
    }
    do throws(TLSSetupError) {
      _ = try TLSContext(identity)
    } catch {
      throw LoadError(description: "OpenSSL: \(error)")
    }
    return NamespaceEpoch(
      number: number, identity: .ready(identity), connectionLifetime: .unlimited,
      inbound: settings.inbound, outbound: settings.outbound,
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
  /// Reads a file and everything it names.
  package static func loadAll(
    path: String, number: UInt64
  ) throws(LoadError) -> (Settings, NamespaceEpoch) {
    let settings = try loadText(path: path)
    return (settings, try NamespaceEpoch.load(settings, number: number))
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
    [configuration, identity.certificate, identity.privateKey] + trustBundles.map(\.pem)
  }

  /// The first setting that differs from `running` and takes effect at start only.
  func firstChangeThatNeedsRestart(from running: Settings) -> String? {
    if listeners != running.listeners { return "listeners" }
    if workers != running.workers { return "workers" }
    if dataPlane.kernelTLS != running.dataPlane.kernelTLS { return "dataPlane.kernelTLS" }
    if adminSocket != running.adminSocket { return "admin.socket" }
    if interception.mark != running.interception.mark { return "interception.mark" }
    return nil
  }
}
