internal import CLinux
internal import Net
internal import Policy
internal import Synchronization
internal import TLS
internal import Telemetry

/// One worker's questions to mesh ports.
struct MeshProbes {
  /// Probes under way at a time; others wait for their turn.
  static let maximumRunning = 512

  /// Connections that wait for the answer of an address. An address without any is asked in the
  /// background.
  var waiting: [IPAddress: [Token]] = [:]
  var queue: [SocketAddress] = []
  var running = 0
  /// Probes are being started: one that ends at once leaves the rest to whoever started it.
  var isStarting = false
}

/// What a probe has come to.
enum ProbeOutcome: UInt8 {
  /// Nothing yet, or it failed for want of something of our own.
  case none
  case mesh
  case noMesh
  /// Nothing came in time.
  case silence
  /// Told already; what is left is to close in order.
  case told
}

// Probe: a connection of our own to a mesh port, with a handshake and no data.
extension Worker where IO: ~Copyable {
  /// The whole of a probe: the first connection to an address waits for it.
  private static var probeNanoseconds: UInt64 { 200_000_000 }

  /// Asks unless the same question is under way already.
  ///
  /// - Parameter waiting: the connection that is to be told.
  mutating func ask(_ meshPort: SocketAddress, waiting handle: Handle?) {
    let isUnderWay = probes.waiting[meshPort.address] != nil
    let tokens = handle.map { [$0.token(.connectServer)] } ?? []
    probes.waiting[meshPort.address, default: []] += tokens
    guard !isUnderWay else { return }
    probes.queue.append(meshPort)
    startProbes()
  }

  private mutating func startProbes() {
    guard !probes.isStarting else { return }
    probes.isStarting = true
    defer { probes.isStarting = false }
    while probes.running < MeshProbes.maximumRunning, !probes.queue.isEmpty, !isStopping {
      let meshPort = probes.queue.removeFirst()
      guard let handle = slab.take() else {
        couldNotAsk(meshPort.address, .connectionLimit)
        continue
      }
      probes.running += 1
      startProbe(handle, meshPort)
    }
  }

  private mutating func startProbe(_ handle: Handle, _ meshPort: SocketAddress) {
    openSlots += 1
    shared.openConnections.wrappingAdd(1, ordering: .relaxed)
    handle.it.isProbe = true
    handle.it.direction = .outbound
    handle.it.acceptedAt = now
    handle.it.details = ConnectionDetails()
    handle.it.details?.destination = meshPort
    handle.it.tlsSide = .server
    handle.it.state = .connecting
    handle.it.helloDeadline = now + Self.probeNanoseconds
    if openServer(handle, bindingTo: nil) {
      dial(handle)
    } else {
      // Without a socket nothing will complete.
      vacate(handle)
    }
  }

  /// Its handshake is done and the peer verified: whoever waits is told, and the connection closed
  /// behind what it still has to send.
  mutating func probeShaken(_ handle: Handle) {
    guard let address = handle.it.details?.destination?.address else { return }
    let isMesh = hasSelectedMesh(handle)
    handle.it.probeOutcome = .told
    handle.it.end = .closed
    handle.it.state = .draining
    startLinger(handle)
    if !handle.it.server.isSending { shutDown(handle, .server) }
    answer(address, isMesh: isMesh)
  }

  /// A mesh proxy answers whose certificate we refuse. It is mesh all the same: what goes there is
  /// refused by the same word, and not sent in plaintext.
  func noteProbeFailure(_ handle: Handle, isUntrusted: Bool) {
    guard handle.it.isProbe else { return }
    handle.it.probeOutcome = isUntrusted && hasSelectedMesh(handle) ? .mesh : .noMesh
  }

  /// The mesh port cannot be connected to, for a reason that is not ours.
  func noteProbeUnconnected(_ handle: Handle, _ error: Errno) {
    guard handle.it.isProbe else { return }
    switch error {
    case Errno(ECONNREFUSED), Errno(ECONNRESET), Errno(EHOSTUNREACH), Errno(ENETUNREACH),
      Errno(EHOSTDOWN), Errno(ENETDOWN), Errno(EACCES), Errno(EPERM), Errno(ECONNABORTED):
      handle.it.probeOutcome = .noMesh
    case Errno(ETIMEDOUT): handle.it.probeOutcome = .silence
    default: break
    }
  }

  private func hasSelectedMesh(_ handle: Handle) -> Bool {
    unsafe handle.it.session?.pointee.alpn == TLSContext.culvertProtocol
  }

  /// A probe's slot is vacant again.
  ///
  /// - Parameter reason: why it was given up.
  mutating func probeEnded(_ address: IPAddress, _ outcome: ProbeOutcome, _ reason: Refusal?) {
    probes.running -= 1
    switch outcome {
    case .told: break
    case .mesh: answer(address, isMesh: true)
    case .noMesh: answer(address, isMesh: false)
    case .silence: tell(address, isMesh: shared.meshAnswers.storeSilence(address, now: now))
    case .none: couldNotAsk(address, reason ?? .connectFailed)
    }
    startProbes()
  }

  /// No answer is not an answer: nobody is spoken to in plaintext for it.
  private mutating func couldNotAsk(_ address: IPAddress, _ refusal: Refusal) {
    for token in probes.waiting.removeValue(forKey: address) ?? [] {
      guard let handle = slab.find(token), handle.it.state == .planning else { continue }
      refuse(handle, refusal)
    }
  }

  private mutating func answer(_ address: IPAddress, isMesh: Bool) {
    shared.meshAnswers.store(address, isMesh: isMesh, now: now)
    tell(address, isMesh: isMesh)
  }

  private mutating func tell(_ address: IPAddress, isMesh: Bool) {
    link.counters.probed(isMesh ? .mesh : .noMeshPort)
    for token in probes.waiting.removeValue(forKey: address) ?? [] {
      guard let handle = slab.find(token), handle.it.state == .planning else { continue }
      probed(handle, isMesh: isMesh)
    }
  }
}
