internal import CWorkloadAPI
internal import Identity

extension X509SVIDResponse {
  /// Reads one message; anything that is missing or wrong in it discards the whole of it
  /// (Workload API §4.5).
  init(decoding bytes: UnsafeRawBufferPointer) throws(Discarded) {
    self = try unsafe unpacked(
      bytes, x509_svidresponse__unpack, x509_svidresponse__free_unpacked
    ) { message throws(Discarded) in
      guard unsafe message.pointee.n_svids > 0 else { throw Discarded(reason: "no svids") }
      let entries = unsafe UnsafeBufferPointer(
        start: message.pointee.svids, count: message.pointee.n_svids)
      try require(entries.count, atMost: WorkloadLimits.svidsMaximum, "SVIDs")
      var svids: [X509SVIDEntry] = []
      var hints: Set<String> = []
      for index in entries.indices {
        let svid = try unsafe X509SVIDEntry(entries[index], number: index + 1)
        // The first one with a hint is the one (Workload API §5.2.1).
        if svid.hint.isEmpty || hints.insert(svid.hint).inserted { svids.append(svid) }
      }
      return X509SVIDResponse(
        svids: svids,
        crls: try unsafe revocationLists(message.pointee.crl, message.pointee.n_crl),
        federatedBundles: try unsafe trustDomainBundles(
          message.pointee.federated_bundles, message.pointee.n_federated_bundles))
    }
  }
}

extension X509BundlesResponse {
  /// Reads one message, as X509SVIDResponse does.
  init(decoding bytes: UnsafeRawBufferPointer) throws(Discarded) {
    self = try unsafe unpacked(
      bytes, x509_bundles_response__unpack, x509_bundles_response__free_unpacked
    ) { message throws(Discarded) in
      guard unsafe message.pointee.n_bundles > 0 else { throw Discarded(reason: "no bundles") }
      return X509BundlesResponse(
        crls: try unsafe revocationLists(message.pointee.crl, message.pointee.n_crl),
        bundles: try unsafe trustDomainBundles(message.pointee.bundles, message.pointee.n_bundles))
    }
  }
}

extension X509SVIDEntry {
  fileprivate init(
    _ entry: UnsafeMutablePointer<X509SVID>?, number: Int
  ) throws(Discarded) {
    guard let entry = unsafe entry else { throw Discarded(reason: "SVID \(number) is not there") }
    let fields = unsafe entry.pointee
    for (name, count) in unsafe [
      ("spiffe_id", fields.spiffe_id.len), ("x509_svid", fields.x509_svid.len),
      ("x509_svid_key", fields.x509_svid_key.len), ("bundle", fields.bundle.len),
    ] where count == 0 {
      throw Discarded(reason: "SVID \(number) has no \(name)")
    }
    let text = unsafe String(decoding: raw(fields.spiffe_id), as: UTF8.self)
    do throws(SPIFFEIDError) {
      id = try SPIFFEID(text)
    } catch {
      throw Discarded(reason: "the spiffe_id of SVID \(number) is none: \(error.rawValue)")
    }
    guard !id.path.isEmpty else {
      throw Discarded(reason: "the spiffe_id of SVID \(number) has no path, so it is no workload's")
    }
    guard unsafe fields.hint.len <= WorkloadLimits.hintMaximumBytes,
      let hint = unsafe String(validating: raw(fields.hint), as: UTF8.self)
    else {
      throw Discarded(
        reason: "the hint of SVID \(number) is not text of at most "
          + "\(WorkloadLimits.hintMaximumBytes) bytes")
    }
    self.hint = hint
    certificates = unsafe Array(raw(fields.x509_svid))
    privateKey = unsafe SecretBytes(copying: raw(fields.x509_svid_key))
    bundle = unsafe Array(raw(fields.bundle))
  }
}

/// Unpacks a message, lets `read` make a value of it, and frees it. What it held is cleansed.
private func unpacked<Message, Value>(
  _ bytes: UnsafeRawBufferPointer,
  _ unpack: (UnsafeMutablePointer<ProtobufCAllocator>?, Int, UnsafePointer<UInt8>?)
    -> UnsafeMutablePointer<Message>?,
  _ free: (UnsafeMutablePointer<Message>?, UnsafeMutablePointer<ProtobufCAllocator>?) -> Void,
  _ read: (UnsafeMutablePointer<Message>) throws(Discarded) -> Value
) throws(Discarded) -> Value {
  var budget = WorkloadLimits.unpackedMaximumBytes
  return try unsafe withUnsafeMutablePointer(to: &budget) { budget throws(Discarded) in
    var allocator = unsafe CleansingAllocator.forProtobuf(budget: budget)
    let message = unsafe bytes.withMemoryRebound(to: UInt8.self) {
      unsafe unpack(&allocator, $0.count, $0.baseAddress)
    }
    guard let message = unsafe message else {
      throw Discarded(reason: "not a message of the Workload API")
    }
    defer { unsafe free(message, &allocator) }
    return try unsafe read(message)
  }
}

/// A field's bytes; they live as long as the unpacked message.
private func raw(_ field: ProtobufCBinaryData) -> UnsafeRawBufferPointer {
  unsafe UnsafeRawBufferPointer(start: field.data, count: field.len)
}

private func require(_ count: Int, atMost maximum: Int, _ what: String) throws(Discarded) {
  guard count <= maximum else { throw Discarded(reason: "more than \(maximum) \(what)") }
}

private func revocationLists(
  _ start: UnsafeMutablePointer<ProtobufCBinaryData>?, _ count: Int
) throws(Discarded) -> [[UInt8]] {
  try require(count, atMost: WorkloadLimits.crlsMaximum, "CRLs")
  let lists = unsafe UnsafeBufferPointer(start: start, count: count)
  return unsafe lists.map { unsafe Array(raw($0)) }
}

/// A map from the IDs of trust domains to their bundles.
///
/// A key that occurs twice is refused, and a trust domain with an empty bundle is left out: nobody
/// in it can be verified, as if it were not there.
private func trustDomainBundles(
  _ start: UnsafeMutablePointer<UnsafeMutablePointer<BundleEntry>?>?, _ count: Int
) throws(Discarded) -> [TrustDomainBundle] {
  try require(count, atMost: WorkloadLimits.bundlesMaximum, "bundles")
  var bundles: [TrustDomain: [UInt8]] = [:]
  let entries = unsafe UnsafeBufferPointer(start: start, count: count)
  for index in entries.indices {
    guard let fields = unsafe entries[index]?.pointee else { continue }
    let trustDomain = try unsafe trustDomain(raw(fields.key))
    let certificates = unsafe Array(raw(fields.value))
    guard bundles.updateValue(certificates, forKey: trustDomain) == nil else {
      throw Discarded(reason: "two bundles for \(trustDomain)")
    }
  }
  return bundles.sorted { $0.key < $1.key }.filter { !$0.value.isEmpty }
    .map { (trustDomain: $0.key, certificates: $0.value) }
}

private func trustDomain(_ key: UnsafeRawBufferPointer) throws(Discarded) -> TrustDomain {
  let id: SPIFFEID
  do throws(SPIFFEIDError) {
    id = try SPIFFEID(unsafe String(decoding: key, as: UTF8.self))
  } catch {
    throw Discarded(reason: "a bundle is not for a trust domain: \(error.rawValue)")
  }
  guard id.path.isEmpty else {
    throw Discarded(reason: "a bundle is for \(id), which is not a trust domain")
  }
  return id.trustDomain
}
