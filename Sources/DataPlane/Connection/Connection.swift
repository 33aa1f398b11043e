internal import Identity
internal import Net
internal import Policy
internal import Sniff
internal import TLS
internal import Telemetry

/// One connection's way through the proxy, in this order.
enum State: UInt8 {
  /// The slot is free.
  case vacant
  case sniffing
  /// Outbound: what is to be done is being found out.
  case planning
  case connecting
  case handshaking
  case relaying
  /// Nothing more is relayed; what was sent last (an alert, close_notify) is on its way out.
  case draining
  case closed
}

/// The two ends of a connection: who opened it, and whom we dialled for it.
enum Side: UInt8 {
  case client, server

  var other: Side { self == .client ? .server : .client }
  var receive: Operation { self == .client ? .receiveClient : .receiveServer }
  var send: Operation { self == .client ? .sendClient : .sendServer }
  var poll: Operation { self == .client ? .pollClient : .pollServer }
  var reset: ConnectionEnd { self == .client ? .clientReset : .serverReset }
}

/// What a send in flight is sending; released when it completes.
struct Outgoing {
  enum Storage: UInt8 { case none, receiveBuffer, sendBuffer, held }
  var storage = Storage.none
  var buffer: Int32 = -1
  var offset = 0
  var end = 0
  /// Of the record the kernel is to make of it; nil is application data.
  var type: UInt8?
}

/// One socket of a connection and what is under way on it.
struct Leg {
  enum Ending: UInt8 { case open, notifying, done }

  var descriptor: Int32 = -1
  /// Operations that have not completed; the descriptor is closed only at 0.
  var inFlight: UInt8 = 0
  var isReceiving = false
  var isSending = false
  var isPolling = false
  var isConnecting = false
  /// Close the descriptor as soon as nothing is in flight.
  var isClosing = false
  var isConnected = false
  /// Receives in a row that filled their buffer.
  var fullReceives: UInt8 = 0
  /// Its FIN (plain) or close_notify (TLS) has come.
  var hasEnded = false
  /// How far our own FIN or close_notify to it is.
  var ending = Ending.open
  var outgoing = Outgoing()
  /// A receive that completed while nothing could be sent to the other leg: it was sending
  /// something of its own, was on its way to the kernel, or found no large buffer.
  var waiting: (buffer: Int32, count: Int32) = (-1, 0)
  /// Application bytes that came from this side.
  var receivedBytes: UInt64 = 0
}

/// Bytes from the TLS peer, or the client while it is being sniffed, that cannot be passed on yet.
@safe struct Held {
  var base: UnsafeMutableRawPointer?
  var capacity = 0
  var start = 0
  var count = 0
  /// The block counts against `sniffMemoryMaximumBytes`.
  var isCounted = false

  var bytes: UnsafeRawBufferPointer {
    unsafe UnsafeRawBufferPointer(start: base.map { unsafe $0 + start }, count: count)
  }
}

/// What only beginning and end of a connection need; kept apart so that the rest stays small.
final class ConnectionDetails {
  var source: SocketAddress?
  var destination: SocketAddress?
  var scan = ClientHelloScan()
  var hello: ClientHello?
  /// Bytes of an outbound client that have been looked at and not taken.
  var peekedBytes = 0
  var peer: VerifiedPeer?
  var handshake: HandshakeKind?
  var alpn: String?
  var cipher: String?
  /// Why the records are not protected by the engine they could be.
  var engineReason: String?
  var reason: String?
  var detail: String?
  /// Why the bytes are relayed as they are.
  var relayReason: RelayReason?
  var expect: [SPIFFEID] = []
  /// Outbound: how the other end was found to be mesh, and who was there the last time, if that was
  /// somebody else.
  var discovery: MeshEvidence?
  var previousPeer: SPIFFEID?
  /// TLS to a server outside the mesh.
  var origination: Origination?
  /// The rule of `authorization` that decided, and what audited rules would have done.
  var rule: String?
  var audit: String?
  /// When it must have ended because a certificate does, idle or not.
  var lifetimeEnd: UInt64 = 0
}

/// One slot of a worker's slab.
@safe struct Connection {
  var generation: UInt32 = 0
  var state = State.vacant
  var direction = Direction.inbound
  /// Which namespace's listeners it came in by.
  var namespace: UInt16 = 0
  var security = Security.none
  var isDecided = false
  /// Inbound: the client's SYN announced mesh.
  var isAnnounced = false
  /// Outbound: the client's ClientHello, if it has one, has been looked into.
  var isSniffed = false
  /// Outbound: dialled to find out whether the other end is mesh.
  var isDiscovering = false
  /// Not a client's, but our own question to a mesh port; and what has come of it.
  var isProbe = false
  var probeOutcome = ProbeOutcome.none
  /// Counted among the sightings.
  var isSighted = false
  /// The side that speaks TLS with us, if any.
  var tlsSide: Side?
  var id: UInt64 = 0
  var client = Leg()
  var server = Leg()
  /// OpenSSL's part: the handshake, and what follows if the records stay with it.
  var session: UnsafeMutablePointer<TLSSession>?
  /// Our own record layer, once the session has handed over.
  var records: UnsafeMutablePointer<RecordLayer>?
  var kernelStep = KernelStep.undecided
  /// Nothing is sealed until the TLS leg's receive, which was cancelled, has completed.
  var isPausing = false
  /// Of the TLS leg, where the kernel protects what is sent, or received.
  var sendMessage: KernelMessage?
  var receiveMessage: KernelMessage?
  var held = Held()
  var details: ConnectionDetails?
  var end: ConnectionEnd?
  var acceptedAt: UInt64 = 0
  /// Deadlines in CLOCK_MONOTONIC nanoseconds; 0 is none.
  var helloDeadline: UInt64 = 0
  var connectDeadline: UInt64 = 0
  var graceDeadline: UInt64 = 0
  var closeDeadline: UInt64 = 0
  /// Waits for an identity, before the handshake, or before dialling for it.
  var isHeld = false
  /// When it is to end because a certificate does.
  var lifetimeDeadline: UInt64 = 0
  /// How long the session waits for tickets.
  var sessionDeadline: UInt64 = 0
  /// When a half-closed connection ends unless bytes flow, and the bytes at the last look.
  var halfCloseExpiry: UInt64 = 0
  var bytesAtLastCheck: UInt64 = 0

  // Addressors here and below: the frame of a coroutine (`_read`, `_modify`) is allocated wherever
  // the optimiser does not see through it. A connection has one address for its whole life.
  subscript(side: Side) -> Leg {
    get { side == .client ? client : server }
    unsafeMutableAddress {
      if side == .client {
        unsafe withUnsafeMutablePointer(to: &client) { unsafe $0 }
      } else {
        unsafe withUnsafeMutablePointer(to: &server) { unsafe $0 }
      }
    }
  }
}

/// A live slot. Valid until the slot is freed, which happens only when none of its operations is in
/// flight; completions find it by slot number and generation.
@safe struct Handle {
  let slot: UInt32
  private let pointer: UnsafeMutablePointer<Connection>

  init(slot: UInt32, pointer: UnsafeMutablePointer<Connection>) {
    self.slot = slot
    unsafe self.pointer = unsafe pointer
  }

  var it: Connection {
    unsafeAddress { unsafe UnsafePointer(pointer) }
    nonmutating unsafeMutableAddress { unsafe pointer }
  }

  func token(_ operation: Operation) -> Token {
    Token(operation, slot: slot, generation: it.generation)
  }
}
