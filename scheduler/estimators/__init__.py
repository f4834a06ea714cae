"""Estimators: what is learned from traffic and answers, one per file, pure. Imports scheduler.domain and numpy only."""
