"""What every protocol shares on the way in and out: models and their checks, limits, answers, errors, counts.

It knows no protocol: no type of an HTTP or gRPC library occurs here.
"""
