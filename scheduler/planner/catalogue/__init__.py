"""What can be bought and how fast it is: price sheets, function configurations, latency models, profiles."""
