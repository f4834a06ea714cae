"""`edgeburst doctor`: what is found out about the three hosts (`*_facts`), and what that means (`*_checks`, pure).

May import the daemon's configuration and backends, deploying, measuring, planner's sheets, fc_client, wire and domain.
"""
