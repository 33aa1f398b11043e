import CLinux
import Net
import Testing

@Suite struct PortSetTests {
  @Test(arguments: [
    ("80", "80"), ("443,80", "80,443"), ("8000-8099", "8000-8099"), ("80,81,82", "80-82"),
    ("1-10,5-20,21", "1-21"), ("65535,65534", "65534-65535"), ("1-65535,7", "1-65535"),
    ("80,80", "80"), ("80-80", "80"),
  ])
  func listsAreSortedAndMerged(text: String, canonical: String) {
    #expect(PortSet(text)?.description == canonical)
  }

  @Test(arguments: [
    "", "0", "65536", "80,", ",80", "1-", "-1", "5-4", "a", "80 ", "+80", "1-2-3", "0-5",
  ])
  func nothingElseIsAList(text: String) { #expect(PortSet(text) == nil) }

  @Test func itHoldsTheBoundsAndNothingBeside() throws {
    let set = try #require(PortSet("22,8000-8099"))
    for port in [22, 8000, 8050, 8099] as [UInt16] { #expect(set.contains(port)) }
    for port in [21, 23, 7999, 8100, 65535] as [UInt16] { #expect(!set.contains(port)) }
    #expect(PortSet().isEmpty && !PortSet().contains(80))
  }

  @Test func aUnionHoldsBoth() {
    #expect(PortSet([80...80]).union(PortSet([81...90])).ranges == [80...90])
  }
}

@Suite struct SocketAddressTests {
  @Test(
    arguments: [
      ("10.0.0.1", 80, 0, "10.0.0.1:80"), ("fd00::1", 65535, 0, "[fd00::1]:65535"),
      ("fe80::1", 1, 3, "[fe80::1%3]:1"), ("0.0.0.0", 0, 0, "0.0.0.0:0"),
      ("::", 15006, 0, "[::]:15006"),
    ] as [(String, UInt16, UInt32, String)])
  func theKernelsFormAndBackIsTheSame(
    address: String, port: UInt16, scopeID: UInt32, text: String
  ) throws {
    let original = SocketAddress(try #require(IPAddress(address)), port: port, scopeID: scopeID)
    #expect(SocketAddress(original.storage.0) == original)
    #expect(original.description == text)
  }

  @Test(arguments: ["10.0.0.1:80", "[fd00::1]:65535", "[::]:1"])
  func aTextAndBackIsTheSame(text: String) {
    #expect(SocketAddress(text)?.description == text)
  }

  @Test(arguments: [
    "", ":", "10.0.0.1", "10.0.0.1:", ":80", "10.0.0.1:0", "10.0.0.1:080", "10.0.0.1:65536",
    "10.0.0.1:+1", "[10.0.0.1]:80", "fd00::1:80", "[fd00::1]", "[fd00::1:80", "fd00::1]:80",
    "[fe80::1%3]:80", "localhost:80", "[]:80", "10.0.0.1:80 ",
  ])
  func nothingElseIsASocketAddress(text: String) { #expect(SocketAddress(text) == nil) }

  @Test func anotherFamilyIsNoSocketAddress() {
    var storage = SocketAddress(.loopbackV4, port: 1).storage.0
    storage.ss_family = 1
    #expect(SocketAddress(storage) == nil)
  }

  @Test(arguments: [IPAddress.loopbackV4, .loopbackV6])
  func aListenerIsWhereItWasPut(address: IPAddress) throws {
    let listener = try Socket.listener(on: SocketAddress(address, port: 0), backlog: 1)
    let local = try Socket.localAddress(listener.number)
    #expect(local.address == address)
    #expect(local.port != 0)
  }
}

@Suite struct ErrnoTests {
  @Test func itSaysWhatTheLibrarySays() {
    #expect(Errno.noEntry.description == "No such file or directory")
    #expect(Errno.connectionReset.description == "Connection reset by peer")
    #expect(Errno(9999).description == "error 9999")
  }

  @Test func aFailedCallThrowsItsNumber() {
    #expect(throws: Errno(9)) { try Socket.localAddress(-1) }
  }
}
