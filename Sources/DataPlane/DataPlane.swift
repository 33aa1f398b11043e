internal import CLinux
internal import Identity
package import Net
package import Policy
internal import Synchronization
package import TLS
package import Telemetry

/// What a worker thread starts from; handed over once, then used by that thread only.
final class WorkerSeed: @unchecked Sendable {
  let link: WorkerLink
  let shared: SharedState
  private var namespaces: [NamespaceState]
  private var listeners: [Listener]
  let firstID: UInt64
  let slotLimit: Int
  let backend: BackendKind
  let kernel: KernelVerdict

  init(
    link: WorkerLink, shared: SharedState, namespaces: [NamespaceState], listeners: [Listener],
    firstID: UInt64, slotLimit: Int, backend: BackendKind, kernel: KernelVerdict
  ) {
    self.link = link
    self.shared = shared
    self.namespaces = namespaces
    self.listeners = listeners
    self.firstID = firstID
    self.slotLimit = slotLimit
    self.backend = backend
    self.kernel = kernel
  }

  /// The worker must be their only owner: the first identity's private key goes with the first
  /// epoch, and the seed lives as long as the thread.
  func takeNamespaces() -> [NamespaceState] {
    defer { namespaces = [] }
    return namespaces
  }

  /// The worker must be their only owner: closing one is letting go of it.
  func takeListeners() -> [Listener] {
    defer { listeners = [] }
    return listeners
  }
}

extension DataPlane {
  /// Connections the kernel is asked to queue per listener and worker until they are accepted.
  package static var listenBacklog: Int { Int(Listener.backlog) }
}

/// How workers do input and output.
package enum BackendKind: String, Sendable {
  case ioUring = "io_uring"
  case epoll

  /// io_uring, if the kernel lets us; otherwise the error it gave.
  package static func probe() -> (kind: BackendKind, refusal: Errno?) {
    guard let error = Uring.probe() else { return (.ioUring, nil) }
    return (.epoll, error)
  }

  /// What to do about io_uring being refused with this error.
  package static func remedy(for refusal: Errno) -> String {
    switch refusal {
    case .notPermitted, .permissionDenied:
      "set the sysctl kernel.io_uring_disabled to 0, or let the container's seccomp profile allow "
        + "io_uring_setup, io_uring_enter and io_uring_register"
    case .notSupported:
      "the kernel is built without CONFIG_IO_URING, or the container's seccomp profile hides it"
    case Errno(EINVAL):
      "the kernel is older than 6.1"
    case Errno(ENOMEM):
      "raise RLIMIT_MEMLOCK or the memory limit"
    default:
      "see Docs/KERNEL.md"
    }
  }
}

/// Why the data plane did not start.
package struct DataPlaneError: Error, CustomStringConvertible {
  package let description: String
}

/// One namespace's part in starting the data plane.
package struct NamespaceSetup {
  package var epoch: NamespaceEpoch
  package var ports: ListenerPortSet
  package var mark: UInt32
  /// Whether a program is there that announces mesh in the TCP handshake.
  package var announces: Bool

  package init(
    epoch: NamespaceEpoch, ports: ListenerPortSet, mark: UInt32, announces: Bool = false
  ) {
    self.epoch = epoch
    self.ports = ports
    self.mark = mark
    self.announces = announces
  }
}

