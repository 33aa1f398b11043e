internal import Foundation

/// Python with grpcio, spiffe and cryptography, from the virtual environment that Scripts/test
/// prepares.
package enum Python {
  static let found: String? = {
    let environment = Machine.packageDirectory + "/.build/python/bin/python3"
    let candidate = ProcessInfo.processInfo.environment["CULVERT_PYTHON"] ?? environment
    let isWhole = try? Program.run([candidate, "-c", "import grpc, spiffe, cryptography"]).succeeded
    return isWhole == true ? candidate : nil
  }()

  package static var path: String {
    get throws {
      guard let found else { throw Trouble("there is no Python with grpcio: run Scripts/test") }
      return found
    }
  }

  package static func script(_ name: String) -> String {
    Bundle.module.path(forResource: name, ofType: "py", inDirectory: "Scripts")!
  }
}
