import ArgumentParser
import DataPlane
import Sniff
import TLS

/// Times what the proxy does to every byte or every connection itself.
@main struct MicroBench: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "culvert-microbench",
    abstract: "Times sniffing, authorization, handshakes, sealing and opening on one thread.",
    discussion: """
      Shown are the median and, in brackets, the fastest and slowest of several batches.

      EXAMPLES:
        Scripts/bench --micro
        Scripts/bench --micro --json
        Scripts/bench --micro --handshakes --milliseconds 500
      """)

  @Flag(help: "Print one JSON object.") var json = false
  @Flag(help: "Time the handshakes only.") var handshakes = false
  @Option(help: "Batches of each figure, 1 to 1000.") var batches = 15
  @Option(help: "Milliseconds of each batch, 1 to 10000.") var milliseconds = 40

  func validate() throws {
    guard (1...1000).contains(batches) else { throw ValidationError("--batches: 1 to 1000") }
    guard (1...10_000).contains(milliseconds) else {
      throw ValidationError("--milliseconds: 1 to 10000")
    }
  }

  mutating func run() throws {
    let timing = Timing(batches: batches, batchNanoseconds: UInt64(milliseconds) * 1_000_000)
    var figures = [
      try timing.handshake(resumes: false), try timing.handshake(resumes: true),
    ]
    if !handshakes { figures = try bytes(timing) + judgements(timing) + figures }
    print(json ? Figure.json(figures) : Figure.table(figures))
  }

  private func judgements(_ timing: Timing) throws -> [Figure] {
    var figures: [Figure] = []
    for ruleKind in RuleKind.allCases {
      for count in [10, 1000, 10_000] { figures.append(try timing.judge(ruleKind, count)) }
    }
    return figures
  }

  private func bytes(_ timing: Timing) throws -> [Figure] {
    var figures: [Figure] = []
    for hello in [ClientHelloBytes(keyShareBytes: 32), ClientHelloBytes(keyShareBytes: 1216)] {
      figures.append(timing.sniff(hello))
    }
    for suite in CipherSuite.allCases {
      for count in [64, 1024, 16_384] {
        for keys in [1, 2] {
          figures += try timing.protect(suite, count, keys: keys)
        }
      }
    }
    return figures
  }
}
