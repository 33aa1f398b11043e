import Testing

@testable import Configuration

@Suite struct `A text of several YAML documents` {
  private func documents(_ text: String) throws(ConfigurationError) -> [Field] {
    try Field.documents(yaml: Array(text.utf8), file: "x.yaml")
  }

  @Test(arguments: [
    ("", 0), ("# nothing\n", 0), ("---\n---\n", 0), ("a: 1", 1), ("a: 1\n---\nb: 2\n", 2),
    ("---\na: 1\n---\n# nothing\n---\nb: 2\n...\n", 2), ("~\n---\na: 1\n---\nnull\n", 1),
  ])
  func `is read whole, but for empty ones`(text: String, count: Int) throws {
    #expect(try documents(text).count == count)
  }

  @Test func `keeps the place of every value`() throws {
    let second = try documents("a: 1\n---\nb:\n  c: 2\n")[1]
    let value = try #require(try second.fields(["b"])["b"]?.fields(["c"])["c"])
    #expect(value.path == "b.c")
    #expect(value.mark == YAMLMark(line: 4, column: 6))
  }

  @Test func `has the limits of one document, all together`() throws {
    let half = Array(repeating: "- a\n", count: YAMLReader.maximumNodes / 2 - 10).joined()
    #expect(try documents(half + "---\n" + half).count == 2)
    let many = half + "---\n" + half + "---\n" + String(repeating: "- a\n", count: 20)
    let error = #expect(throws: ConfigurationError.self) { try documents(many) }
    #expect(error?.message == "more than 100000 values")
  }

  @Test(arguments: [
    ("a: 1\n---\nb: [", "x.yaml:4:1: not valid YAML"),
    ("a: 1\n---\n&x b: 1", "x.yaml:3:1: anchors are not supported"),
    ("a: 1\n---\nb: 1\nb: 2", "x.yaml:4:1: \"b\" is given twice"),
  ])
  func `is refused for what is wrong in any`(text: String, words: String) {
    let error = #expect(throws: ConfigurationError.self) { try documents(text) }
    #expect(error?.description.contains(words) == true, "\(String(describing: error))")
  }
}
