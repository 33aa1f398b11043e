"""Culvert beside other proxies and beside none: the same work, in the same run. See Docs/PERFORMANCE.md."""
