"""Modules that scripts and tests share: a stub edge server, published figures as profiles, and a check of records."""
