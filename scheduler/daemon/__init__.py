"""The asyncio shell: configuration, HTTP handlers, runner, backends, telemetry.

May import everything below the shells, but neither simulator nor measuring.
"""
