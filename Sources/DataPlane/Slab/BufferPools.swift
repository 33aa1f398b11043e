/// Which of two sizes of buffers.
enum BufferSize: UInt8 {
  case usual
  /// For a leg that keeps filling the usual ones.
  case large
}

/// Two pools of buffers with one space of identifiers.
@safe struct BufferPools: ~Copyable {
  /// Identifiers from here on are large buffers.
  static let firstLarge: Int32 = 0xff00
  static let usualMaximum = Int(firstLarge)
  static let largeMaximum = Int(UInt16.max) + 1 - usualMaximum

  private var usual: BufferPool
  private var large: BufferPool

  init(usual: consuming BufferPool, large: consuming BufferPool) {
    precondition(usual.limit <= Self.usualMaximum && large.limit <= Self.largeMaximum)
    self.usual = usual
    self.large = large
  }

  static func size(of identifier: Int32) -> BufferSize {
    identifier < firstLarge ? .usual : .large
  }

  func bufferBytes(_ size: BufferSize) -> Int {
    size == .usual ? usual.bufferBytes : large.bufferBytes
  }

  func bufferBytes(of identifier: Int32) -> Int { bufferBytes(Self.size(of: identifier)) }

  mutating func acquire(_ size: BufferSize = .usual) -> Int32? {
    size == .usual ? usual.acquire() : large.acquire().map { $0 + Self.firstLarge }
  }

  mutating func release(_ identifier: Int32) {
    if identifier < Self.firstLarge {
      usual.release(identifier)
    } else {
      large.release(identifier - Self.firstLarge)
    }
  }

  func memory(_ identifier: Int32) -> UnsafeMutableRawPointer {
    unsafe identifier < Self.firstLarge
      ? usual.memory(identifier) : large.memory(identifier - Self.firstLarge)
  }

  func hasFree(_ size: BufferSize) -> Bool { size == .usual ? usual.hasFree : large.hasFree }
}
