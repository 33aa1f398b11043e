internal import CLinux
internal import DataPlane
internal import FoundationEssentials
internal import Net
internal import Policy
internal import Telemetry

/// The file that keeps pins across restarts: one JSON object, replaced as a whole.
struct PinsFile {
  static let maximumBytes = 4 << 20
  /// Where a configuration does not say.
  static let defaultDirectory = "/var/lib/culvert"
  /// The year 9999.
  private static let latestSeconds: Int64 = 253_402_300_799
  private static let writeIntervalMilliseconds: Int64 = 1000

  private struct Content: Codable {
    struct Entry: Codable {
      var address: String
      var port: UInt16
      /// Of a link-local address, the interface.
      var scope: UInt32?
      /// Unix time, in seconds.
      var until: Int64
    }

    var version = 1
    var pins: [Entry]
  }

  let path: String
  private var writtenVersion: UInt64 = 0
  private var writeAt: Int64 = 0
  private var hasComplained = false

  init(_ settings: PinSettings, configuration: String) {
    path = settings.file ?? "\(Self.defaultDirectory)/\(Self.name(of: configuration)).pins"
  }

  /// `etc-culvert-web.yaml` of `/etc/culvert/web.yaml`: two proxies of one machine never share a
  /// file.
  private static func name(of configuration: String) -> String {
    let path = configuration.hasPrefix("/") ? configuration : currentDirectory + configuration
    return path.split(separator: "/").filter { $0 != "." }.joined(separator: "-")
  }

  private static var currentDirectory: String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    return unsafe buffer.withUnsafeMutableBufferPointer { buffer in
      unsafe getcwd(buffer.baseAddress, buffer.count).map { unsafe String(cString: $0) + "/" } ?? ""
    }
  }

  /// What an earlier process has written. None is no pin; one that cannot be read is an error,
  /// because what was pinned would be spoken to in plaintext.
  func read() throws(LoadError) -> [Pins.Pin] {
    let bytes: [UInt8]
    do throws(Errno) {
      bytes = try RegularFile.contents(path, maximumBytes: Self.maximumBytes)
    } catch .noEntry {
      return []
    } catch {
      throw LoadError(description: "\(path): the pins cannot be read: \(error)")
    }
    guard let content = try? JSONDecoder().decode(Content.self, from: Data(bytes)),
      content.version == 1
    else { throw damaged }
    var pins: [Pins.Pin] = []
    for entry in content.pins {
      guard let address = IPAddress(entry.address), entry.port > 0,
        (0...Self.latestSeconds).contains(entry.until)
      else { throw damaged }
      pins.append(
        Pins.Pin(
          destination: SocketAddress(address, port: entry.port, scopeID: entry.scope ?? 0),
          untilSeconds: entry.until))
    }
    return pins
  }

  private var damaged: LoadError {
    LoadError(
      description: "\(path): holds no pins as culvert-proxy writes them; remove it to start "
        + "without any")
  }

  /// Writes what has changed, now and then.
  mutating func write(_ pins: Pins, now: Int64, atOnce: Bool = false) {
    let version = pins.version
    guard version != writtenVersion, atOnce || now >= writeAt else { return }
    writeAt = now + Self.writeIntervalMilliseconds
    let (all, written) = pins.all(nowSeconds: Timestamp.nowMilliseconds() / 1000)
    let content = Content(
      pins: all.map {
        Content.Entry(
          address: $0.destination.address.description, port: $0.destination.port,
          scope: $0.destination.scopeID == 0 ? nil : $0.destination.scopeID,
          until: $0.untilSeconds)
      })
    guard let data = try? JSONEncoder().encode(content) else { return }
    do throws(Errno) {
      if path.hasPrefix(Self.defaultDirectory + "/") {
        _ = unsafe mkdir(Self.defaultDirectory, 0o700)
      }
      let (bytes, path) = (Array(data), path)
      try unsafe bytes.withUnsafeBufferPointer { bytes throws(Errno) in
        unsafe try RegularFile.write(
          UnsafeRawBufferPointer(bytes), to: path, mode: 0o600, replacing: true)
      }
      writtenVersion = written
      hasComplained = false
    } catch {
      if !hasComplained {
        Diagnostics.write("\(path): the pins cannot be written and end with this process: \(error)")
      }
      hasComplained = true
    }
  }

  /// When `write` has something to do, in milliseconds from now; nil if it has not.
  func waitMilliseconds(_ pins: Pins, now: Int64) -> Int64? {
    pins.version == writtenVersion ? nil : max(0, writeAt - now)
  }
}
