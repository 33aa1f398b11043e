extension Field {
  /// The roots of a file's YAML documents, in their order; empty documents are left out.
  package static func documents(path: String) throws(ConfigurationError) -> [Field] {
    try documents(yaml: try Settings.read(path).bytes, file: path)
  }

  /// The roots of a text's YAML documents. Pure.
  ///
  /// - Parameter file: What errors call the text.
  package static func documents(
    yaml: [UInt8], file: String
  ) throws(ConfigurationError) -> [Field] {
    do throws(Problem) {
      return try YAMLReader.readAll(yaml).map { Field(path: "", node: $0) }
    } catch {
      throw ConfigurationError(
        file: file, line: error.mark.line, column: error.mark.column, message: error.message)
    }
  }
}
