internal import Glibc
internal import Net

extension Settings {
  /// The largest configuration file, in bytes.
  package static let maximumFileBytes = YAMLReader.maximumBytes

  /// Reads and validates a configuration file. The files it names are not opened.
  package static func load(path: String) throws(ConfigurationError) -> Settings {
    let bytes: [UInt8]
    let directory: String
    do throws(Errno) {
      bytes = try contents(of: path)
      directory = try absoluteDirectory(of: path)
    } catch {
      throw ConfigurationError(file: path, message: "cannot be read: \(error)")
    }
    return try parse(yaml: bytes, file: path, directory: directory)
  }

  /// Validates a configuration text. Pure.
  ///
  /// - Parameters:
  ///   - yaml: UTF-8, at most `maximumFileBytes`.
  ///   - file: What errors call the text.
  ///   - directory: The absolute path against which relative paths are resolved.
  package static func parse(
    yaml: [UInt8], file: String, directory: String
  ) throws(ConfigurationError) -> Settings {
    do throws(Problem) {
      let root = Field(path: "", node: try YAMLReader.read(yaml))
      return try Settings(root, directory: directory)
    } catch {
      throw ConfigurationError(
        file: file, line: error.mark.line, column: error.mark.column, message: error.message)
    }
  }

  /// A regular file's bytes; at most one more than `maximumFileBytes`, which is then too many.
  static func contents(of path: String) throws(Errno) -> [UInt8] {
    // Opening a FIFO must not block.
    let flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK
    let file = Descriptor(owning: try Errno.check { unsafe Glibc.open(path, flags) })
    var status = stat()
    try Errno.check { unsafe fstat(file.number, &status) }
    guard status.st_mode & S_IFMT != S_IFDIR else { throw Errno(EISDIR) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw Errno(EINVAL) }

    let capacity = maximumFileBytes + 1
    var bytes = [UInt8](repeating: 0, count: capacity)
    var count = 0
    while count < capacity {
      let received = try Errno.check {
        unsafe bytes.withUnsafeMutableBytes { buffer in
          unsafe read(file.number, buffer.baseAddress?.advanced(by: count), capacity - count)
        }
      }
      if received == 0 { break }
      count += received
    }
    return Array(bytes[..<count])
  }

  /// The directory part of a path. Symbolic links stay: files that are swapped by swapping a link
  /// to their directory must be found again under the same path.
  static func absoluteDirectory(of path: String) throws(Errno) -> String {
    let slash = path.lastIndex(of: "/")
    let directory = slash.map { String(path[...$0]) } ?? ""
    if directory.hasPrefix("/") { return directory }
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let current = unsafe buffer.withUnsafeMutableBufferPointer { buffer -> String? in
      guard let base = unsafe getcwd(buffer.baseAddress, buffer.count) else { return nil }
      return unsafe String(cString: base)
    }
    guard let current else { throw Errno.current }
    return directory.isEmpty ? current : "\(current)/\(directory)"
  }
}
