/// Real servers, run in a test's namespace from a directory of their own: in the foreground, never
/// as the system's services, and gone with the namespace.
package enum RealServer {
  /// MariaDB with a database `shop` and a user `shop` (password `shop`). It speaks first.
  /// With a credential it also offers TLS of its own.
  package static func mariaDB(in namespace: Namespace, tls: Credential? = nil) throws {
    let directory = try makeDirectory(for: namespace)
    let data = try directory.makeDirectory("data")
    try Program.check(["chown", "-R", "mysql:", directory.path])
    try Program.check([
      "mariadb-install-db", "--no-defaults", "--user=mysql", "--datadir=\(data)", "--skip-test-db",
      "--auth-root-authentication-method=normal",
    ])
    let script = try directory.write(
      """
      CREATE DATABASE shop;
      CREATE USER shop@'%' IDENTIFIED BY 'shop';
      GRANT ALL ON shop.* TO shop@'%';
      """, to: "init.sql")
    var command = [
      "mariadbd", "--no-defaults", "--user=mysql", "--datadir=\(data)", "--socket=\(data)/socket",
      "--pid-file=\(data)/pid", "--port=3306", "--bind-address=*", "--skip-name-resolve",
      "--skip-log-bin", "--innodb-buffer-pool-size=16M", "--init-file=\(script)",
    ]
    if let tls {
      // The server gives up root before it reads them.
      for (source, name) in [(tls.certificate, "tls.pem"), (tls.privateKey, "tls.key")] {
        try Program.check([
          "install", "-o", "mysql", "-m", "600", source, "\(directory.path)/\(name)",
        ])
      }
      command += ["--ssl-cert=\(directory.path)/tls.pem", "--ssl-key=\(directory.path)/tls.key"]
    }
    let program = try namespace.start(command)
    try program.waitForError(containing: "ready for connections", seconds: 60)
  }

  package static func makeDirectory(for namespace: Namespace) throws -> TemporaryDirectory {
    let directory = try TemporaryDirectory()
    namespace.keep(directory)
    return directory
  }
}
