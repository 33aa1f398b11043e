internal import CLinux
internal import CTestSupport
internal import Foundation

/// What went over one device of a namespace, recorded by tcpdump.
package final class Capture: @unchecked Sendable {
  private let program: Program
  private let directory: TemporaryDirectory
  private let path: String

  /// Starts recording; returns once tcpdump listens.
  package init(in namespace: Namespace, device: String = "eth0") throws {
    directory = try TemporaryDirectory()
    path = directory.path + "/capture.pcap"
    // -Z root: tcpdump would otherwise give up root before it opens the file. The kernel's ring has
    // a frame of the snapshot length for each packet, small or large: 64 KiB and the header of a
    // packet that no device has cut up, and room for a thousand.
    program = try namespace.start([
      "tcpdump", "-i", device, "-w", path, "-U", "--immediate-mode", "-s", "65600", "-B", "131072",
      "-n",
      "-Z", "root",
    ])
    try program.waitForError(containing: "listening on")
  }

  /// Ends recording, after making sure that all that was sent before is in it: a datagram sent
  /// last must have been recorded.
  package func finish(markFrom sender: Namespace, to address: String) throws -> Recording {
    let marker = "end of capture \(UUID().uuidString)"
    try sender.sendDatagram(marker, to: address, port: 9)
    try eventually("the last datagram in the capture") {
      contents(ofFile: path).contains(marker.utf8)
    }
    program.send(signal: SIGINT)
    _ = try program.wait()
    guard
      !program.errors.text.contains("packets dropped by kernel")
        || program.errors.lines.contains(where: { $0.hasPrefix("0 packets dropped by kernel") })
    else { throw Trouble("the capture lost packets\n\(program.transcript)") }
    return Recording(pcap: contents(ofFile: path))
  }
}

/// A finished capture.
package struct Recording: Sendable {
  private let pcap: [UInt8]
  /// TCP payload per direction of each connection, in sequence order.
  package let streams: [[UInt8]]
  /// The header of every TCP segment, in the order recorded.
  package let headers: [TCPHeader]

  init(pcap: [UInt8]) {
    self.pcap = pcap
    let streams = TCPStreams(pcap: pcap)
    self.streams = streams.reassembled
    headers = streams.headers
  }

  /// Occurrences on the wire: in the reassembled streams, and in the raw packets, whichever is
  /// more (a retransmission counts once in the first, a damaged stream still counts in the second).
  package func count(of canary: String) -> Int {
    let bytes = Array(canary.utf8)
    return max(
      streams.reduce(0) { $0 + $1.occurrences(of: bytes) }, pcap.occurrences(of: bytes))
  }

  /// Streams that begin with a TLS handshake record (RFC 8446 §5.1).
  package var tlsStreamCount: Int {
    streams.count { $0.starts(with: [0x16, 0x03]) }
  }

  /// Bytes of TCP payload in all.
  package var payloadByteCount: Int { streams.reduce(0) { $0 + $1.count } }
}

extension [UInt8] {
  package func contains(_ other: String.UTF8View) -> Bool { occurrences(of: Array(other)) > 0 }

  /// How often `pattern` occurs, without overlap.
  package func occurrences(of pattern: [UInt8]) -> Int { positions(of: pattern).count }
}

/// Reads the classic pcap format, link type Ethernet.
private struct TCPStreams {
  private struct Flow: Hashable {
    let source: [UInt8]
    let destination: [UInt8]
    let ports: [UInt8]
  }

  private struct Segment {
    let sequence: UInt32
    let payload: ArraySlice<UInt8>
  }

  private var flows: [Flow: [Segment]] = [:]
  private var order: [Flow] = []
  private(set) var headers: [TCPHeader] = []

  init(pcap: [UInt8]) {
    var offset = 24
    while offset + 16 <= pcap.count {
      let length = Int(pcap.littleEndian32(at: offset + 8))
      offset += 16
      guard offset + length <= pcap.count else { break }
      addFrame(pcap[offset..<offset + length])
      offset += length
    }
  }

  var reassembled: [[UInt8]] {
    order.map { flow in
      let segments = flows[flow, default: []]
      guard let first = segments.first else { return [] }
      // Relative to the first one seen, so that the order survives a wrap of the number.
      let sorted = segments.map { (Int(Int32(bitPattern: $0.sequence &- first.sequence)), $0) }
        .sorted { $0.0 < $1.0 }
      var bytes: [UInt8] = []
      var next = sorted[0].0
      for (position, segment) in sorted {
        let known = max(0, next - position)
        guard known < segment.payload.count else { continue }
        bytes += segment.payload.dropFirst(known)
        next = position + segment.payload.count
      }
      return bytes
    }
  }

  private mutating func addFrame(_ frame: ArraySlice<UInt8>) {
    let frame = Array(frame)
    guard frame.count > 14 else { return }
    switch frame.bigEndian16(at: 12) {
    case 0x0800 where frame.count >= 34 && frame[23] == 6:
      let header = Int(frame[14] & 0xf) * 4
      let end = min(frame.count, 14 + Int(frame.bigEndian16(at: 16)))
      addSegment(
        frame, from: 14 + header, to: end, source: Array(frame[26..<30]),
        destination: Array(frame[30..<34]))
    case 0x86dd where frame.count >= 54 && frame[20] == 6:
      let end = min(frame.count, 54 + Int(frame.bigEndian16(at: 18)))
      addSegment(
        frame, from: 54, to: end, source: Array(frame[22..<38]), destination: Array(frame[38..<54])
      )
    default: break
    }
  }

  private mutating func addSegment(
    _ frame: [UInt8], from start: Int, to end: Int, source: [UInt8], destination: [UInt8]
  ) {
    guard end >= start + 20 else { return }
    let payload = start + Int(frame[start + 12] >> 4) * 4
    guard payload <= end, var header = TCPHeader(frame[start..<payload]) else { return }
    header.payloadByteCount = end - payload
    headers.append(header)
    guard payload < end else { return }
    let flow = Flow(
      source: source, destination: destination, ports: Array(frame[start..<start + 4]))
    if flows[flow] == nil { order.append(flow) }
    flows[flow, default: []].append(
      Segment(sequence: frame.bigEndian32(at: start + 4), payload: frame[payload..<end]))
  }
}

extension [UInt8] {
  fileprivate func bigEndian16(at offset: Int) -> UInt16 {
    UInt16(self[offset]) << 8 | UInt16(self[offset + 1])
  }

  fileprivate func bigEndian32(at offset: Int) -> UInt32 {
    UInt32(bigEndian16(at: offset)) << 16 | UInt32(bigEndian16(at: offset + 2))
  }

  fileprivate func littleEndian32(at offset: Int) -> UInt32 {
    (0..<4).reduce(0) { $0 | UInt32(self[offset + $1]) << UInt32(8 * $1) }
  }
}
