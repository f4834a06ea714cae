"""What all tests share: hypothesis without deadlines, because machines that run tests are shared and noisy."""

from hypothesis import settings

settings.register_profile("edgeburst", deadline=None)
settings.load_profile("edgeburst")
