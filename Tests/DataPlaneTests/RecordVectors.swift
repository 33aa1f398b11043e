import TLS

/// Bytes from hexadecimal text, whatever its white space.
func hex(_ text: String) -> [UInt8] {
  let digits = text.compactMap(\.hexDigitValue)
  precondition(digits.count % 2 == 0)
  return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

/// One direction of a connection, computed by another implementation.
struct RecordVector {
  let suite: CipherSuite
  /// application_traffic_secret_0, and what follows from it (RFC 8446 §7.3).
  let secret: [UInt8]
  let key: [UInt8]
  let iv: [UInt8]
  /// The 50 bytes 0, 1, 2… as application data at sequence number 0.
  let first: [UInt8]
  /// The same with seven bytes of padding at sequence number 1.
  let padded: [UInt8]
  /// The same as the first at sequence number 0x0102030405060708.
  let numbered: [UInt8]
  /// application_traffic_secret_1 (RFC 8446 §7.2), and its first record.
  let nextSecret: [UInt8]
  let nextKey: [UInt8]
  let nextIV: [UInt8]
  let next: [UInt8]

  static let content = [UInt8](0..<50)

  /// Made with Python's `cryptography` 48: HKDFExpand over an HkdfLabel, AESGCM and
  /// ChaCha20Poly1305. The secrets are counted up from 1, 64 and 128.
  static let all = [
    RecordVector(
      suite: .aes128GCM,
      secret: hex(
        """
        0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20
        """),
      key: hex(
        """
        28596a230c2c30a952fe79483568e18e
        """),
      iv: hex(
        """
        fc73b522c6809e028f922c68
        """),
      first: hex(
        """
        17030300437ac4fc5d7a635d57831095d40374a7b3de1836e1f64dc29742c393d0e3f60e2fa65d97
        10d93a624164029f6991d5a76d0cecc9453215f2172209a52acf61297825c2da
        """),
      padded: hex(
        """
        170303004a58cd1349dcf17f7e81852a8e2730c6f91a872728b82a2e341ebd7ec1bdf952c289cce5
        91c37af25c3277b88c27779b4d1fca21b3da8e0bba268fe976e81cc816e428aec6bd99309ad421
        """),
      numbered: hex(
        """
        1703030043158c0a6d02f70f173043f04b7c3b60dbae6720d98f5ae308d807ab4a2ff93f7902eaef
        8b95e73142be0e037d51a276e789dfd0c2a90eef0918b361cf06b3ec19387c27
        """),
      nextSecret: hex(
        """
        ebf1d6d4afa5f7dddc88b36831eeb3bc06442dd689b178268aba45a02bd81f07
        """),
      nextKey: hex(
        """
        6eb384cdfd97e5a659ba84d6ccc2df91
        """),
      nextIV: hex(
        """
        6cfb55f47f12a3238a4fe0de
        """),
      next: hex(
        """
        17030300438c2ef7b5ce5488b1bf6a7dd7c93c2978a464aab80861b2724fa191f941df108de465c5
        fe9cc6b509b14619d82ea9c5d73df6c170a10b46cfc08ccffc3cdb7f54e67f4c
        """)),
    RecordVector(
      suite: .aes256GCM,
      secret: hex(
        """
        404142434445464748494a4b4c4d4e4f505152535455565758595a5b5c5d5e5f6061626364656667
        68696a6b6c6d6e6f
        """),
      key: hex(
        """
        32f584230ad7bd6ea025e6e6cc16e757358c962ebc8196f5433acae983fb668b
        """),
      iv: hex(
        """
        0e7c7d30272bc74a0c9833b2
        """),
      first: hex(
        """
        170303004387db1cd32e308ff465299c206b8d28b0fd4a2b8029b41b3c25cc85a21ab2c3c18035d5
        e56e9df6314607f99a23a4454c9aefbc71350cea33ddabf9d23447e5632da0a1
        """),
      padded: hex(
        """
        170303004a1a4d5778c7daf1301af6775bef3c670174ac86aa967b00292a391de23e0e097a22f0a3
        ee4fde75bd7a3b44098606d389732d6a1d08d70492c61db2bc8ccdcb78fc3d0252b2ef0166a3c9
        """),
      numbered: hex(
        """
        17030300434fe2e8df1a0a0b04a6d16f9155836615173850564739ffe2a1be8a9a23225dcbcde4ea
        815a34d7fb1253177056a8404f2f8f30c7ab50c89431fc4d657542557ae0b975
        """),
      nextSecret: hex(
        """
        3255a7cd505c9e8030cd35c53a234e9d4a0fbe907003b132feea8e7eb3fafab00aa859605fcdc4d1
        f4e7f49d221fabad
        """),
      nextKey: hex(
        """
        065a8ccbaae5204862d12776158ae026e505e545280b43bc1c6e1908a3c181b1
        """),
      nextIV: hex(
        """
        523669884609c45edc76ef6d
        """),
      next: hex(
        """
        1703030043093db662adfd46ca0ececf4f171561817bbcdc234c8dc8e8a2442a24fca5738b8890b7
        f607fef5028f861e0deb3faf524c1117c2574a3d2784175dc8af51a3e744f143
        """)),
    RecordVector(
      suite: .chacha20Poly1305,
      secret: hex(
        """
        808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f
        """),
      key: hex(
        """
        5c96661b96c42c1b5289d3c3b21a19a6b872f11d08363b5e93d13373841c8e7b
        """),
      iv: hex(
        """
        6c8a8fa6342c9d263c731f9c
        """),
      first: hex(
        """
        17030300436019aa9d25ffdec115d2a20a2ea8e7bf951ac9c954c53a24acfb8c4845bdcf9f6f3529
        68f8f67f731ac9f24877b3c0f40c226bc32f004a6a283dc860e06027e0f9e87c
        """),
      padded: hex(
        """
        170303004adaed5513ccf9da99d1b97aa6017f14a079c1f44582e3292c36cc00587b7dc83edb4ff7
        0d09b8ec76e8b38819eaf1b4fa856b77c1363abcdc9ef6fee1b3089c86aaedffa53f5824763c18
        """),
      numbered: hex(
        """
        1703030043dbc20d0d2fcdffb2be26c91b4b35d7d9b3232098c5974289b0d3600d023fe97bfc1f8a
        7b1f82c0bca1bf373d315780667caa220797e94d4ab6ea02db9594cd8a867f47
        """),
      nextSecret: hex(
        """
        f513a8fc9f99b8c23ba4174769b07f080d3b32b0977f76e226c4084333c6f76c
        """),
      nextKey: hex(
        """
        2a6e4148fc86dcc6dc739a2fefadc86087ac60b7e1ef05d606fdd7fc63e1600e
        """),
      nextIV: hex(
        """
        c2cf0441d0c5624fc115e8be
        """),
      next: hex(
        """
        170303004370d9cf245db6672062887cdb2369c20be6fc4174e82a850da0e26bb878763ba532c051
        983bcc778246c5721bbe9d557b887c1590ea3192006497b039caa719fa2e176b
        """)),
  ]
}

/// RFC 8448 §3, "Simple 1-RTT Handshake": what follows the handshake.
enum Trace {
  /// client_application_traffic_secret_0, with its key and IV.
  static let clientSecret = hex(
    """
    9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5
    """)
  static let clientKey = hex(
    """
    17422dda596ed5d9acd890e3c63f5051
    """)
  static let clientIV = hex(
    """
    5b78923dee08579033e523d9
    """)
  /// server_application_traffic_secret_0, with its key and IV.
  static let serverSecret = hex(
    """
    a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643
    """)
  static let serverKey = hex(
    """
    9f02283b6c9c07efc26bb9f2ac92e356
    """)
  static let serverIV = hex(
    """
    cf782b88dd83549aadf1e984
    """)
  /// The NewSessionTicket message.
  static let ticket = hex(
    """
    040000c90000001efad6aac502000000b22c035d829359ee5ff7af4ec900000000262a6494dc486d2c8a
    34cb33fa90bf1b0070ad3c498883c9367c09a2be785abc55cd226097a3a982117283f82a03a143efd3ff
    5dd36d64e861be7fd61d2827db279cce145077d454a3664d4e6da4d29ee03725a6a4dafcd0fc67d2aea7
    0529513e3da2677fa5906c5b3f7d8f92f228bda40dda721470f9fbf297b5aea617646fac5c03272e9707
    27c621a79141ef5f7de6505e5bfbc388e93343694093934ae4d3570008002a000400000400
    """)
  /// The server's records: the ticket, the data 0…49, close_notify.
  static let ticketRecord = hex(
    """
    17030300de3a6b8f90414a97d6959c3487680de5134a2b240e6cffac116e95d41d6af8f6b580dcf3d11d
    63c758db289a015940252f55713e061dc13e078891a38efbcf5753ad8ef170ad3c7353d16d9da773b9ca
    7f2b9fa1b6c0d4a3d03f75e09c30ba1e62972ac46f75f7b981be63439b2999ce13064615139891d5e4c5
    b406f16e3fc181a77ca475840025db2f0a77f81b5ab05b94c01346755f69232c86519d86cbeeac87aac3
    47d143f9605d64f650db4d023e70e952ca49fe5137121c74bc2697687e248746d6df353005f3bce18696
    129c8153556b3b6c6779b37bf15985684f
    """)
  static let serverData = hex(
    """
    17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc60
    2dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d
    """)
  static let serverAlert = hex(
    """
    1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9
    """)
  /// The client's records: the data 0…49, close_notify.
  static let clientData = hex(
    """
    1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd5
    4a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4
    """)
  static let clientAlert = hex(
    """
    1703030013c9872760655666b74d7ff1153efd6db6d0b0e3
    """)
}