/// The workers, seen from the control thread.
package final class DataPlane {
  package let backend: BackendKind
  package let links: [WorkerLink]
  package let kernel: KernelVerdict
  /// Where the listeners are: direction by word, and address.
  package let listeners: [(direction: Direction, address: SocketAddress)]
  private let shared: SharedState
  /// What the TLS contexts of all workers have in common.
  private let tls = SharedTLSState()
  private var threads: [pthread_t] = []

  /// Binds the listeners and starts the threads; when this returns, connections are served.
  package init(
    _ namespace: NamespaceSetup, workers: Int, backend: BackendKind, kernel: KernelVerdict,
    connectionSlots: Int
  ) throws(DataPlaneError) {
    self.backend = backend
    self.kernel = kernel
    do throws(Errno) {
      shared = try SharedState()
      var links: [WorkerLink] = []
      for _ in 0..<workers { links.append(try WorkerLink()) }
      self.links = links
    } catch {
      throw DataPlaneError(description: "cannot start: \(error)")
    }
    // A connection ID: 24 random bits, so that IDs of an earlier start stay apart in a log; 10 bits
    // of worker; 30 bits that count.
    let start = UInt64.random(in: 1..<1 << 24) << 40
    var seeds: [WorkerSeed] = []
    var addresses: [(direction: Direction, address: SocketAddress)] = []
    for (index, link) in links.enumerated() {
      let listeners = try Self.listen(namespace, backend)
      if index == 0 { addresses = listeners.map { ($0.direction, $0.address) } }
      seeds.append(
        WorkerSeed(
          link: link, shared: shared, namespaces: [try Self.state(namespace, kernel, tls)],
          listeners: listeners, firstID: start | UInt64(index) << 30,
          slotLimit: connectionSlots, backend: backend, kernel: kernel))
    }
    self.listeners = addresses
    for seed in seeds { threads.append(try Self.start(seed)) }
  }

  private static func state(
    _ namespace: NamespaceSetup, _ kernel: KernelVerdict, _ tls: SharedTLSState
  ) throws(DataPlaneError) -> NamespaceState {
    let contexts = try contexts(namespace.epoch, kernel, tls)
    return NamespaceState(
      epoch: namespace.epoch, context: contexts.mesh, originations: contexts.originations,
      ownID: namespace.epoch.identity.material?.id, ports: namespace.ports, mark: namespace.mark,
      announces: namespace.announces)
  }

  /// Where the kernel is required, only what it can do for a connection's whole life is negotiated.
  private static func contexts(
    _ epoch: NamespaceEpoch, _ kernel: KernelVerdict, _ tls: SharedTLSState
  ) throws(DataPlaneError) -> WorkerContexts {
    let isRequired = epoch.records.kernelTLS == .require
    var contexts = WorkerContexts()
    do throws(TLSSetupError) {
      if let identity = epoch.identity.material {
        contexts.mesh = try TLSContext(
          identity, suites: isRequired ? kernel.sufficientSuites : CipherSuite.allCases,
          shared: tls)
      }
      for (rule, material) in epoch.originations {
        contexts.originations[rule] = Origination(
          context: try OriginationContext(material),
          takesBareEnd: epoch.outbound.rules[rule].origination?.missingCloseNotify == .end)
      }
      return contexts
    } catch {
      throw DataPlaneError(description: "OpenSSL: \(error)")
    }
  }

  /// Outbound listens on loopback only: nobody but the namespace itself may ask for a connection
  /// in its name.
  private static func listen(
    _ namespace: NamespaceSetup, _ backend: BackendKind
  ) throws(DataPlaneError) -> [Listener] {
    let ports = namespace.ports
    let wanted: [(Direction, IPAddress, UInt16)] = [
      (.outbound, .loopbackV4, ports.outbound), (.outbound, .loopbackV6, ports.outbound),
      (.inbound, .anyV4, ports.inbound), (.inbound, .anyV6, ports.inbound),
      (.mesh, .anyV4, ports.mesh), (.mesh, .anyV6, ports.mesh),
    ]
    let flags = backend == .ioUring ? Uring.socketFlags : Epoll.socketFlags
    var listeners: [Listener] = []
    for (direction, address, port) in wanted {
      let address = SocketAddress(address, port: port)
      do throws(Errno) {
        listeners.append(
          try Listener(
            direction, on: address, namespace: 0, flags: flags, mark: namespace.mark,
            announces: namespace.announces && direction == .inbound))
      } catch Errno(EAFNOSUPPORT) where address.address.family == .v6 {
        continue  // A kernel without IPv6 has no IPv6 traffic to take.
      } catch Errno.addressNotAvailable where address.address.family == .v6 {
        continue  // IPv6 is switched off in this namespace.
      } catch {
        throw DataPlaneError(
          description: "cannot listen on \(address) (\(direction.rawValue)): \(error)"
            + (error == Errno(EADDRINUSE) ? "; is another culvert-proxy running here?" : ""))
      }
    }
    return listeners
  }

  private static func start(_ seed: WorkerSeed) throws(DataPlaneError) -> pthread_t {
    var thread = pthread_t()
    let status = unsafe pthread_create(
      &thread, nil,
      { argument in
        guard let argument = unsafe argument else { return nil }
        let seed = unsafe Unmanaged<WorkerSeed>.fromOpaque(argument).takeRetainedValue()
        switch seed.backend {
        case .ioUring: DataPlane.serve(seed, Uring.self)
        case .epoll: DataPlane.serve(seed, Epoll.self)
        }
        return nil
      }, Unmanaged.passRetained(seed).toOpaque())
    guard status == 0 else {
      throw DataPlaneError(description: "cannot start a worker thread: \(Errno(status))")
    }
    return thread
  }

  private static func serve<IO: Backend & ~Copyable>(_ seed: WorkerSeed, _ backend: IO.Type) {
    do throws(DataPlaneError) {
      var worker = try Worker<IO>(seed)
      worker.run()
    } catch {
      // The probe made the same ring a moment ago, so memory has run out. Without its workers the
      // proxy must not seem to serve; the rules keep every connection from passing unprotected.
      let message = "culvert-proxy: a worker cannot start: \(error)\n"
      _ = unsafe message.withCString { unsafe write(STDERR_FILENO, $0, strlen($0)) }
      exit(1)
    }
  }

  // MARK: Orders

  /// New connections are judged by the epoch as soon as each worker has taken it, within a loop.
  /// If this throws, no worker has.
  package func install(_ epoch: NamespaceEpoch) throws(DataPlaneError) {
    var contexts: [WorkerContexts] = []
    for _ in links { contexts.append(try Self.contexts(epoch, kernel, tls)) }
    if let identity = epoch.identity.material { tls.forgetSessions(allBut: identity) }
    for (link, contexts) in zip(links, contexts) {
      link.give(.install(epoch, contexts, namespace: 0))
    }
  }

  /// The peers that were verified; after a change of trust, before the epoch that brings it, the
  /// control thread verifies them again.
  package var peers: PeerRegistry { tls.peers }

  /// Sessions end by time, too; to be called now and then.
  package func forgetEndedSessions(_ identity: IdentityMaterial) {
    tls.forgetSessions(allBut: identity)
  }

  /// Stops accepting inbound and mesh connections; outbound goes on.
  package func drain() { for link in links { link.give(.drain) } }

  /// Closes in order what is still open.
  package func finish() { for link in links { link.give(.finish) } }

  /// Closes everything and waits for the threads.
  package func stop() {
    for link in links { link.give(.stop) }
    for thread in threads { pthread_join(thread, nil) }
    threads.removeAll()
  }

  /// Ends live connections that would not be let in, or sent, now.
  package func enforce() { for link in links { link.give(.enforce) } }

  package var records: RecordQueue { shared.records }

  package var pins: Pins { shared.pins }

  package var sightings: Sightings { shared.sightings }

  /// Addresses whose mesh port has answered, or not, a moment ago.
  package var meshAnswers: (mesh: Int, noMesh: Int) { shared.meshAnswers.counts }

  package var openConnections: Int { shared.openConnections.load(ordering: .relaxed) }
}
