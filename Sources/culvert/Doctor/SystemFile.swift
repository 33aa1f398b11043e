internal import CLinux

/// Small files of /proc.
enum SystemFile {
  private static let maximumBytes = 64 * 1024

  /// The whole text, or nil if it cannot be read.
  static func text(_ path: String) -> String? {
    let descriptor = unsafe culvert_open(path, O_RDONLY | O_CLOEXEC, 0)
    guard descriptor >= 0 else { return nil }
    defer { _ = close(descriptor) }
    var bytes = [UInt8](repeating: 0, count: maximumBytes)
    let count = unsafe read(descriptor, &bytes, bytes.count)
    guard count >= 0 else { return nil }
    return String(decoding: bytes[..<count], as: UTF8.self)
  }

  /// The numbers in it, separated by white space; nil if there is anything else.
  static func integers(_ path: String) -> [Int]? {
    guard let words = text(path)?.split(whereSeparator: \.isWhitespace) else { return nil }
    let numbers = words.compactMap { Int($0) }
    return numbers.count == words.count ? numbers : nil
  }

  static func integer(_ path: String) -> Int? {
    guard let numbers = integers(path), numbers.count == 1 else { return nil }
    return numbers[0]
  }

  /// The value behind `NAME:`, as in /proc/self/status.
  static func field(_ name: String, of path: String) -> String? {
    guard let lines = text(path)?.split(separator: "\n") else { return nil }
    guard let line = lines.first(where: { $0.hasPrefix("\(name):") }) else { return nil }
    return line.dropFirst(name.count + 1).split(whereSeparator: \.isWhitespace).first
      .map(String.init)
  }
}
