import Identity
import Net
import Testing

@testable import DataPlane

private let second: UInt64 = 1_000_000_000

private func address(_ number: Int) -> IPAddress { IPAddress(v4: 0x0a00_0000 + UInt32(number)) }

private func destination(_ number: Int, port: UInt16 = 80) -> SocketAddress {
  SocketAddress(address(number), port: port)
}

@Suite("What is kept of mesh ports' answers")
struct MeshAnswersTests {
  @Test("An answer holds for its time, and not a moment longer", arguments: [true, false])
  func expiry(isMesh: Bool) {
    let answers = MeshAnswers()
    let end =
      second + (isMesh ? MeshAnswers.meshNanoseconds : MeshAnswers.noMeshNanoseconds)
    #expect(answers.find(address(1), now: second) == nil)
    answers.store(address(1), isMesh: isMesh, now: second)
    #expect(answers.find(address(1), now: second)?.isMesh == isMesh)
    #expect(answers.find(address(1), now: end - 1)?.isMesh == isMesh)
    #expect(answers.find(address(1), now: end) == nil)
    #expect(answers.find(address(2), now: second) == nil)
  }

  @Test("In the last part of its time one user is told to ask again", arguments: [true, false])
  func refresh(isMesh: Bool) {
    let answers = MeshAnswers()
    let span = isMesh ? MeshAnswers.meshNanoseconds : MeshAnswers.noMeshNanoseconds
    let refresh = second + span - span / MeshAnswers.refreshPart
    answers.store(address(1), isMesh: isMesh, now: second)
    let asked = [refresh - 1, refresh, refresh + 1, second + span - 1].map {
      answers.find(address(1), now: $0)?.isToRefresh
    }
    #expect(asked == [false, true, false, false])
    // The new answer begins anew.
    answers.store(address(1), isMesh: !isMesh, now: refresh + 1)
    let renewed = answers.find(address(1), now: refresh + 2)
    #expect(renewed?.isMesh == !isMesh)
    #expect(renewed?.isToRefresh == false)
  }

  @Test("What is forgotten is asked again, and nothing else")
  func forgetting() {
    let answers = MeshAnswers()
    for number in 1...2 { answers.store(address(number), isMesh: true, now: second) }
    answers.forget(address(1))
    answers.forget(address(3))
    #expect(answers.find(address(1), now: second) == nil)
    #expect(answers.find(address(2), now: second)?.isMesh == true)
  }

  @Test("A flood of addresses displaces some, and never grows")
  func flood() {
    let answers = MeshAnswers()
    let limit = MeshAnswers.maximumAddresses
    for number in 0..<limit { answers.store(address(number), isMesh: false, now: second) }
    #expect(answers.counts == (0, limit))
    for number in limit..<6_000 {
      answers.store(address(number), isMesh: true, now: second)
      // The newest is never the one that makes room.
      #expect(answers.find(address(number), now: second) != nil)
    }
    let (mesh, noMesh) = answers.counts
    #expect(mesh + noMesh == limit)
    // Known already: nothing makes room for it.
    let known = (0..<6_000).filter { answers.find(address($0), now: second) != nil }
    #expect(known.count == limit)
    answers.store(address(known[0]), isMesh: true, now: second)
    #expect(known.allSatisfy { answers.find(address($0), now: second) != nil })
  }

  @Test("Those whose time has passed make room first")
  func expiredFirst() {
    let answers = MeshAnswers()
    let limit = MeshAnswers.maximumAddresses
    for number in 0..<limit { answers.store(address(number), isMesh: number < 10, now: second) }
    let later = second + MeshAnswers.noMeshNanoseconds
    answers.store(address(limit), isMesh: false, now: later)
    #expect(answers.counts == (10, 1))
  }
}

@Suite("Pins in memory")
struct PinsTests {
  private func all(_ pins: Pins, _ now: Int64) -> Set<Pins.Pin> {
    Set(pins.all(nowSeconds: now).pins)
  }

  @Test("A pin holds for its time, for one port of one address")
  func expiry() {
    let pins = Pins()
    pins.note(destination(1), ttlSeconds: 100, nowSeconds: 1000)
    #expect(pins.contains(destination(1), nowSeconds: 1099))
    #expect(!pins.contains(destination(1), nowSeconds: 1100))
    #expect(!pins.contains(destination(1, port: 81), nowSeconds: 1000))
    #expect(!pins.contains(destination(2), nowSeconds: 1000))
    #expect(all(pins, 1099) == [Pins.Pin(destination: destination(1), untilSeconds: 1100)])
    #expect(all(pins, 1100).isEmpty)
  }

