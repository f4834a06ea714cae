"""The asyncio shell: configuration, ingress, runner, backends, telemetry. May import everything below the shells."""
