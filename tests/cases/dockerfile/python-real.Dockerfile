FROM python:3.11 AS base
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    # where pip keeps its wheels
    PIP_NO_CACHE_DIR=1
RUN set -eux; \
    apt-get update; \
    apt-get install -y --no-install-recommends libpq5; \
    rm -rf /var/lib/apt/lists/*
COPY requirements.txt ./
RUN pip install -r requirements.txt
COPY . /app
HEALTHCHECK CMD python -c "import urllib.request as u; u.urlopen('http://localhost:8000/')" || exit 1
ENTRYPOINT ["gunicorn"]
CMD ["-b", "0.0.0.0:8000", "app:app"]
