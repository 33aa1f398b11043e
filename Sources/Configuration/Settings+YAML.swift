internal import Glibc
internal import Net

extension Settings {
  /// The largest configuration file, in bytes.
  package static let maximumFileBytes = YAMLReader.maximumBytes

  /// Reads and validates a configuration file. The files it names are not opened.
  package static func load(path: String) throws(ConfigurationError) -> Settings {
    let (bytes, directory) = try read(path)
    return try parse(yaml: bytes, file: path, directory: directory)
  }

  /// A file's text, and the directory against which its paths are resolved.
  static func read(
    _ path: String
  ) throws(ConfigurationError) -> (bytes: [UInt8], directory: String) {
    do throws(Errno) {
      return (
        try RegularFile.contents(path, maximumBytes: maximumFileBytes),
        try absoluteDirectory(of: path)
      )
    } catch Errno(EFBIG) {
      throw ConfigurationError(
        file: path, line: 1, column: 1,
        message: "the file is larger than \(maximumFileBytes) bytes")
    } catch {
      throw ConfigurationError(file: path, message: "cannot be read: \(error)")
    }
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

  /// The directory part of a path. Symbolic links stay: files that are swapped by swapping a link
  /// to their directory must be found again under the same path.
  private static func absoluteDirectory(of path: String) throws(Errno) -> String {
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
