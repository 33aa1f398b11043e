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

  /// Whether an error is the one of that number in that library; each library counts its own.
  static func isReason(_ code: UInt, _ library: Int32, _ number: Int32) -> Bool {
    ERR_GET_LIB(code) == library && ERR_GET_REASON(code) == number
  }
}

/// Throws what OpenSSL says when a call did not give 1.
func require(_ succeeded: Bool, _ step: String) throws(TLSSetupError) {
  guard !succeeded else { return }
  throw TLSSetupError("\(step): \(OpenSSLError.takeReason())")
}
