internal import Net
internal import Policy
internal import Synchronization
internal import TLS
internal import Telemetry

/// One worker's questions to mesh ports.
struct MeshProbes {
  /// Probes under way at a time; others wait for their turn.
  static let maximumRunning = 128

  /// Connections that wait for the answer of an address. An address without any is asked in the
  /// background.
  var waiting: [IPAddress: [Token]] = [:]
  var queue: [SocketAddress] = []
  var running = 0
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

  /// Its handshake is done and the peer verified.
  mutating func probeShaken(_ handle: Handle) {
    let alpn = unsafe handle.it.session?.pointee.alpn
    handle.it.isProbeAnswered = alpn == TLSContext.culvertProtocol
    closeLegs(handle, reset: false)
  }

  /// A probe's slot is vacant again.
  ///
  /// - Parameter wasDialled: false if it failed for want of something of our own.
  mutating func probeEnded(_ address: IPAddress, isMesh: Bool, wasDialled: Bool) {
    probes.running -= 1
    if wasDialled {
      answer(address, isMesh: isMesh)
    } else {
      couldNotAsk(address, .descriptorLimit)
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
    link.counters.probed(isMesh ? .mesh : .noMeshPort)
    for token in probes.waiting.removeValue(forKey: address) ?? [] {
      guard let handle = slab.find(token), handle.it.state == .planning else { continue }
      probed(handle, isMesh: isMesh)
    }
  }
}
