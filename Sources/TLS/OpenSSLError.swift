internal import COpenSSL

/// OpenSSL's per-thread error queue.
enum OpenSSLError {
  /// The newest error's reason as text, empty when there is none. Leaves the queue empty.
  static func takeReason() -> String {
    let code = ERR_peek_last_error()
    ERR_clear_error()
    return reason(code)
  }

  static func reason(_ code: UInt) -> String {
    guard code != 0 else { return "" }
    guard let text = unsafe ERR_reason_error_string(code) else { return "OpenSSL error \(code)" }
    return unsafe String(cString: text)
  }

  /// The reason number within its library.
  static func reasonNumber(_ code: UInt) -> Int32 { ERR_GET_REASON(code) }
}

/// Throws what OpenSSL says when a call did not give 1.
func require(_ succeeded: Bool, _ step: String) throws(TLSSetupError) {
  guard !succeeded else { return }
  throw TLSSetupError("\(step): \(OpenSSLError.takeReason())")
}
