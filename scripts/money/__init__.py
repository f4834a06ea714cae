"""Real processes with cold starts: does the daemon book what the platform's meter bills?"""
