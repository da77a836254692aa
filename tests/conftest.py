"""Settings of every test: no wall-clock deadline on generated cases (machines are noisy); failures can be replayed."""

from hypothesis import HealthCheck, settings

settings.register_profile("kinora", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kinora")
