internal import CLinux
internal import CNetfilter
internal import Net

/// The kernel's table `inet culvert`.
struct TableStore: ~Copyable {
  private var netlink: Netlink

  init() throws(NetfilterError) {
    do {
      netlink = try Netlink(family: NETLINK_NETFILTER)
    } catch {
      throw error == .permissionDenied || error == .notPermitted
        ? .notPrivileged : .noNFTables(error)
    }
  }

  /// What is installed; nil if there is no such table.
  ///
  /// - Throws: `.foreignTable` if somebody else made it.
  mutating func read() throws(NetfilterError) -> InstalledTable? {
    do {
      let messages = try netlink.ask(dump: false) { NFTListing.request(.table, $0, $1) }
      guard messages.allSatisfy(NFTListing.isOurs) else { throw NetfilterError.foreignTable }
      return messages.isEmpty ? nil : try readContents()
    } catch let error as Errno {
      switch error {
      case .noEntry: return nil
      case .notPermitted, .permissionDenied: throw .notPrivileged
      case Errno(EINVAL), Errno(EOPNOTSUPP), Errno(EPROTONOSUPPORT): throw .noNFTables(error)
      default: throw .netlink("cannot read the rules", error)
      }
    } catch let error as NetfilterError {
      throw error
    } catch {
      preconditionFailure("no other error is thrown")
    }
  }

  private mutating func readContents() throws(Errno) -> InstalledTable {
    var sets: [String: SetReference] = [:]
    for (name, type) in try list(.sets).compactMap(NFTListing.setName) {
      let elements = try list(.elements(name)).flatMap(NFTListing.elements)
      sets[name] = SetReference(type: type, elements: elements, name: name)
    }
    var result = InstalledTable()
    for (name, chain) in try list(.chains).compactMap(NFTListing.chain) {
      if let chain {
        result.table.chains.append(chain)
      } else {
        result.unknown.append("chain \(name)")
      }
    }
    let rules = try list(.rules).compactMap { NFTListing.rule($0, sets: sets) }
    for (chain, expressions) in rules {
      if let rule = Rule(expressions),
        let index = result.table.chains.firstIndex(where: { $0.name == chain })
      {
        result.table.chains[index].rules.append(rule)
      } else {
        result.unknown.append("a rule of the chain \(chain)")
      }
    }
    return result
  }

  private mutating func list(_ kind: NFTListing.Kind) throws(Errno) -> [[UInt8]] {
    try netlink.ask(dump: true) { NFTListing.request(kind, $0, $1) }
  }

  /// Puts a table where there was none, or in place of the one that is there, or takes it away
  /// (nil): all of it at one moment, or nothing.
  mutating func replace(with table: Table?) throws(NetfilterError) {
    // Deleting needs the table to be there; adding one that is there changes nothing.
    var messages: [NFTMessage] = [.addTable, .deleteTable]
    if let table { messages += NFTMessage.messages(table) }
    try send(messages)
  }

  private mutating func send(_ messages: [NFTMessage]) throws(NetfilterError) {
    let first = netlink.nextSequence()
    for _ in messages { _ = netlink.nextSequence() }
    let last = netlink.nextSequence()
    var bytes = NFTMessage.begin(sequence: first)
    for (index, message) in messages.enumerated() {
      bytes += message.bytes(sequence: first + 1 + UInt32(index))
    }
    bytes += NFTMessage.end(sequence: last)
    do {
      try netlink.send(bytes)
      try checkResults(messages, first: first)
    } catch let error as Errno {
      throw error == .notPermitted ? .notPrivileged : .netlink("cannot send the rules", error)
    } catch let error as NetfilterError {
      throw error
    } catch {
      preconditionFailure("no other error is thrown")
    }
  }

  /// The kernel has answered every message by the time it took the batch.
  private func checkResults(_ messages: [NFTMessage], first: UInt32) throws {
    var acknowledged = 0
    var failure: (index: Int, code: Int32)?
    while try netlink.receive(
      waits: false,
      { reply, _ in
        guard case .result(let sequence, let code) = reply, sequence >= first else { return }
        if code == 0 {
          acknowledged += 1
        } else if failure == nil {
          failure = (Int(sequence - first) - 1, code)
        }
      })
    {}
    if let failure {
      if failure.code == EPERM { throw NetfilterError.notPrivileged }
      let what =
        messages.indices.contains(failure.index)
        ? messages[failure.index].description : "the rules as a whole"
      throw NetfilterError.refused(what, Errno(failure.code))
    }
    guard acknowledged >= messages.count else {
      throw NetfilterError.netlink("the kernel did not confirm the rules", Errno(EBADMSG))
    }
  }
}

/// A table as read back.
package struct InstalledTable: Hashable, Sendable {
  package var table = Table()
  /// What is in the table and is none of culvert-init's, each in words.
  package var unknown: [String] = []
}
