"""The sweep: one Optuna study is the truth, Ray Tune executes it."""
