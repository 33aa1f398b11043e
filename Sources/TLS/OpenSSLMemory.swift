internal import CLinux
internal import COpenSSL

/// Memory of libcrypto and libssl that is cleansed when they free it.
///
/// OpenSSL cleanses what it knows to hold a key, but not the buffers its decoders copy one through
/// (ossl_read_der in providers/implementations/encode_decode/endecoder_common.c).
package enum OpenSSLMemory {
  /// To be called once, before anything else of OpenSSL: `CRYPTO_set_mem_functions(3)` refuses
  /// later.
  package static func cleanseWhatIsFreed() throws(TLSSetupError) {
    let isInForce = unsafe CRYPTO_set_mem_functions(
      { size, _, _ in unsafe malloc(size) },
      { memory, size, _, _ in unsafe OpenSSLMemory.reallocate(memory, size) },
      { memory, _, _ in unsafe OpenSSLMemory.free(memory) })
    try require(isInForce == 1, "CRYPTO_set_mem_functions")
  }

  private static func free(_ memory: UnsafeMutableRawPointer?) {
    guard let memory = unsafe memory else { return }
    unsafe explicit_bzero(memory, malloc_usable_size(memory))
    unsafe CLinux.free(memory)
  }

  private static func reallocate(
    _ memory: UnsafeMutableRawPointer?, _ size: Int
  ) -> UnsafeMutableRawPointer? {
    guard let memory = unsafe memory else { return unsafe malloc(size) }
    guard size > 0 else {
      unsafe free(memory)
      return nil
    }
    guard let new = unsafe malloc(size) else { return nil }
    unsafe new.copyMemory(from: memory, byteCount: min(size, malloc_usable_size(memory)))
    unsafe free(memory)
    return unsafe new
  }
}
