"""Modules that scripts and tests share: a stub edge server, and published figures as profiles."""
