import TestSupport
import Testing

extension RealPrograms {
  @Suite("Databases")
  struct Databases {
    @Test(
      "MariaDB answers its client", .needs(program: "mariadbd"), .needs(program: "mariadb"),
      arguments: Wire.allCases, Family.allCases)
    func mariaDB(wire: Wire, family: Family) throws {
      try wire.run("canary-of-mariadb") { mesh in
        try RealServer.mariaDB(in: mesh.server)
        let answer = try mesh.client.check(
          Self.mariaDBClient(family.server) + ["--execute=SELECT 'canary-of-mariadb', 6 * 7"])
        #expect(answer == "canary-of-mariadb\t42\n")
        let rows = try mesh.client.check(
          Self.mariaDBClient(family.server),
          input: """
            CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, data LONGTEXT);
            INSERT INTO t (data) VALUES (REPEAT('x', 1000000));
            INSERT INTO t (data) SELECT data FROM t;
            SELECT COUNT(*), SUM(LENGTH(data)) FROM t;
            SELECT MD5(data) FROM t;
            """)
        #expect(rows.hasPrefix("2\t2000000\n"))
      }
    }

    @Test(
      "MariaDB's own TLS goes through untouched", .needs(program: "mariadbd"),
      .needs(program: "mariadb"), arguments: [Wire.direct, .permissive, .strict])
    func mariaDBWithTLS(wire: Wire) throws {
      // The server's version is in its greeting, before TLS.
      try wire.run("MariaDB") { mesh in
        try RealServer.mariaDB(in: mesh.server, tls: try Identities.web.get())
        let answer = try mesh.client.check(
          Self.mariaDBClient(Family.v4.server) + [
            "--ssl", "--ssl-ca=\(try Identities.authority.get().bundle)",
            "--execute=SHOW STATUS LIKE 'Ssl_version'",
          ])
        #expect(answer == "Ssl_version\tTLSv1.3\n")
      }
    }

    private static func mariaDBClient(_ address: String) -> [String] {
      [
        "mariadb", "--no-defaults", "--host=\(address)", "--user=shop", "--password=shop",
        "--batch", "--skip-column-names", "--max-allowed-packet=64M", "shop",
      ]
    }

    @Test(
      "PostgreSQL answers psql and pgbench", .needs(program: "psql"), .needs(program: "pgbench"),
      arguments: Wire.allCases, Family.allCases)
    func postgreSQL(wire: Wire, family: Family) throws {
      try wire.run("canary-of-postgresql") { mesh in
        try RealServer.postgreSQL(in: mesh.server)
        let connection = ["--host=\(family.server)", "--username=postgres"]
        let answer = try mesh.client.check(
          ["psql", "--no-psqlrc", "--tuples-only", "--no-align"] + connection
            + ["--command=SELECT 'canary-of-postgresql', 6 * 7", "postgres"])
        #expect(answer == "canary-of-postgresql|42\n")
        try mesh.client.check(
          ["pgbench", "--initialize", "--quiet", "--scale=1"] + connection + ["postgres"])
        for options in [["--client=8", "--transactions=50"], ["--connect", "--transactions=20"]] {
          let report = try mesh.client.check(["pgbench"] + options + connection + ["postgres"])
          #expect(report.contains("number of failed transactions: 0 "))
        }
      }
    }

    @Test(
      "Redis answers redis-cli and redis-benchmark", .needs(program: "redis-server"),
      .needs(program: "redis-cli"), arguments: Wire.allCases, Family.allCases)
    func redis(wire: Wire, family: Family) throws {
      try wire.run("canary-of-redis") { mesh in
        try RealServer.redis(in: mesh.server)
        let client = ["redis-cli", "-h", family.server]
        #expect(try mesh.client.check(client + ["SET", "key", "canary-of-redis"]) == "OK\n")
        #expect(try mesh.client.check(client + ["GET", "key"]) == "canary-of-redis\n")
        let report = try mesh.client.check([
          "redis-benchmark", "-h", family.server, "-n", "2000", "-c", "20", "-P", "4", "-t",
          "set,get", "--csv",
        ])
        #expect(report.contains("\"SET\"") && report.contains("\"GET\""))
      }
    }

    @Test(
      "Redis in protected mode still sees that a client is not local",
      .needs(program: "redis-server"), .needs(program: "redis-cli"), arguments: Wire.allCases,
      Family.allCases)
    func redisProtectedMode(wire: Wire, family: Family) throws {
      try wire.run("DENIED") { mesh in
        try RealServer.redis(in: mesh.server, isProtected: true)
        let local = try mesh.server.check(["redis-cli", "-h", family.loopback, "PING"])
        #expect(local == "PONG\n")
        let remote = try mesh.client.run(["redis-cli", "-h", family.server, "PING"])
        #expect((remote.output + remote.errors).contains("DENIED"))
      }
    }
  }
}
