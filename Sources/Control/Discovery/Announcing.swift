internal import Announcement
internal import Configuration
internal import Net
internal import Policy

/// Whether this process announces mesh in the TCP handshake, and why not. The program in the kernel
/// goes with it.
struct Announcing: ~Copyable {
  enum State: String {
    case works
    case off
    case failed
  }

  let state: State
  /// Why it failed; one line for people.
  let reason: String?
  private let announcer: Announcer?

  /// Loads the program, tries it, and keeps it. Needs privileges that are dropped afterwards.
  init(_ settings: Settings) {
    guard settings.discovery.announce == .auto else {
      state = .off
      reason = nil
      announcer = nil
      return
    }
    do throws(AnnouncementError) {
      announcer = try Announcer(mark: settings.interception.mark)
      state = .works
      reason = nil
    } catch {
      announcer = nil
      state = .failed
      reason = error.description
    }
  }
}
