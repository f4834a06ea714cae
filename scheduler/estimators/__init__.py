"""Estimators of traffic and services, one per file, pure. Imports scheduler.domain and numpy only."""
