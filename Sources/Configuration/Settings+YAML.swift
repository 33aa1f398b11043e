extension Settings {
  /// Reads and validates a configuration file.
  package static func load(path: String) throws(ConfigurationError) -> Settings {
    throw ConfigurationError(file: path, message: "unreadable")
  }
}
