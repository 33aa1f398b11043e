import Telemetry
import Testing

@Suite struct `An exposition` {
  private func text(_ write: (inout Exposition) -> Void) -> String {
    var exposition = Exposition()
    write(&exposition)
    return exposition.finished
  }

  @Test func `says what a family is, then its samples`() {
    let text = text {
      $0.counter("a_total", "What it counts.", [(["b": "1"], 2), (["b": "2"], .max)])
    }
    #expect(
      text == """
        # HELP a_total What it counts.
        # TYPE a_total counter
        a_total{b="1"} 2
        a_total{b="2"} 18446744073709551615

        """)
  }

  @Test func `keeps the order of families, and sorts labels`() {
    let text = text {
      $0.gauge("b", "B.", [([:], 1)])
      $0.gauge("a", "A.", [(["z": "1", "y": "2"], 1)])
    }
    #expect(
      text == """
        # HELP b B.
        # TYPE b gauge
        b 1
        # HELP a A.
        # TYPE a gauge
        a{y="2",z="1"} 1

        """)
  }

  @Test func `leaves out a family without samples`() {
    let text = text { $0.gauge("a", "A.", []) }
    #expect(text == "")
  }

  @Test(arguments: [
    (0, "0"), (-0.5, "-0.5"), (83_400, "83400"), (-90, "-90"), (0.25, "0.25"),
    (1e14, "100000000000000"),
    (1e20, "1e+20"), (.infinity, "inf"), (-.infinity, "-inf"), (.nan, "nan"),
  ])
  func `writes numbers as Prometheus reads them`(value: Double, words: String) {
    let text = text { $0.gauge("a", "A.", [([:], value)]) }
    #expect(text.hasSuffix("\na \(words)\n"))
  }

  @Test(arguments: [
    ("plain", "plain"), ("", ""), ("a\"b", #"a\"b"#), (#"a\b"#, #"a\\b"#), ("a\nb", #"a\nb"#),
    (#"\n"#, #"\\n"#), ("a,b}{=", "a,b}{="), ("\u{e9}\u{1f600}", "\u{e9}\u{1f600}"),
  ])
  func `escapes the values of labels`(value: String, escaped: String) {
    let text = text { $0.gauge("a", "A.", [(["b": value], 1)]) }
    #expect(text.hasSuffix("\na{b=\"\(escaped)\"} 1\n"))
  }
}
