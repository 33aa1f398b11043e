#if DEBUG
  internal import CLinux
  import Foundation
  internal import Identity
  internal import Net
  internal import Policy
  internal import Synchronization
  internal import Telemetry

  @testable import DataPlane
  @testable import TLS

  /// How a worker's connections are protected.
  struct RelayPlan {
    /// nil relays the bytes as they are.
    var suite: CipherSuite?
    /// The leg that speaks TLS.
    var tlsSide = Side.client
    var recordsPerKey = RecordLayer.recordsPerKeyMaximum
    /// What the kernel may do for records, and after how many bytes.
    var kernel = KernelVerdict.unused("not used in this test")
    var kernelTLSAfterBytes = 0
    var connections = 1
  }

  /// A worker without listeners, on a thread of its own, that relays connections a test has made:
  /// two TCP connections over loopback are the legs of each, and the handshake is left out.
  final class RelayWorker: Sendable {
    private let link: WorkerLink
    private let shared: SharedState
    private let ended = DispatchSemaphore(value: 0)

    /// The worker's part of a connection, handed to its thread.
    fileprivate struct Seat: Sendable {
      let client: Int32
      let server: Int32
      let send: [UInt8]
      let receive: [UInt8]
    }

    /// Runs a body with the connections, then stops the worker.
    ///
    /// - Parameter around: called on the worker's thread to run the worker.
    /// - Returns: the records of the connections, in the order of their ends.
    @discardableResult
    static func run(
      _ backend: BackendKind, _ plan: RelayPlan,
      around: @escaping @Sendable (() -> Void) -> Void = { $0() },
      _ body: ([RelayedConnection]) throws -> Void
    ) throws -> [ConnectionRecord] {
      var connections: [RelayedConnection] = []
      var seats: [Seat] = []
      for _ in 0..<plan.connections {
        let (connection, seat) = try makeConnection(backend, plan)
        connections.append(connection)
        seats.append(seat)
      }
      let worker = try RelayWorker(backend, plan, seats, around)
      do {
        try body(connections)
      } catch {
        try? worker.stop()
        throw error
      }
      try worker.stop()
      return worker.shared.records.take().records
    }

    private init(
      _ backend: BackendKind, _ plan: RelayPlan, _ seats: [Seat],
      _ around: @escaping @Sendable (() -> Void) -> Void
    ) throws {
      link = try WorkerLink()
      shared = try SharedState()
      let seed = try Self.seed(link, shared, backend, plan)
      let ended = ended
      Thread.detachNewThread {
        around {
          switch backend {
          case .ioUring: relay(seed, Uring.self, seats, plan)
          case .epoll: relay(seed, Epoll.self, seats, plan)
          }
        }
        ended.signal()
      }
    }

    private func stop() throws {
      link.give(.stop)
      guard ended.wait(timeout: .now() + patienceSeconds) == .success else {
        throw Trouble("the worker does not end")
      }
    }

    // MARK: Making connections

    private static func makeConnection(
      _ backend: BackendKind, _ plan: RelayPlan
    ) throws -> (RelayedConnection, Seat) {
      let (client, clientNear) = try makeLeg(backend)
      let (server, serverNear) = try makeLeg(backend)
      let count = plan.suite?.hashBytes ?? 0
      let send = (0..<count).map { _ in UInt8.random(in: 0...255) }
      let receive = (0..<count).map { _ in UInt8.random(in: 0...255) }
      let peer = try plan.suite.map {
        try RelayPeer($0, isClient: plan.tlsSide == .client, send: receive, receive: send)
      }
      let connection = RelayedConnection(
        client: client, server: server, peer: peer, tlsSide: plan.tlsSide)
      return (
        connection, Seat(client: clientNear, server: serverNear, send: send, receive: receive)
      )
    }

    private static func makeLeg(_ backend: BackendKind) throws -> (FarEnd, near: Int32) {
      let pair = try LoopbackPair(.v4)
      let flags = backend == .epoll ? Epoll.socketFlags : Uring.socketFlags
      let near = try copy(pair.server.number, isBlocking: flags & Int32(O_NONBLOCK) == 0)
      let far = try copy(pair.client.number, isBlocking: false)
      try Socket.setNoDelay(near)
      try Socket.setNoDelay(far)
      return (FarEnd(Descriptor(owning: far), near: near), near)
    }

    private static func copy(_ descriptor: Int32, isBlocking: Bool) throws -> Int32 {
      let copy = try Errno.check { fcntl(descriptor, F_DUPFD_CLOEXEC, 0) }
      try Errno.check { fcntl(copy, F_SETFL, isBlocking ? 0 : O_NONBLOCK) }
      return copy
    }

    // MARK: Making the worker

    private static func seed(
      _ link: WorkerLink, _ shared: SharedState, _ backend: BackendKind, _ plan: RelayPlan
    ) throws -> WorkerSeed {
      let identity = try makeIdentity()
      let limits = ConnectionLimits(
        maximumConnections: 20_000, handshakeTimeoutMilliseconds: 10_000,
        connectTimeoutMilliseconds: 10_000, halfCloseTimeoutMilliseconds: 60_000,
        sniffMemoryMaximumBytes: 1 << 20)
      let epoch = NamespaceEpoch(
        number: 1, identity: .ready(identity), connectionLifetime: .unlimited,
        inbound: InboundPolicy(), outbound: OutboundPolicy(), limits: limits,
        records: RecordSettings(
          kernelTLS: .auto, kernelTLSAfterBytes: plan.kernelTLSAfterBytes,
          keyUpdateAfterRecords: RecordLayer.recordsPerKeyMaximum))
      let namespace = NamespaceState(
        epoch: epoch, context: try TLSContext(identity), originations: [:], ownID: identity.id,
        ports: ListenerPortSet(outbound: 1, inbound: 2, mesh: 3), mark: 0, announces: false)
      return WorkerSeed(
        link: link, shared: shared, namespaces: [namespace], listeners: [], firstID: 0,
        slotLimit: 20_000, backend: backend, kernel: plan.kernel)
    }

    /// No handshake is made with it.
    private static func makeIdentity() throws -> IdentityMaterial {
      let key = try CertificateBuilder.makeKey()
      let certificate = try CertificateBuilder.authority(
        try TrustDomain("relay.test"), key: key, lifetimeSeconds: 3600, backdateSeconds: 60)
      return IdentityMaterial(
        id: try SPIFFEID("spiffe://relay.test/nobody"), chain: [certificate], key: key, bundles: [])
    }
  }

  // MARK: - The worker's thread

  private func relay<IO: Backend & ~Copyable>(
    _ seed: WorkerSeed, _ backend: IO.Type, _ seats: [RelayWorker.Seat], _ plan: RelayPlan
  ) {
    do {
      var worker = try Worker<IO>(seed)
      for seat in seats { worker.adopt(seat, plan) }
      worker.run()
    } catch {
      fatalError("the worker cannot start: \(error)")
    }
  }

  extension Worker where IO: ~Copyable {
    /// Begins where a handshake would have ended.
    fileprivate mutating func adopt(_ seat: RelayWorker.Seat, _ plan: RelayPlan) {
      guard let handle = slab.take() else { preconditionFailure("no slot") }
      openSlots += 1
      shared.openConnections.wrappingAdd(1, ordering: .relaxed)
      link.counters.accepted()
      connectionCount += 1
      handle.it.id = firstID | connectionCount
      handle.it.direction = plan.tlsSide == .client ? .inbound : .outbound
      handle.it.security = plan.suite == nil ? .plaintext : .mutualTLS
      handle.it.details = ConnectionDetails()
      handle.it.acceptedAt = now
      handle.it.client.descriptor = seat.client
      handle.it.client.isConnected = true
      handle.it.server.descriptor = seat.server
      handle.it.server.isConnected = true
      if let suite = plan.suite {
        handle.it.tlsSide = plan.tlsSide
        let layer = RecordLayer(
          suite, isClient: plan.tlsSide == .server, recordsPerKey: plan.recordsPerKey)
        guard let place = unsafe layers.take(layer) else { preconditionFailure("no memory") }
        unsafe handle.it.records = unsafe place
        let isKeyed = unsafe seat.send.withUnsafeBytes { send in
          unsafe seat.receive.withUnsafeBytes { receive in
            unsafe place.pointee.install(send: send, receive: receive, with: &ciphers)
          }
        }
        precondition(isKeyed)
      }
      startRelay(handle)
    }
  }
#endif
