internal import CLinux
internal import Configuration
internal import DataPlane
internal import Glibc
internal import Identity
internal import Net
internal import Policy
internal import TLS
internal import Telemetry

/// The control thread: signals, changed files, the admin socket and the connection log.
package struct ControlLoop: ~Copyable {
  /// Files that are replaced together, a certificate and its key, change a moment apart.
  static let settleMilliseconds: Int64 = 100
  /// How long nothing may be open, after SIGTERM, before the proxy goes: an application that is
  /// ending may still open connections.
  static let drainQuietMilliseconds: Int64 = 1000
  static let drainLookMilliseconds: Int64 = 50
  /// What closing in order is given after the drain deadline.
  static let finishMilliseconds: Int64 = 1500
  /// A configuration whose files do not fit each other is tried again: the other file may still be
  /// under way where no event tells of it.
  static let retryMilliseconds: Int64 = 1000

  /// How long lines of the log may wait for others: woken for each, this thread would cost more
  /// than what it writes.
  static let logIntervalMilliseconds: Int64 = 50

  static let forgetSessionsMilliseconds: Int64 = 60_000
  /// How long a new pin may wait to be written down.
  static let pinsLookMilliseconds: Int64 = 1000

  /// How long the last lines of the log are waited for when the proxy ends.
  static let lastLinesMilliseconds: Int64 = 1000

  enum Phase {
    case serving
    /// Until `deadline`, or until nothing has been open since `quietSince` for long enough.
    case draining(deadline: Int64, quietSince: Int64?)
    case finishing(until: Int64)
    case done
  }

  let path: String
  let plane: DataPlane
  private let signals: Descriptor
  let startedAt = Clock.milliseconds()
  var settings: Settings
  /// What the settings need from other files, as it is in force.
  private var policy: LoadedPolicy
  var epoch: NamespaceEpoch
  let identity: IdentityManager
  /// The trust under which peers were verified last.
  private var verifiedTrustEpoch: UInt64
  /// When an identity that could not be installed is tried again.
  private var installAt: Int64?
  private var forgetSessionsAt: Int64 = 0
  private var bundleServer: BundleServer
  let announcing: Announcing
  private var pinsFile: PinsFile?
  private var files: FileWatch
  var admin: AdminServer
  var phase = Phase.serving
  private var reloadAt: Int64?
  private var retriesLeft = 0
  var lastReloadError: String?
  var droppedLogLines: UInt64 = 0
  var log = LogWriter()
  /// When the lines that wait are taken; nil while none do.
  var recordsAt: Int64?

  /// Loads, binds, drops privileges and starts the workers. When this returns, connections are
  /// served.
  package init(path: String) throws(LoadError) {
    let limits = try Settings.loadText(path: path)
    guard Privileges.canMark else {
      throw LoadError(
        description: "CAP_NET_ADMIN is missing, without which the proxy cannot mark its own "
          + "connections; run as root or add the capability")
    }
    let signals = try Self.blockSignals()
    let backend = Self.chooseBackend()
    let workers = limits.workers ?? Privileges.availableProcessors
    let room = Self.makeRoom(limits.limits, workers: workers)
    let announcing = Announcing(limits)
    if let reason = announcing.reason {
      Diagnostics.write("mesh is not announced in the TCP handshake: \(reason)")
    }
    try Self.dropPrivileges()
    // Watched before they are read, and read with no more rights than a reload will have.
    let files = try Self.watch(limits.watchedFiles(configuration: path))
    let settings = try Settings.loadText(path: path)
    let identity = try IdentityManager(
      settings, mark: UInt32(settings.interception.mark), now: Clock.milliseconds())
    let policy = try LoadedPolicy(settings)
    let epoch = NamespaceEpoch(settings, policy, identity.state, number: 1)
    _ = identity.takeChange()
    let bundleServer = try BundleServer(settings.bundleEndpoint, identity)
    let admin = try AdminServer(path: settings.adminSocket)
    let pinsFile = settings.outbound.pins.map { PinsFile($0, configuration: path) }
    let pins = try pinsFile?.read() ?? []
    let plane = try Self.startPlane(
      settings, epoch, workers: workers, backend: backend, connectionSlots: room,
      announces: announcing.state == .works)
    plane.pins.restore(pins)
    self.init(
      path: path, plane: plane, signals: signals, settings: settings, policy: policy, epoch: epoch,
      identity: identity, announcing: announcing, bundleServer: bundleServer, pinsFile: pinsFile,
      files: files, admin: admin)
    self.files.watch(settings.watchedFiles(configuration: path))
    let listeners = plane.listeners.map { "\($0.direction.rawValue) \($0.address)" }
    Diagnostics.write(
      "ready: \(listeners.joined(separator: ", ")); \(plane.links.count) workers, "
        + "\(backend.rawValue); \(identity.summary)")
  }

  private init(
    path: String, plane: DataPlane, signals: consuming Descriptor, settings: Settings,
    policy: LoadedPolicy, epoch: NamespaceEpoch, identity: IdentityManager,
    announcing: consuming Announcing, bundleServer: consuming BundleServer,
    pinsFile: PinsFile?, files: consuming FileWatch, admin: consuming AdminServer
  ) {
    self.path = path
    self.plane = plane
    self.signals = signals
    self.settings = settings
    self.policy = policy
    self.epoch = epoch
    self.identity = identity
    verifiedTrustEpoch = identity.trust.epoch
    self.announcing = announcing
    self.pinsFile = pinsFile
    self.bundleServer = bundleServer
    self.files = files
    self.admin = admin
  }

  // MARK: Starting

  private static func blockSignals() throws(LoadError) -> Descriptor {
    signal(SIGPIPE, SIG_IGN)
    var mask = sigset_t()
    unsafe sigemptyset(&mask)
    for signal in [SIGTERM, SIGINT, SIGHUP] { unsafe sigaddset(&mask, signal) }
    unsafe pthread_sigmask(SIG_BLOCK, &mask, nil)
    do throws(Errno) {
      let flags = Int32(SFD_CLOEXEC) | Int32(SFD_NONBLOCK)
      return Descriptor(owning: try Errno.check { unsafe signalfd(-1, &mask, flags) })
    } catch {
      throw LoadError(description: "signalfd: \(error)")
    }
  }

  private static func chooseBackend() -> BackendKind {
    let (backend, refusal) = BackendKind.probe()
    if let refusal {
      Diagnostics.write(
        "io_uring is refused (\(refusal)): \(BackendKind.remedy(for: refusal)); using epoll")
    }
    return backend
  }

  private static func watch(_ files: [String]) throws(LoadError) -> FileWatch {
    do throws(Errno) {
      var watch = try FileWatch()
      watch.watch(files)
      return watch
    } catch {
      throw LoadError(description: "inotify: \(error)")
    }
  }

  private static func makeRoom(_ limits: Limits, workers: Int) -> Int {
    let wanted = limits.maximumConnections
    let room = Privileges.makeRoom(forConnections: wanted, workers: workers)
    if room < wanted {
      Diagnostics.write(
        "limits.maximumConnections is \(wanted), but the descriptor limit has room for \(room); "
          + "raise RLIMIT_NOFILE")
    }
    return room
  }

  private static func dropPrivileges() throws(LoadError) {
    do throws(Errno) {
      try Privileges.drop()
    } catch {
      throw LoadError(description: "cannot drop privileges: \(error)")
    }
  }

  private static func startPlane(
    _ settings: Settings, _ epoch: NamespaceEpoch, workers: Int, backend: BackendKind,
    connectionSlots: Int, announces: Bool
  ) throws(LoadError) -> DataPlane {
    let setup = NamespaceSetup(
      epoch: epoch, ports: ListenerPortSet(settings.listeners),
      mark: UInt32(settings.interception.mark), announces: announces)
    let kernel = try tryKernel(settings.dataPlane.kernelTLS)
    do throws(DataPlaneError) {
      return try DataPlane(
        setup, workers: workers, backend: backend, kernel: kernel,
        connectionSlots: connectionSlots)
    } catch {
      throw LoadError(description: error.description)
    }
  }

  /// What the kernel may do for records; the self-test runs only if it may do anything.
  private static func tryKernel(_ mode: KernelTLSMode) throws(LoadError) -> KernelVerdict {
    guard mode != .off else { return .unused("dataPlane.kernelTLS is off") }
    let verdict = KernelSelfTest.run()
    if mode == .require, verdict.sufficientSuites.isEmpty {
      let reason = verdict.sendReason ?? verdict.receiveReason ?? "no cipher suite passed"
      throw LoadError(description: "dataPlane.kernelTLS is require, but kTLS failed: \(reason)")
    }
    return verdict
  }

  // MARK: The loop

  /// Serves until the proxy has drained after SIGTERM.
  package mutating func run() {
    while true {
      if case .done = phase { break }
      var polled = [
        pollfd(fd: signals.number, events: Int16(POLLIN), revents: 0),
        pollfd(fd: files.readable.number, events: Int16(POLLIN), revents: 0),
        pollfd(
          fd: recordsAt == nil ? plane.records.readable.number : -1, events: Int16(POLLIN),
          revents: 0),
        pollfd(fd: log.isEmpty ? -1 : STDOUT_FILENO, events: Int16(POLLOUT), revents: 0),
      ]
      let adminStart = polled.count
      polled += admin.interests
      let adminEnd = polled.count
      polled += identity.interests
      polled += bundleServer.interests
      _ = unsafe poll(&polled, nfds_t(polled.count), waitMilliseconds)
      let now = Clock.milliseconds()
      if polled[0].revents != 0 { takeSignals(now) }
      if polled[1].revents != 0 {
        files.drain()
        retriesLeft = 3
        // Not later with every event: a busy directory would put the reload off for ever.
        reloadAt = reloadAt ?? now + Self.settleMilliseconds
      }
      if polled[2].revents != 0 { recordsAt = now + Self.logIntervalMilliseconds }
      if let due = recordsAt, now >= due { takeRecords() }
      log.writeWhatFits()
      reloadIfDue(now)
      identity.advance(now: now)
      followIdentity(now)
      forgetEndedSessions(now)
      bundleServer.serve(now: now)
      pinsFile?.write(plane.pins, now: now)
      let hasAdmin = polled[adminStart..<adminEnd].contains { $0.revents != 0 }
      if hasAdmin || admin.hasClients { serveAdmin(now) }
      advanceDrain(now)
    }
    plane.stop()
    pinsFile?.write(plane.pins, now: Clock.milliseconds(), atOnce: true)
    takeRecords()
    log.flush(milliseconds: Self.lastLinesMilliseconds)
    Diagnostics.write("stopped")
  }

  private var waitMilliseconds: Int32 {
    var wait: Int64 = 60_000
    for due in [reloadAt, recordsAt, installAt].compactMap(\.self) {
      wait = min(wait, max(0, due - Clock.milliseconds()))
    }
    if admin.hasClients || bundleServer.hasClients { wait = min(wait, 1000) }
    if let pins = pinsFile?.waitMilliseconds(plane.pins, now: Clock.milliseconds()) {
      wait = min(wait, pins)
    } else if pinsFile != nil {
      // No descriptor tells of a pin.
      wait = min(wait, Self.pinsLookMilliseconds)
    }
    wait = min(wait, identity.waitMilliseconds(now: Clock.milliseconds()))
    switch phase {
    case .serving: break
    case .draining, .finishing, .done: wait = min(wait, Self.drainLookMilliseconds)
    }
    return Int32(wait)
  }

  private mutating func takeSignals(_ now: Int64) {
    var information = signalfd_siginfo()
    let size = MemoryLayout<signalfd_siginfo>.size
    while unsafe read(signals.number, &information, size) == size {
      switch Int32(information.ssi_signo) {
      case SIGHUP:
        retriesLeft = 0
        reload(now)
      default:
        stopSignal(now)
      }
    }
  }

  // MARK: Reload

  private mutating func reloadIfDue(_ now: Int64) {
    guard let due = reloadAt, now >= due else { return }
    reloadIfChanged(now)
  }

  mutating func reloadIfChanged(_ now: Int64) {
    reloadAt = nil
    if files.hasChanged() || lastReloadError != nil { reload(now) }
  }

  /// All valid: a new epoch. Anything wrong: the last good one stays.
  private mutating func reload(_ now: Int64) {
    // Whatever is replaced from here on is another change.
    _ = files.hasChanged()
    do throws(LoadError) {
      let settings = try Settings.loadText(path: path)
      if let change = settings.firstChangeThatNeedsRestart(from: self.settings) {
        throw LoadError(description: "\(path): \(change) has changed, which needs a restart")
      }
      let policy = try LoadedPolicy(settings)
      try startPins(settings)
      try identity.reload(settings, now: now)
      _ = identity.takeChange()
      try install(settings, policy, now)
      lastReloadError = nil
      files.watch(settings.watchedFiles(configuration: path))
      Diagnostics.write("configuration loaded, epoch \(epoch.number)")
    } catch {
      if lastReloadError != error.description {
        Diagnostics.write("configuration not loaded, epoch \(epoch.number) stays: \(error)")
      }
      lastReloadError = error.description
      if retriesLeft > 0 {
        retriesLeft -= 1
        reloadAt = now + Self.retryMilliseconds
      }
    }
  }

  /// Pins that a reload asks for, where there were none.
  private mutating func startPins(_ settings: Settings) throws(LoadError) {
    guard pinsFile == nil, let pins = settings.outbound.pins else { return }
    let file = PinsFile(pins, configuration: path)
    plane.pins.restore(try file.read())
    pinsFile = file
  }

  // MARK: Identity

  /// Another identity, or none any more, is another epoch. What fails is tried again.
  private mutating func followIdentity(_ now: Int64) {
    let isDue = installAt.map { now >= $0 } ?? false
    guard identity.takeChange() || isDue else { return }
    do throws(LoadError) {
      try install(settings, policy, now)
    } catch {
      Diagnostics.write("identity not installed, epoch \(epoch.number) stays: \(error)")
    }
  }

  /// Puts settings and identity in force together. Peers whom the identity does not trust any more
  /// are marked first, so that a worker finds them when the epoch comes.
  private mutating func install(
    _ settings: Settings, _ policy: LoadedPolicy, _ now: Int64
  ) throws(LoadError) {
    let next = NamespaceEpoch(settings, policy, identity.state, number: epoch.number + 1)
    do {
      let trust = identity.trust
      if trust.epoch != verifiedTrustEpoch {
        for (peer, refusal) in try plane.peers.verifyAgain(
          under: trust.bundles, trustEpoch: trust.epoch)
        {
          Diagnostics.write("peer \(peer) is not trusted any more: \(refusal.rawValue)")
        }
      }
      try plane.install(next)
      verifiedTrustEpoch = trust.epoch
    } catch {
      installAt = now + Self.retryMilliseconds
      identity.noteInstallation("\(IdentityManager.notInstalled)\(error)")
      throw LoadError(description: "\(error)")
    }
    self.settings = settings
    self.policy = policy
    epoch = next
    installAt = nil
    identity.noteInstallation(nil)
    do throws(LoadError) {
      try bundleServer.update(identity)
    } catch {
      Diagnostics.write("bundle not served: \(error)")
    }
  }

  /// Secrets of sessions go when their time has, whether or not anybody asks for them.
  private mutating func forgetEndedSessions(_ now: Int64) {
    guard now >= forgetSessionsAt else { return }
    forgetSessionsAt = now + Self.forgetSessionsMilliseconds
    if let material = epoch.identity.material { plane.forgetEndedSessions(material) }
  }

  // MARK: Drain

  /// The first signal drains, a second one stops at once.
  private mutating func stopSignal(_ now: Int64) {
    guard case .serving = phase else {
      phase = .done
      return
    }
    plane.drain()
    let deadline = now + Int64(settings.limits.drainTimeoutMilliseconds)
    phase = .draining(deadline: deadline, quietSince: nil)
    Diagnostics.write(
      "draining: nothing inbound is accepted any more, \(plane.openConnections) connections open")
  }

  private mutating func advanceDrain(_ now: Int64) {
    switch phase {
    case .serving, .done:
      break
    case .draining(let deadline, let quietSince):
      let since = plane.openConnections > 0 ? nil : quietSince ?? now
      if let since, now - since >= Self.drainQuietMilliseconds {
        phase = .done
      } else if now >= deadline {
        plane.finish()
        phase = .finishing(until: now + Self.finishMilliseconds)
      } else {
        phase = .draining(deadline: deadline, quietSince: since)
      }
    case .finishing(let until):
      if now >= until || plane.openConnections == 0 { phase = .done }
    }
  }
}

extension ListenerPortSet {
  init(_ ports: ListenerPorts) {
    self.init(outbound: ports.outboundPort, inbound: ports.inboundPort, mesh: ports.meshPort)
  }
}
