import CLinux
import Net
import TestSupport
import Testing

@testable import Announcement

/// CAP_NET_ADMIN alone (capabilities(7)).
private let networkAdministration: UInt32 = 1 << 12

/// What starting to announce says; the thread may first change what it is allowed.
private func refusal(
  in namespace: Namespace, after change: @escaping @Sendable () throws -> Void = {}
) throws -> AnnouncementError? {
  try namespace.enter {
    try change()
    do throws(AnnouncementError) {
      _ = try Announcer(mark: UInt16(Mark.proxy))
      return nil
    } catch {
      return error
    }
  }
}

extension AnnouncementTests {
  @Suite("Refused", .needsNamespaces, .needsSockOps)
  struct Refusals {
    @Test("without CAP_BPF: the capability is named")
    func capability() throws {
      let namespace = try Namespace("bare")
      #expect(try refusal(in: namespace) == nil)
      let error = try #require(
        try refusal(in: namespace) { try Errno.check { culvert_capset(networkAdministration) } })
      #expect(error.step == .load)
      #expect(error.errno == .notPermitted)
      #expect(error.description.contains("CAP_BPF"))
      #expect(!error.description.contains("\n"))
    }

    @Test("without a visible cgroup and CAP_SYS_ADMIN: the capability is named")
    func mounting() throws {
      let error = try Namespace("bare").enter {
        try Errno.check { culvert_capset(networkAdministration) }
        do throws(AnnouncementError) {
          _ = try ControlGroup.open("/", mounts: "")
          return nil as AnnouncementError?
        } catch {
          return error
        }
      }
      #expect(error?.step == .cgroup)
      #expect(error?.errno == .notPermitted)
      #expect(error?.description.contains("CAP_SYS_ADMIN") == true)
    }

    @Test("with lo down: that is said")
    func loopback() throws {
      let namespace = try Namespace("down")
      try namespace.check(["ip", "link", "set", "lo", "down"])
      let error = try #require(try refusal(in: namespace))
      #expect(error.step == .selfTest)
      #expect(error.description.contains("lo is down"))
    }

    @Test("where the option does not come through: that is said", .needsNftables)
    func stripped() throws {
      let namespace = try Namespace("stripped")
      try namespace.check([
        "nft",
        "table inet t { chain c { type filter hook output priority 0; reset tcp option 254; }; }",
      ])
      let error = try #require(try refusal(in: namespace))
      #expect(error.step == .selfTest)
      #expect(error.description.contains("strips TCP option 254"))
    }

    @Test("where loopback is filtered: that is said", .needsNftables)
    func filtered() throws {
      let namespace = try Namespace("filtered")
      try namespace.check([
        "nft",
        "table inet t { chain c { type filter hook input priority 0; "
          + "tcp flags & (syn | ack) == syn reject with tcp reset; }; }",
      ])
      let error = try #require(try refusal(in: namespace))
      #expect(error.step == .selfTest)
      #expect(error.errno != nil)
      #expect(error.description.contains("filters"))
    }

    @Test("A program that the verifier refuses: its last words are kept")
    func verifier() throws {
      var code = BPFAssembler()
      code.exit()
      let program = code.assembled()
      let error = try #require(throws: AnnouncementError.self) { _ = try Announcer.load(program) }
      #expect(error.step == .load)
      #expect(error.description.contains("R0 !read_ok"))
      #expect(!error.description.contains("\n"))
    }
  }

  @Suite("The process's cgroup", .needsNamespaces)
  struct Groups {
    @Test("is read from the kernel's table")
    func path() {
      #expect(ControlGroup.path(in: "9:cpu:/a\n0::/b c\n") == "/b c")
      #expect(ControlGroup.path(in: "0::/\n") == "/")
      #expect(ControlGroup.path(in: "9:cpu:/a\n") == nil)
      #expect(ControlGroup.path(in: "") == nil)
    }

    @Test("is found through each mount that shows it")
    func mounts() {
      let mounts = """
        25 1 0:22 / /sys rw shared:7 - sysfs sysfs rw
        31 25 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup2 rw
        32 25 0:26 /a /other\\040place rw - cgroup2 none rw
        33 25 0:26 /ab /wrong rw - cgroup2 none rw
        34 25 0:30 / /cpu rw - cgroup cgroup rw,cpu
        a line that is none
        35 25 0:26 / /truncated rw -
        """
      #expect(
        ControlGroup.directories(of: "/a/b", mounts: mounts)
          == ["/sys/fs/cgroup/a/b", "/other place/b"])
      #expect(
        ControlGroup.directories(of: "/a", mounts: mounts) == ["/sys/fs/cgroup/a", "/other place"])
      #expect(ControlGroup.directories(of: "/", mounts: mounts) == ["/sys/fs/cgroup/"])
    }

    @Test("is opened where a mount shows it, hides it, or none is there")
    func open() throws {
      let hidden = "31 25 0:26 / /proc ro - cgroup2 cgroup2 rw"
      for mounts in [hidden, ""] {
        let detached = try ControlGroup.open("/", mounts: mounts)
        #expect(try identity(detached) == identity(try ControlGroup.open("/", mounts: mounts)))
      }
      #expect(throws: AnnouncementError.outsideControlGroup) {
        _ = try ControlGroup.open("/../sibling", mounts: "")
      }
      let missing = try #require(throws: AnnouncementError.self) {
        _ = try ControlGroup.open("/culvert-no-such-group", mounts: "")
      }
      #expect(missing.step == .cgroup)
      #expect(missing.errno == .noEntry)
    }

    @Test("is found as by ip netns exec, which hides it")
    func hidden() throws {
      let namespace = try Namespace("hidden")
      let outcome = try namespace.run(["cat", "/proc/self/mountinfo", "/proc/self/cgroup"])
      let group = try #require(ControlGroup.path(in: outcome.output))
      _ = try ControlGroup.open(group, mounts: outcome.output)
    }

    /// The inode, which is the cgroup's own number.
    private func identity(_ descriptor: borrowing Descriptor) throws -> UInt64 {
      let number = descriptor.number
      var status = stat()
      try Errno.check { unsafe fstat(number, &status) }
      return UInt64(status.st_ino)
    }
  }

  @Suite("The program")
  struct Instructions {
    @Test("differs by mark and namespace only")
    func constants() {
      let one = AnnouncementProgram.instructions(mark: 0xc17, namespace: 1)
      let other = AnnouncementProgram.instructions(mark: 0xffff, namespace: .max)
      #expect(one.count == 84)
      #expect(zip(one, other).count { $0 != $1 } == 3)
    }

    @Test("of the assembler jumps forwards and backwards to its labels")
    func jumps() {
      var code = BPFAssembler()
      let (start, end) = (code.makeLabel(), code.makeLabel())
      code.place(start)
      code.jump(if: .r1, .equal, -1, to: end)
      code.jump(to: start)
      code.place(end)
      code.exit()
      #expect(code.assembled() == [0xffff_ffff_0001_0115, 0x0000_0000_fffe_0005, 0x95])
    }
  }
}
