# The course in JupyterLab. Lessons that break a broker start a node of their own, so RabbitMQ is in here too;
# CHATLIB_BROKER_URL names the broker for everything else.
FROM python:3.11-slim

WORKDIR /course
RUN useradd --create-home learner

# first what changes rarely: RabbitMQ (installed, not started), then Python packages as locked
RUN printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod +x /usr/sbin/policy-rc.d \
 && apt-get update && apt-get install -y --no-install-recommends rabbitmq-server && rm -rf /var/lib/apt/lists/*
COPY pyproject.toml requirements.lock requirements-uv.lock ./
COPY scripts/setup.sh scripts/setup.sh
RUN mkdir chatlib && touch README.md LICENSE && scripts/setup.sh lab && rm -rf /var/lib/apt/lists/* "$HOME/.cache"

COPY . .
RUN chown -R learner: .setup notebooks

USER learner
EXPOSE 8888
CMD [".venv/bin/python", "scripts/lab.py", "--host", "0.0.0.0"]
