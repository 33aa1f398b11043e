internal import CHTTP2
internal import CLinux
internal import CWorkloadAPI

/// Allocation for C libraries that hold a key in passing: everything is cleansed before it is freed.
///
/// The user data is nil, or points to the number of bytes that may still be allocated.
enum CleansingAllocator {
  static func allocate(_ size: Int, _ budget: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer?
  {
    let budget = unsafe budget?.assumingMemoryBound(to: Int.self)
    if let budget = unsafe budget, unsafe budget.pointee < size { return nil }
    let memory = unsafe malloc(size)
    if let budget = unsafe budget { unsafe budget.pointee -= malloc_usable_size(memory) }
    return unsafe memory
  }

  static func free(_ memory: UnsafeMutableRawPointer?, _ budget: UnsafeMutableRawPointer?) {
    guard let memory = unsafe memory else { return }
    let size = unsafe malloc_usable_size(memory)
    unsafe budget?.assumingMemoryBound(to: Int.self).pointee += size
    unsafe explicit_bzero(memory, size)
    unsafe CLinux.free(memory)
  }

  static func reallocate(
    _ memory: UnsafeMutableRawPointer?, _ size: Int, _ budget: UnsafeMutableRawPointer?
  ) -> UnsafeMutableRawPointer? {
    let new = unsafe allocate(size, budget)
    guard let new = unsafe new, let memory = unsafe memory else { return unsafe new }
    unsafe new.copyMemory(from: memory, byteCount: min(size, malloc_usable_size(memory)))
    unsafe free(memory, budget)
    return unsafe new
  }

  /// For nghttp2, which bounds its own memory.
  static func forHTTP2() -> nghttp2_mem {
    unsafe nghttp2_mem(
      mem_user_data: nil,
      malloc: { size, budget in unsafe CleansingAllocator.allocate(size, budget) },
      free: { memory, budget in unsafe CleansingAllocator.free(memory, budget) },
      calloc: { count, size, budget in
        let (bytes, overflow) = count.multipliedReportingOverflow(by: size)
        guard !overflow, let memory = unsafe CleansingAllocator.allocate(bytes, budget) else {
          return nil
        }
        unsafe memset(memory, 0, bytes)
        return unsafe memory
      },
      realloc: { memory, size, budget in
        unsafe CleansingAllocator.reallocate(memory, size, budget)
      })
  }

  /// For protobuf-c, with a budget that lives at least as long as what is allocated.
  static func forProtobuf(budget: UnsafeMutablePointer<Int>) -> ProtobufCAllocator {
    unsafe ProtobufCAllocator(
      alloc: { budget, size in unsafe CleansingAllocator.allocate(size, budget) },
      free: { budget, memory in unsafe CleansingAllocator.free(memory, budget) },
      allocator_data: UnsafeMutableRawPointer(budget))
  }
}
