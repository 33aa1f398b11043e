internal import CLinux

/// What a message to or from a kTLS socket is described by: one for each direction of a connection
/// that has one, at a fixed address from the operation's start to its completion.
@safe struct KernelMessage {
  private let pointer: UnsafeMutablePointer<culvert_tls_message>

  init() {
    unsafe pointer = .allocate(capacity: 1)
    unsafe pointer.initialize(to: culvert_tls_message())
  }

  func deallocate() { unsafe pointer.deallocate() }

  /// For the system calls.
  var header: UnsafeMutablePointer<msghdr> {
    unsafe UnsafeMutableRawPointer(pointer).assumingMemoryBound(to: msghdr.self)
  }

  /// - Parameter memory: nil where the kernel chooses the buffer.
  func prepareToReceive(_ memory: UnsafeMutableRawPointer?, _ count: Int) {
    unsafe culvert_tls_message_set(pointer, memory, count)
  }

  /// - Parameter type: nil for application data.
  func prepareToSend(_ bytes: UnsafeMutableRawBufferPointer, type: UInt8?) {
    unsafe culvert_tls_message_set(pointer, bytes.baseAddress, bytes.count)
    if let type {
      unsafe culvert_tls_message_set_type(pointer, type)
    } else {
      unsafe pointer.pointee.header.msg_controllen = 0
    }
  }

  /// The type of the records that were received; 0 if the kernel told none.
  var receivedType: UInt8 { unsafe culvert_tls_message_type(pointer) }
}
