import AllocationCounter
import Foundation

/// Counts the allocations of the one thread that follows it.
@safe final class AllocationCount: @unchecked Sendable {
  private let counter: OpaquePointer

  /// A sanitizer has its own allocator.
  static let isPossible = {
    guard let counter = unsafe culvert_allocation_counter_make() else { return false }
    unsafe culvert_allocation_counter_free(counter)
    return true
  }()

  init() { unsafe counter = culvert_allocation_counter_make()! }

  deinit { unsafe culvert_allocation_counter_free(counter) }

  /// The calling thread is followed while the body runs.
  func follow(_ body: () -> Void) {
    unsafe culvert_allocation_counter_follow(counter)
    body()
    culvert_allocation_counter_follow(nil)
  }

  func start() { unsafe culvert_allocation_counter_set(counter, 1) }

  /// Allocations since the start.
  func stop() -> Int {
    unsafe culvert_allocation_counter_set(counter, 0)
    return unsafe culvert_allocation_counter_count(counter)
  }

  /// Bytes taken since the start and not given back, the allocator's own included.
  var bytes: Int { unsafe culvert_allocation_counter_bytes(counter) }

  /// Where the first ones were made, on the standard error.
  func printPlaces() { unsafe culvert_allocation_counter_print(counter, STDERR_FILENO) }
}
