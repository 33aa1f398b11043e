internal import DataPlane
internal import Net
internal import Policy
internal import Telemetry

// The connection log, and what the admin socket answers.
extension ControlLoop {
  mutating func takeRecords() {
    recordsAt = nil
    let (records, queueDropped) = plane.records.take()
    var dropped = queueDropped
    for record in records where !log.append(record.text) { dropped += 1 }
    log.writeWhatFits()
    guard dropped > 0 else { return }
    if droppedLogLines == 0 {
      Diagnostics.write("the connection log is not read fast enough; lines are dropped and counted")
    }
    droppedLogLines += dropped
  }

  mutating func serveAdmin(_ now: Int64) {
    guard answerClients(now, enforced: nil) else { return }
    let enforced = enforce(now)
    _ = answerClients(now, enforced: enforced)
  }

  /// - Parameter enforced: what came of enforcing, once it was done.
  /// - Returns: whether somebody waits for it.
  private mutating func answerClients(_ now: Int64, enforced: AdminResponse?) -> Bool {
    let report = statusReport(now)
    let (identity, plane, epoch) = (identity, plane, epoch)
    var isToEnforce = false
    admin.serve(now: now) { request in
      switch request.request {
      case .status:
        return AdminResponse(status: report)
      case .identity:
        return AdminResponse(identity: IdentityReport(identity, plane.peers))
      case .metrics:
        return AdminResponse(metrics: MetricsText.text(report, names: plane.sightings.names))
      case .migration:
        return AdminResponse(
          migration: MigrationReport(
            plane.sightings, inbound: epoch.inbound, outbound: epoch.outbound,
            uptimeSeconds: report.uptimeSeconds, nowMilliseconds: Timestamp.nowMilliseconds()))
      case .enforce:
        isToEnforce = true
        return enforced
      case .pins:
        return AdminResponse(pins: PinReport.all(plane.pins))
      case .clearPins:
        return PinReport.clear(plane.pins, request)
      }
    }
    return isToEnforce
  }

  /// What was saved just before the request is meant; if it cannot be taken, nothing is ended.
  private mutating func enforce(_ now: Int64) -> AdminResponse {
    reloadIfChanged(now)
    if let lastReloadError {
      return AdminResponse(
        error: "nothing is enforced, epoch \(epoch.number) stays: \(lastReloadError)")
    }
    Diagnostics.write("enforcing: connections that would not be let in now are ended")
    plane.enforce()
    return AdminResponse()
  }

  private func statusReport(_ now: Int64) -> StatusReport {
    var isDraining = false
    if case .serving = phase {} else { isDraining = true }
    return StatusReport(
      epoch: epoch, identity: identity, settings: settings, configuration: path, plane: plane,
      announcing: announcing, uptimeSeconds: (now - startedAt) / 1000,
      lastReloadError: lastReloadError, isDraining: isDraining, droppedLogLines: droppedLogLines)
  }
}

extension PinReport {
  static func all(_ pins: Pins) -> [PinReport] {
    let now = Timestamp.nowMilliseconds() / 1000
    return pins.all(nowSeconds: now).pins
      .sorted { $0.destination.description < $1.destination.description }
      .map { pin in
        PinReport(
          address: pin.destination.address.description, port: pin.destination.port,
          until: Timestamp.text(unixMilliseconds: pin.untilSeconds * 1000),
          secondsLeft: pin.untilSeconds - now)
      }
  }

  static func clear(_ pins: Pins, _ request: AdminRequest) -> AdminResponse {
    var address: IPAddress?
    if let text = request.address {
      guard let parsed = IPAddress(text) else {
        return AdminResponse(error: "the address of the pins is none")
      }
      address = parsed
    }
    let cleared = pins.clear(address: address, port: request.port)
    Diagnostics.write("\(cleared) pins cleared on request")
    return AdminResponse(cleared: cleared)
  }
}
