internal import Identity

// The messages as an agent sends them. Every field is length-delimited (Protocol Buffers, Encoding),
// and a message that holds a key is written once, into memory that is cleansed.

extension X509SVIDResponse {
  /// The message with its gRPC prefix, as `GRPCConnection.send` takes it.
  package func framed() -> SecretBytes {
    let sizes = svids.map(\.fields.size)
    let bundles = federatedBundles.map { bundleFields($0) }
    let size =
      sizes.reduce(0) { $0 + Field.size($1) } + crls.reduce(0) { $0 + Field.size($1.count) }
      + bundles.reduce(0) { $0 + Field.size($1.size) }
    return MessageReader.framed(size) { buffer in
      for (svid, size) in zip(svids, sizes) {
        Field.begin(1, size, &buffer)
        svid.fields.append(to: &buffer)
      }
      for crl in crls { Field(2, crl).append(to: &buffer) }
      for fields in bundles {
        Field.begin(3, fields.size, &buffer)
        fields.append(to: &buffer)
      }
    }
  }
}

extension X509BundlesResponse {
  package func framed() -> SecretBytes {
    let bundles = bundles.map { bundleFields($0) }
    let size =
      crls.reduce(0) { $0 + Field.size($1.count) } + bundles.reduce(0) { $0 + Field.size($1.size) }
    return MessageReader.framed(size) { buffer in
      for crl in crls { Field(1, crl).append(to: &buffer) }
      for fields in bundles {
        Field.begin(2, fields.size, &buffer)
        fields.append(to: &buffer)
      }
    }
  }
}

extension X509SVIDEntry {
  fileprivate var fields: [Field] {
    [
      Field(1, Array(id.description.utf8)), Field(2, certificates), Field(3, secret: privateKey),
      Field(4, bundle),
    ] + (hint.isEmpty ? [] : [Field(5, Array(hint.utf8))])
  }
}

/// An entry of a map.
private func bundleFields(_ bundle: TrustDomainBundle) -> [Field] {
  [
    Field(1, Array("\(SPIFFEID.scheme)\(bundle.trustDomain)".utf8)), Field(2, bundle.certificates),
  ]
}

/// One length-delimited field, numbered 1 to 15.
private struct Field {
  private enum Content {
    case bytes([UInt8])
    case secret(SecretBytes)
  }

  private let number: UInt8
  private let content: Content

  init(_ number: UInt8, _ bytes: [UInt8]) {
    self.number = number
    content = .bytes(bytes)
  }

  init(_ number: UInt8, secret: SecretBytes) {
    self.number = number
    content = .secret(secret)
  }

  var count: Int {
    switch content {
    case .bytes(let bytes): bytes.count
    case .secret(let secret): secret.count
    }
  }

  func append(to buffer: inout CleansedBuffer) {
    Self.begin(number, count, &buffer)
    switch content {
    case .bytes(let bytes): buffer.append(bytes)
    case .secret(let secret): unsafe secret.withBytes { unsafe buffer.append($0) }
    }
  }

  static func begin(_ number: UInt8, _ count: Int, _ buffer: inout CleansedBuffer) {
    buffer.append([number << 3 | 2] + varint(count))
  }

  /// Bytes of a field whose content has `count`.
  static func size(_ count: Int) -> Int { 1 + varint(count).count + count }

  private static func varint(_ value: Int) -> [UInt8] {
    var rest = value
    var bytes: [UInt8] = []
    repeat {
      bytes.append(UInt8(rest & 0x7f) | (rest > 0x7f ? 0x80 : 0))
      rest >>= 7
    } while rest > 0
    return bytes
  }
}

extension [Field] {
  fileprivate var size: Int { reduce(0) { $0 + Field.size($1.count) } }

  fileprivate func append(to buffer: inout CleansedBuffer) {
    for field in self { field.append(to: &buffer) }
  }
}
