"""Culvert beside other proxies and beside none: the same work, in the same run.

Docs/PERFORMANCE.md says how and what each is given."""
