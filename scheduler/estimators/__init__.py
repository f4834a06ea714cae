"""Estimators of traffic, uplink and services, one per file, pure. Imports scheduler.domain and numpy only."""
