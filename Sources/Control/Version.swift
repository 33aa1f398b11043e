/// The version all three programs report.
package enum Culvert {
  package static let version = "0.1.0"
}
