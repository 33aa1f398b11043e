internal import Glibc

/// Reading and writing small files whole.
package enum RegularFile {
  /// A regular file's bytes.
  ///
  /// - Throws: EFBIG if there are more than `maximumBytes`, EISDIR or EINVAL if it is something
  ///   else than a regular file. A FIFO is not waited for.
  package static func contents(_ path: String, maximumBytes: Int) throws(Errno) -> [UInt8] {
    let flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK
    let file = Descriptor(owning: try Errno.check { unsafe Glibc.open(path, flags) })
    var status = stat()
    try Errno.check { unsafe fstat(file.number, &status) }
    guard status.st_mode & S_IFMT != S_IFDIR else { throw Errno(EISDIR) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw Errno(EINVAL) }
    // One more than allowed, to see that there is more: the size may change while it is read.
    let capacity = maximumBytes + 1
    var bytes = [UInt8](repeating: 0, count: min(capacity, max(Int(status.st_size) + 1, 4096)))
    var count = 0
    while true {
      if count == bytes.count {
        guard bytes.count < capacity else { throw Errno(EFBIG) }
        bytes.append(contentsOf: repeatElement(0, count: min(bytes.count, capacity - bytes.count)))
      }
      let number = file.number
      let received = try Errno.check {
        unsafe bytes.withUnsafeMutableBytes { buffer in
          unsafe read(number, buffer.baseAddress?.advanced(by: count), buffer.count - count)
        }
      }
      if received == 0 { break }
      count += received
    }
    guard count <= maximumBytes else { throw Errno(EFBIG) }
    return Array(bytes[..<count])
  }

  /// Writes a whole file so that a reader sees the old one or the new one, never a part.
  ///
  /// - Throws: EEXIST if there is one and it is not to be replaced.
  package static func write(
    _ bytes: UnsafeRawBufferPointer, to path: String, mode: UInt32, replacing: Bool
  ) throws(Errno) {
    let temporary = path + ".\(getpid()).new"
    // What an earlier process of the same number left behind when it was killed.
    _ = unsafe unlink(temporary)
    let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW
    let file = Descriptor(owning: try Errno.check { unsafe Glibc.open(temporary, flags, mode) })
    do throws(Errno) {
      // The umask may have taken bits away that a reader needs.
      try Errno.check { fchmod(file.number, mode) }
      var start = 0
      while start < bytes.count {
        start += try Errno.check {
          unsafe Glibc.write(
            file.number, bytes.baseAddress.map { unsafe $0 + start }, bytes.count - start)
        }
      }
      try Errno.check { fsync(file.number) }
      // link(2) fails if the name is taken, rename(2) replaces it.
      try Errno.check { unsafe replacing ? rename(temporary, path) : link(temporary, path) }
      if !replacing { _ = unsafe unlink(temporary) }
    } catch {
      _ = unsafe unlink(temporary)
      throw error
    }
  }
}
