internal import ArgumentParser
internal import Configuration
internal import Identity

struct PolicyImportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import",
    abstract: "Turn policies of Istio or SMI into configuration for one workload.",
    discussion: """
      Reads Kubernetes objects from YAML files (several documents and lists as well) and prints the \
      sections inbound and authorization of a culvert-proxy configuration, for the workload that the \
      options describe. Imported are PeerAuthentication and AuthorizationPolicy \
      (security.istio.io/v1, v1beta1; addresses, identities and ports), TrafficTarget \
      (access.smi-spec.io/v1alpha1 to v1alpha3) and TCPRoute (specs.smi-spec.io).

      What cannot be said exactly is refused with its place, and nothing is printed. With \
      --skip-unsupported an ALLOW rule that cannot be said is left out whole, so that less is \
      allowed, and named in a comment and on standard error; a DENY that cannot be said is refused \
      even then.

      Exit codes: 0 the configuration is printed; 1 something was refused; 64 wrong usage.

      EXAMPLES
        kubectl get peerauthentication,authorizationpolicy -A -o yaml > istio.yaml
        culvert policy import --namespace shop --labels app=db,version=v1 istio.yaml
        culvert policy import --namespace shop --labels app=db --trust-domain demo.mesh istio.yaml
        culvert policy import --namespace shop --service-account db smi.yaml
      """)

  /// Of one run.
  static let filesMaximum = 256
  /// Refusals that are printed one by one.
  static let shownMaximum = 100

  @Option(help: "The workload's Kubernetes namespace.")
  var namespace: String

  @Option(help: ArgumentHelp("The workload's labels; \"\" for none.", valueName: "key=value,…"))
  var labels: String?

  @Option(help: "The workload's service account (needed for SMI).")
  var serviceAccount: String?

  @Option(help: "Istio's root namespace.")
  var rootNamespace = "istio-system"

  @Option(help: "The mesh's trust domain, for which cluster.local stands.")
  var trustDomain = "cluster.local"

  @Flag(help: "Leave out what cannot be said, where that allows less and not more.")
  var skipUnsupported = false

  @Argument(help: ArgumentHelp("YAML files with Kubernetes objects.", valueName: "file"))
  var files: [String]

  func validate() throws {
    guard files.count <= Self.filesMaximum else {
      throw ValidationError("more than \(Self.filesMaximum) files")
    }
    _ = try workload()
  }

  func run() throws {
    var objects: [KubernetesObject] = []
    do throws(ConfigurationError) {
      for file in files { objects += try KubernetesObject.read(file) }
    } catch {
      Output.fail(error.description)
      throw ExitCode.failure
    }
    guard objects.count <= KubernetesObject.objectsMaximum else {
      Output.fail("more than \(KubernetesObject.objectsMaximum) objects")
      throw ExitCode.failure
    }
    let result = PolicyImport(objects, for: try workload())
    let fatal = result.refusals.filter { !skipUnsupported || $0.consequence == nil }
    guard fatal.isEmpty else {
      show(fatal.map(\.description))
      throw ExitCode.failure
    }
    if !result.refusals.isEmpty {
      show(result.refusals.map { "\($0.description); \($0.consequence ?? "")" })
      Output.fail("the result is incomplete: \(result.refusals.count) not imported")
    }
    print(result.text, terminator: "")
  }

  private func show(_ lines: [String]) {
    for line in lines.prefix(Self.shownMaximum) { Output.fail(line) }
    if lines.count > Self.shownMaximum {
      Output.fail("and \(lines.count - Self.shownMaximum) more")
    }
  }

  private func workload() throws -> ImportedWorkload {
    let domain: TrustDomain
    do throws(SPIFFEIDError) {
      domain = try TrustDomain(trustDomain)
    } catch {
      throw ValidationError("--trust-domain: \(error.rawValue)")
    }
    return ImportedWorkload(
      namespace: namespace, labels: try labels.map(Self.pairs), serviceAccount: serviceAccount,
      rootNamespace: rootNamespace, trustDomain: domain)
  }

  private static func pairs(_ text: String) throws -> [String: String] {
    var labels: [String: String] = [:]
    for item in text.split(separator: ",") {
      let parts = item.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty,
        labels.updateValue(String(parts[1]), forKey: String(parts[0])) == nil
      else { throw ValidationError("--labels is a list such as app=web,version=v1") }
    }
    return labels
  }
}
