internal import CLinux
internal import CTestSupport
internal import Foundation

/// The memory of a process, read whole as a debugger of root can.
package struct ProcessMemory: Sendable {
  /// Where something was found, for people.
  package struct Place: Sendable, CustomStringConvertible {
    package let form: String
    package let address: UInt64
    package let mapping: String

    package var description: String {
      "\(form) at \(String(address, radix: 16)) in \(mapping)"
    }
  }

  private struct Mapping: Sendable {
    let start: UInt64
    let name: String
    let bytes: [UInt8]
  }

  private let mappings: [Mapping]

  /// Reads every readable mapping; the process goes on meanwhile.
  package init(pid: Int32) throws {
    let maps = try String(contentsOfFile: "/proc/\(pid)/maps", encoding: .utf8)
    let memory = unsafe culvert_open("/proc/\(pid)/mem", O_RDONLY | O_CLOEXEC, 0)
    guard memory >= 0 else { throw Trouble("/proc/\(pid)/mem cannot be opened: errno \(errno)") }
    defer { close(memory) }
    mappings = maps.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
      let range = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
      let name = fields.count > 5 ? fields[5].trimmingCharacters(in: .whitespaces) : "anonymous"
      // The kernel's own, which nobody can read through this file.
      guard range.count == 2, fields[1].hasPrefix("r"), name != "[vvar]", name != "[vsyscall]"
      else { return nil }
      return Mapping(
        start: range[0], name: name, bytes: Self.read(memory, range[0], Int(range[1] - range[0])))
    }
    guard mappings.contains(where: { $0.name == "[heap]" && !$0.bytes.isEmpty }) else {
      throw Trouble("the heap of \(pid) cannot be read")
    }
  }

  /// What there is up to the first page that cannot be read.
  private static func read(_ memory: Int32, _ start: UInt64, _ count: Int) -> [UInt8] {
    unsafe [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
      filled = 0
      while filled < count {
        let got = unsafe pread(
          memory, buffer.baseAddress! + filled, min(count - filled, 1 << 20),
          off_t(start) + off_t(filled))
        guard got > 0 else { return }
        filled += got
      }
    }
  }

  /// Where bytes are.
  package func places(of pattern: [UInt8], _ form: String) -> [Place] {
    mappings.flatMap { mapping in
      mapping.bytes.positions(of: pattern).map {
        Place(form: form, address: mapping.start + UInt64($0), mapping: mapping.name)
      }
    }
  }

  /// Where a P-256 private key is, or half of it: as its file or message has it, and as OpenSSL
  /// calculates with it.
  package func places(of key: IssuedSVID) -> [Place] {
    let scalar = key.scalar
    let lines = key.privateKeyPEM.split(separator: "\n")
    // PKCS #8 (RFC 5958, 5915): the scalar is in octets 36 to 67, which end the first line and
    // begin the second.
    let base64 = [lines[1].suffix(16), lines[2].prefix(24)]
    return [
      places(of: Array(scalar[..<16]), "octets, first half"),
      places(of: Array(scalar[16...]), "octets, second half"),
      // Limbs, the least significant first.
      places(of: scalar[..<16].reversed(), "number, upper half"),
      places(of: scalar[16...].reversed(), "number, lower half"),
      places(of: Array(base64[0].utf8), "PEM, first line"),
      places(of: Array(base64[1].utf8), "PEM, second line"),
    ].flatMap(\.self)
  }

  /// What is around a place, as text and hexadecimal, for people; nothing of the key itself.
  package func surroundings(of place: Place, before: Int = 64) -> String {
    guard
      let mapping = mappings.first(where: {
        place.address >= $0.start && place.address < $0.start + UInt64($0.bytes.count)
      })
    else { return "" }
    let end = Int(place.address - mapping.start)
    return mapping.bytes[max(0, end - before)..<end].map { String(format: "%02x", $0) }.joined()
  }
}

extension [UInt8] {
  /// Where `pattern` begins, each time, without overlap.
  func positions(of pattern: [UInt8]) -> [Int] {
    guard !pattern.isEmpty, count >= pattern.count else { return [] }
    return unsafe withUnsafeBytes { all in
      unsafe pattern.withUnsafeBytes { wanted in
        var found: [Int] = []
        var start = 0
        while start + wanted.count <= all.count,
          let hit = unsafe culvert_test_find(
            all.baseAddress! + start, all.count - start, wanted.baseAddress!, wanted.count)
        {
          let position = unsafe all.baseAddress!.distance(to: UnsafeRawPointer(hit))
          found.append(position)
          start = position + wanted.count
        }
        return found
      }
    }
  }
}
