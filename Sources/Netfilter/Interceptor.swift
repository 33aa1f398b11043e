internal import Net

/// What culvert-init does to the network namespace it is in.
package enum Interceptor {
  /// Rounds of looking for connections to close; each finds only what the last one missed.
  private static let closingRoundsMaximum = 50

  /// Puts the plan's rules in place of any that are there, at one moment, then closes the
  /// connections they came too late for.
  ///
  /// Rules first: while connections are looked for, the guard already stops them.
  package static func install(
    _ plan: InterceptionPlan, keepsConnections: Bool
  ) throws(NetfilterError) {
    var store = try TableStore()
    _ = try store.read()
    var sockets = try SocketTable()
    if !keepsConnections, try !sockets.canDestroy() { throw .cannotDestroyConnections }
    try NetworkNamespace.raiseLoopback()
    let table = Table(plan)
    try store.replace(with: table)
    guard !keepsConnections else { return }
    try close(&sockets, confirming: true) { $0.unintercepted(by: table) }
  }

  /// Takes the rules away; false if there were none.
  ///
  /// A redirected connection that outlives its redirect sends the application's plaintext to the
  /// address it was dialled to. So the rules give way to some that begin no connection and still
  /// carry those that are there; these are closed; then the table goes.
  package static func remove(keepsConnections: Bool) throws(NetfilterError) -> Bool {
    var store = try TableStore()
    guard let installed = try store.read() else { return false }
    if !keepsConnections {
      var sockets = try SocketTable()
      guard try sockets.canDestroy() else { throw .cannotDestroyConnections }
      try store.replace(with: installed.table.closing)
      do throws(NetfilterError) {
        try close(&sockets, confirming: false) { $0.intercepted(by: installed.table) }
      } catch {
        try store.replace(with: installed.table)
        throw error
      }
    }
    try store.replace(with: nil)
    return true
  }

  /// Puts just this table in place: no look at what is there, no connection is closed. For a
  /// namespace made to try something out.
  package static func replaceRules(with table: Table) throws(NetfilterError) {
    var store = try TableStore()
    try store.replace(with: table)
  }

  /// What is installed; nil if nothing is.
  package static func installed() throws(NetfilterError) -> InstalledTable? {
    var store = try TableStore()
    return try store.read()
  }

  /// Closes the selected connections until there are none.
  ///
  /// A listing is no snapshot: of a connection that begins meanwhile it may show one end only.
  /// `confirming` closes what two listings in a row select, and ends when there is none of that.
  private static func close(
    _ sockets: inout SocketTable, confirming: Bool, _ select: (Connections) -> [ListedSocket]
  ) throws(NetfilterError) {
    var last: Set<ListedSocket> = []
    for round in 0..<closingRoundsMaximum {
      let interfaces = try NetworkNamespace.addresses()
      let found = Set(select(Connections(try sockets.list(), interfaces: interfaces)))
      let doomed = confirming ? found.intersection(last) : found
      if doomed.isEmpty, round > 0 || found.isEmpty { return }
      for socket in doomed {
        do throws(Errno) {
          try sockets.destroy(socket)
        } catch {
          throw .netlink("cannot close a connection to \(socket.remote)", error)
        }
      }
      last = found
    }
    throw .connectionsLeft(last.count)
  }
}