  @Test("A pin is noted anew after a tenth of its time, or when it has ended")
  func renewal() {
    let pins = Pins()
    pins.note(destination(1), ttlSeconds: 100, nowSeconds: 1000)
    let version = pins.version
    pins.note(destination(1), ttlSeconds: 100, nowSeconds: 1010)
    #expect(pins.version == version)
    pins.note(destination(1), ttlSeconds: 100, nowSeconds: 1011)
    #expect(pins.version == version + 1)
    #expect(pins.contains(destination(1), nowSeconds: 1110))
    pins.note(destination(1), ttlSeconds: 5, nowSeconds: 2000)
    #expect(pins.contains(destination(1), nowSeconds: 2004))
  }

  @Test("A flood of destinations takes the place of those that end first")
  func flood() {
    let pins = Pins()
    let limit = Pins.maximumPins
    for number in 0..<limit {
      pins.note(destination(number), ttlSeconds: 1000 + number % 7, nowSeconds: 1000)
    }
    #expect(pins.count == limit)
    for number in limit..<limit + 10 {
      pins.note(destination(number), ttlSeconds: 2000, nowSeconds: 1000)
      #expect(pins.count == limit)
      #expect(pins.contains(destination(number), nowSeconds: 1000))
    }
    let lost = (0..<limit).filter { !pins.contains(destination($0), nowSeconds: 1000) }
    #expect(lost.count == 10)
    #expect(lost.allSatisfy { $0 % 7 == 0 })
    // Those that have ended go together.
    pins.note(destination(limit + 10), ttlSeconds: 2000, nowSeconds: 2500)
    #expect(pins.count == 11)
  }

  @Test("What was written down is taken over, and of one destination the later time counts")
  func restoration() {
    let pins = Pins()
    pins.note(destination(1), ttlSeconds: 100, nowSeconds: 1000)
    pins.note(destination(2), ttlSeconds: 100, nowSeconds: 1000)
    pins.restore([
      Pins.Pin(destination: destination(1), untilSeconds: 1050),
      Pins.Pin(destination: destination(2), untilSeconds: 1500),
      Pins.Pin(destination: destination(3), untilSeconds: 900),
    ])
    let expected: Set<Pins.Pin> = [
      Pins.Pin(destination: destination(1), untilSeconds: 1100),
      Pins.Pin(destination: destination(2), untilSeconds: 1500),
    ]
    #expect(all(pins, 1000) == expected)
    let limit = Pins.maximumPins
    let flood = (0..<limit + 10).map {
      Pins.Pin(destination: destination($0), untilSeconds: 2000)
    }
    let other = Pins()
    other.restore(flood)
    #expect(other.count == limit)
  }

  @Test("Clearing forgets an address, one port there, or all, and says how many")
  func clearing() {
    let pins = Pins()
    func fill() {
      for number in 1...2 {
        for port: UInt16 in [80, 81] {
          pins.note(destination(number, port: port), ttlSeconds: 100, nowSeconds: 1000)
        }
      }
    }
    fill()
    let version = pins.version
    #expect(pins.clear(address: address(3)) == 0)
    #expect(pins.clear(address: address(1), port: 82) == 0)
    #expect(pins.count == 4)
    #expect(pins.clear(address: address(1), port: 80) == 1)
    #expect(!pins.contains(destination(1), nowSeconds: 1000))
    #expect(pins.contains(destination(1, port: 81), nowSeconds: 1000))
    #expect(pins.clear(address: address(2)) == 2)
    #expect(pins.count == 1)
    // Written down, too.
    #expect(pins.version > version)
    fill()
    #expect(pins.clear() == 4)
    #expect(pins.count == 0)
  }
}

@Suite("Who was there before")
struct KnownPeersTests {
  private static func peer(_ name: String) throws -> SPIFFEID {
    try SPIFFEID("spiffe://demo.mesh/\(name)")
  }

  @Test("A change is told once, and for its destination only")
  func change() throws {
    let (one, other) = (try Self.peer("one"), try Self.peer("other"))
    let known = KnownPeers()
    #expect(known.note(destination(1), one) == nil)
    #expect(known.note(destination(1), one) == nil)
    #expect(known.note(destination(1, port: 81), other) == nil)
    #expect(known.note(destination(1), other) == one)
    #expect(known.note(destination(1), other) == nil)
    #expect(known.note(destination(1), one) == other)
  }

  @Test("A flood of destinations displaces some")
  func flood() throws {
    let (one, other) = (try Self.peer("one"), try Self.peer("other"))
    let (full, flooded) = (KnownPeers(), KnownPeers())
    let limit = KnownPeers.maximumDestinations
    for number in 0..<limit { _ = full.note(destination(number), one) }
    let kept = (0..<limit).count { full.note(destination($0), other) == one }
    #expect(kept == limit)
    for number in 0..<limit + 100 { _ = flooded.note(destination(number), one) }
    let left = (0..<limit + 100).count { flooded.note(destination($0), other) == one }
    #expect((1...limit).contains(left))
  }
}
