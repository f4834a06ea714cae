"""What Prometheus and Grafana need to watch edgeburst: alert rules, their tests, a dashboard and its source."""
