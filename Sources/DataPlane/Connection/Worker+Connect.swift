internal import CLinux
internal import Net
internal import Policy

// Connect: the socket towards the real destination.
extension Worker where IO: ~Copyable {
  /// Makes the socket towards the destination, marked so that the rules let it pass.
  ///
  /// - Parameters:
  ///   - local: inbound, the original destination. Binding to it fails if the address is not this
  ///     namespace's own, which is the check that an inbound connection is really for us; as a
  ///     source address it is what the kernel would have chosen.
  ///   - announces: whether its SYN says that we are mesh.
  /// - Returns: false if the connection was refused.
  mutating func openServer(
    _ handle: Handle, bindingTo local: SocketAddress?, announces: Bool = false
  ) -> Bool {
    guard let destination = handle.it.details?.destination else { return false }
    do throws(Errno) {
      let server = try Socket.stream(destination.address.family, flags: IO.socketFlags)
      try Socket.setMark(
        server.number,
        namespaces[Int(handle.it.namespace)].mark | (announces ? Mark.announce : 0))
      try Socket.setNoDelay(server.number)
      try Socket.setKeepAlive(server.number)
      if let local {
        try Socket.setNoPacing(server.number)
        try Socket.setBindAddressNoPort(server.number)
        let source = SocketAddress(local.address, port: 0, scopeID: local.scopeID)
        try Socket.bind(server.number, to: source)
      }
      handle.it.server.descriptor = server.release()
      return true
    } catch .addressNotAvailable {
      refuse(handle, .notLocal)
    } catch Errno.processDescriptorLimit, Errno.systemDescriptorLimit {
      refuse(handle, .descriptorLimit)
    } catch {
      refuse(handle, .connectFailed, detail: error.description)
    }
    return false
  }

  mutating func dial(_ handle: Handle) {
    guard let destination = handle.it.details?.destination else { return }
    let limit = policy(handle).limits.connectTimeoutMilliseconds
    handle.it.connectDeadline = now + UInt64(limit) * 1_000_000
    scheduleDeadline(handle)
    handle.it.server.isConnecting = true
    handle.it.server.inFlight += 1
    io.connect(handle.it.server.descriptor, to: destination, handle.token(.connectServer))
  }

  mutating func connectCompleted(_ completion: Completion) {
    guard let handle = landed(completion, .server) else { return }
    handle.it.server.isConnecting = false
    handle.it.connectDeadline = 0
    scheduleDeadline(handle)
    guard completion.result == 0 else {
      noteProbeUnconnected(handle, Errno(-completion.result))
      return refuse(handle, .connectFailed, detail: Errno(-completion.result).description)
    }
    // A closed port of the ephemeral range may be chosen as the source, too; TCP then connects the
    // socket to itself (simultaneous open, RFC 9293 §3.5).
    if let destination = handle.it.details?.destination, handle.it.direction == .inbound,
      (try? Socket.localAddress(handle.it.server.descriptor)) == destination
    {
      return refuse(handle, .connectFailed, detail: "nothing listens there")
    }
    handle.it.server.isConnected = true
    switch handle.it.state {
    case .sniffing: watchServer(handle)
    case .connecting:
      if handle.it.direction == .outbound, handle.it.tlsSide != nil {
        originate(handle)
      } else if handle.it.isDiscovering {
        discovered(handle)
      } else {
        startRelay(handle)
      }
    // The application answered while the handshake goes on; relaying starts after that.
    case .handshaking: break
    case .vacant, .planning, .relaying, .draining, .closed: break
    }
  }
}
