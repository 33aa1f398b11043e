package import Identity
package import Net
package import TLS

/// How a bundle endpoint proves itself (SPIFFE Federation §5.2).
package enum EndpointProfile: Hashable, Sendable {
  /// By a certificate of the Web PKI for the URL's host.
  case httpsWeb
  /// By an X509-SVID of exactly this ID.
  case httpsSPIFFE(endpointID: SPIFFEID)
}

/// One look at a bundle endpoint.
///
/// Everything is configured and nothing inferred (SPIFFE Federation §5.1, §7.2): whose bundle it is
/// neither URL nor answer say, so that stays with whoever asks.
package struct BundleRequest: Sendable {
  /// Of one fetch. None is remembered for the next (SPIFFE Federation §5.2.1.4).
  package static let maximumRedirects = 5

  package let url: HTTPSURL
  package let profile: EndpointProfile
  /// For `https_spiffe`: the newest bundle of the trust domain of the endpoint's ID.
  package let endpointBundle: TrustBundle?
  /// SO_MARK of the socket; 0 for none.
  package let mark: UInt32
  /// For everything together, but resolving a name.
  package let timeoutMilliseconds: Int

  package init(
    url: HTTPSURL, profile: EndpointProfile, endpointBundle: TrustBundle?, mark: UInt32,
    timeoutMilliseconds: Int
  ) {
    self.url = url
    self.profile = profile
    self.endpointBundle = endpointBundle
    self.mark = mark
    self.timeoutMilliseconds = timeoutMilliseconds
  }

  /// Fetches the bundle. Waits for it, so it needs a thread of its own, on which SIGPIPE must be
  /// ignored or blocked.
  package func fetch() throws(BundleFetchError) -> SPIFFEBundle {
    let deadline = Deadline(afterMilliseconds: timeoutMilliseconds)
    var target = url
    for _ in 0...Self.maximumRedirects {
      let exchange = HTTPSExchange(
        url: target, server: try server(at: target), mark: mark,
        maximumBodyBytes: SPIFFEBundle.maximumDocumentBytes, deadline: deadline)
      let response = try exchange.run()
      switch response.status {
      case 200: return try Self.bundle(response.body)
      case 301, 302, 303, 307, 308: target = try Self.redirect(from: target, response.locations)
      default: throw BundleFetchError(.httpStatus, "\(response.status) from \(target)")
      }
    }
    throw BundleFetchError(.tooManyRedirects, "more than \(Self.maximumRedirects)")
  }

  /// What the server at a URL, the configured one or where a redirect leads, has to prove: under
  /// `https_spiffe` always the same ID.
  private func server(at url: HTTPSURL) throws(BundleFetchError) -> HTTPSServer {
    switch profile {
    case .httpsWeb: return .web(url)
    case .httpsSPIFFE(let id):
      guard let endpointBundle, endpointBundle.trustDomain == id.trustDomain else {
        throw BundleFetchError(
          .certificateRefused, "\(PeerRefusal.unknownTrustDomain.rawValue): no bundle for \(id)")
      }
      return .workload(id, endpointBundle)
    }
  }

  private static func redirect(
    from url: HTTPSURL, _ locations: [String]
  ) throws(BundleFetchError) -> HTTPSURL {
    guard locations.count == 1 else {
      throw BundleFetchError(.redirectRefused, "\(locations.count) Location fields from \(url)")
    }
    do throws(HTTPSURLError) {
      return try url.resolve(location: locations[0])
    } catch {
      throw BundleFetchError(.redirectRefused, "\(error.rawValue), from \(url)")
    }
  }

  private static func bundle(_ body: [UInt8]) throws(BundleFetchError) -> SPIFFEBundle {
    do throws(SPIFFEBundleError) {
      return try SPIFFEBundle(jwks: body)
    } catch {
      throw BundleFetchError(.malformedBundle, error.description)
    }
  }
}
