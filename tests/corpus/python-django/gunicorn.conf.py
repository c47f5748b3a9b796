"""gunicorn reads this file; the worker class is named, and gunicorn imports it by that name."""

bind = "0.0.0.0:18220"
workers = 2
worker_class = "gthread"
threads = 2
worker_tmp_dir = "/dev/shm"
accesslog = "-"
