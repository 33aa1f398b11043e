/// Why a bundle was not fetched.
package struct BundleFetchError: Error, Hashable, Sendable, CustomStringConvertible {
  /// In the order of the steps; the raw value is the word in logs and metrics.
  package enum Reason: String, Hashable, Sendable, CaseIterable {
    case dnsFailed = "dns_failed"
    case connectFailed = "connect_failed"
    case tlsFailed = "tls_failed"
    case certificateRefused = "certificate_refused"
    case httpStatus = "http_status"
    case redirectRefused = "redirect_refused"
    case tooManyRedirects = "too_many_redirects"
    case bodyTooLarge = "body_too_large"
    case malformedResponse = "malformed_response"
    case malformedBundle = "malformed_bundle"
    case timedOut = "timed_out"
  }

  package let reason: Reason
  /// For people, on one line.
  package let detail: String

  package init(_ reason: Reason, _ detail: String) {
    self.reason = reason
    self.detail = detail
  }

  package var description: String { "\(reason.rawValue): \(detail)" }
}
