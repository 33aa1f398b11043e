internal import Configuration
internal import Net
internal import Policy
internal import TLS

/// What a configuration's policy needs from other files.
struct LoadedPolicy {
  /// With the peers of the file.
  let outbound: OutboundPolicy
  /// For the rules that originate TLS, by their index.
  let originations: [Int: OriginationMaterial]

  /// Reads everything, or throws.
  init(_ settings: Settings) throws(LoadError) {
    var outbound = settings.outbound
    if let path = settings.peersFile {
      do throws(ConfigurationError) {
        outbound.peers = PeerTable(settings.peers + (try PeersFile.load(path: path, for: settings)))
      } catch {
        throw LoadError(description: error.description)
      }
    }
    self.outbound = outbound
    var originations: [Int: OriginationMaterial] = [:]
    do throws(IdentityError) {
      // One store of the system's authorities for all rules.
      var system: OriginationAuthorities?
      for (index, rule) in outbound.rules.enumerated() {
        guard let origination = rule.origination else { continue }
        let authorities: OriginationAuthorities
        if let path = origination.authorities {
          authorities = try OriginationAuthorities.file(path)
        } else if let system {
          authorities = system
        } else {
          authorities = try OriginationAuthorities.system
          system = authorities
        }
        originations[index] = try OriginationMaterial(
          serverName: origination.serverName, authorities: authorities,
          credential: try Self.keyPair(origination.credential))
      }
    } catch {
      throw LoadError(description: error.description)
    }
    self.originations = originations
  }

  private static func keyPair(
    _ credential: TLSOrigination.Credential?
  ) throws(IdentityError) -> KeyPair? {
    guard let credential else { return nil }
    return try KeyPair(
      certificate: credential.certificate, privateKey: credential.privateKey)
  }
}

extension Settings {
  /// Files that the policy names, besides the configuration itself.
  var policyFiles: [String] {
    let originations = outbound.rules.compactMap(\.origination)
    return [peersFile].compactMap(\.self) + originations.compactMap(\.authorities)
      + originations.compactMap(\.credential).flatMap { [$0.certificate, $0.privateKey] }
  }
}
