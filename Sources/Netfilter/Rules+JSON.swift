extension Table {
  /// The table as JSON with fixed keys in a fixed order: `family`, `name`, and `chains`, each with
  /// `name`, `type`, `hook`, `priority`, `policy` and `rules`, which are nft text.
  package var json: String {
    let chains = chains.map { chain in
      let rules = chain.rules.map { "        \(quoted($0.description))" }
      return """
            {
              "name": \(quoted(chain.name)),
              "type": \(quoted(chain.kind.rawValue)),
              "hook": \(quoted(chain.hook.rawValue)),
              "priority": \(chain.kind.priority),
              "policy": "accept",
              "rules": \(list(rules, indent: "      "))
            }
        """
    }
    return """
      {
        "family": "inet",
        "name": \(quoted(Table.name)),
        "chains": \(list(chains, indent: "  "))
      }

      """
  }
}

private func list(_ items: [String], indent: String) -> String {
  items.isEmpty ? "[]" : "[\n" + items.joined(separator: ",\n") + "\n\(indent)]"
}

/// A JSON string (RFC 8259 §7).
private func quoted(_ text: String) -> String {
  var result = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": result += "\\\""
    case "\\": result += "\\\\"
    case "\u{0}"..<"\u{20}":
      let digits = String(scalar.value, radix: 16)
      result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
    default: result.unicodeScalars.append(scalar)
    }
  }
  return result + "\""
}
